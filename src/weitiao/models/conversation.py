"""A conversation with the tuned model, or with its base, in text."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from weitiao.models.generate import Sampling, stream
from weitiao.models.pair import Voice
from weitiao.models.pieces import text_pieces
from weitiao.records.record import Message
from weitiao.records.render import ChatFormat


@dataclass(slots=True)
class Conversation:
    """The turns so far and the model that goes on with them. ``decode``: token ids to text."""

    tuned: Voice
    base: Voice
    chat: ChatFormat
    decode: Callable[[Sequence[int]], str]
    sampling: Sampling
    system: str | None = None
    turns: list[Message] = field(default_factory=list)

    def reply(self, text: str) -> Iterator[str]:
        """Yield the tuned model's answer to ``text`` in pieces as they come; remember the turn.

        An answer that the caller leaves off is remembered as far as it came.
        """
        self.turns.append(Message("user", text))
        said: list[str] = []
        try:
            for piece in self._answer(self.tuned, self._messages()):
                said.append(piece)
                yield piece
        finally:
            self.turns.append(Message("assistant", "".join(said)))

    def base_reply(self) -> Iterator[str]:
        """Yield what the base model answers to the last question; the history stays as it is."""
        messages = self._messages()
        last = max(i for i, turn in enumerate(messages) if turn.role == "user")
        yield from self._answer(self.base, messages[: last + 1])

    def asked(self) -> bool:
        """Return whether anything has been asked yet."""
        return any(turn.role == "user" for turn in self.turns)

    def forget(self) -> None:
        """Begin anew."""
        self.turns.clear()

    def _messages(self) -> list[Message]:
        head = [Message("system", self.system)] if self.system is not None else []
        return [*head, *self.turns]

    def _answer(self, voice: Voice, messages: Sequence[Message]) -> Iterator[str]:
        prompt = self.chat.prompt_ids(messages)
        with voice.speaking():
            tokens = stream(voice.model, prompt, self.sampling, self.chat.stop_ids)
            yield from text_pieces(self.decode, tokens)

"""Tokens to what an asker reads: whole characters, reasoning apart, nothing after a stop string."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from weitiao.models.pieces import Decode, Pieces
from weitiao.serving.engine import Logprob, Step

_CLOSING = "</think>"


def opens_reasoning(opener: str) -> bool:
    """Tell whether a template that opens with ``opener`` lets the model reason first."""
    return "<think>" in opener and _CLOSING not in opener


@dataclass(frozen=True, slots=True)
class Said:
    """What a step adds to an answer."""

    text: str = ""
    reasoning: str = ""
    logprobs: tuple[Logprob, ...] = ()
    """Of the tokens of ``text``."""


@dataclass(frozen=True, slots=True)
class _Token:
    """Where in the answer a token's text begins and ends, in characters."""

    start: int
    end: int
    logprob: Logprob


class Reader:
    """Reads one answer. ``finish`` is set when it is over, ``tokens`` counts what was made.

    With ``thinking`` the text up to ``</think>`` is reasoning, in which ``stops`` are not
    looked for. Text that may become a stop string is held back until it cannot.
    """

    def __init__(self, decode: Decode, stops: tuple[str, ...] = (), thinking: bool = False) -> None:
        self.finish: Literal["stop", "length"] | None = None
        self.tokens = 0
        self._pieces = Pieces(decode)
        self._stops, self._thinking = stops, thinking
        self._skips_blanks = False
        self._held, self._thought, self._text = "", "", ""
        self._sent = 0
        self._waiting: list[_Token] = []
        self._told: list[Logprob] = []

    def read(self, step: Step) -> Said:
        """Return what can be shown after ``step``; nothing more may come once it is over."""
        self._thought, self._text, self._told = "", "", []
        for place, token in enumerate(step.ids):
            self.tokens += 1
            logprob = step.logprobs[place] if step.logprobs else None
            self._take(self._pieces.add(token), logprob)
            if self.finish:
                break
        if step.finish and not self.finish:
            self._end(step.finish)
        return Said(self._text, self._thought, tuple(self._told))

    def _take(self, piece: str, logprob: Logprob | None) -> None:
        self._held += piece
        if self._thinking:
            self._think()
            if self._thinking:
                return
        if self._skips_blanks:
            self._held = self._held.lstrip()
            self._skips_blanks = not self._held
        if logprob is not None:
            start = self._waiting[-1].end if self._waiting else self._sent
            self._waiting.append(_Token(start, self._sent + len(self._held), logprob))
        if not self._stopped():
            self._give(len(self._held) - _beginning(self._held, self._stops))

    def _think(self) -> None:
        thought, closing, rest = self._held.partition(_CLOSING)
        if closing:
            self._thinking, self._skips_blanks = False, True
            self._held = rest
        else:
            end = len(thought) - _beginning(thought, (_CLOSING,))
            thought, self._held = thought[:end], thought[end:]
        self._thought += thought

    def _stopped(self) -> bool:
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.finish = "stop"
            cut = self._sent + min(found)
            self._told += [token.logprob for token in self._waiting if token.start < cut]
            self._waiting = []
            self._give(min(found))
        return bool(found)

    def _give(self, length: int) -> None:
        self._text += self._held[:length]
        self._held = self._held[length:]
        self._sent += length
        while self._waiting and self._waiting[0].end <= self._sent:
            self._told.append(self._waiting.pop(0).logprob)

    def _end(self, finish: Literal["stop", "length"]) -> None:
        self._take(self._pieces.rest(), None)
        if self.finish:
            return
        self.finish = finish
        if self._thinking:
            self._thought += self._held
        else:
            self._give(len(self._held))


def _beginning(text: str, wanted: Iterable[str]) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of one of those."""
    return max((_overlap(text, one) for one in wanted), default=0)


def _overlap(text: str, wanted: str) -> int:
    longest = min(len(text), len(wanted) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(wanted[:n])), 0)

"""Answers to JSON: whole, or in chunks, as each route has them."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol
from uuid import uuid4

from weitiao.serving.answering import Answer, Part, unix_time
from weitiao.serving.asking import Questions
from weitiao.serving.engine import Logprob

_LEAST = -9999.0
"""JSON has no infinity."""


class Whole(Protocol):
    """One request's answers in the form of its route."""

    id: str

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Return the answer in one piece."""


class Shape(Whole, Protocol):
    """A form that can come in chunks, too."""

    def opening(self) -> Iterator[dict[str, Any]]:
        """Yield the chunks before the first part."""

    def part(self, part: Part) -> Iterator[dict[str, Any]]:
        """Yield the chunks of what comes next."""

    def closing(self, answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
        """Yield the chunks after the last part."""


class _Shape:
    """What the routes of OpenAI's protocol have in common."""

    def __init__(
        self, questions: Questions, prefix: str, kinds: tuple[str, str], tells_usage: bool
    ) -> None:
        self.id = f"{prefix}-{uuid4().hex}"
        self._questions = questions
        self._whole, self._chunk = kinds
        self._tells_usage = tells_usage
        self._created = unix_time()

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        served = self._questions.served
        return {
            "id": self.id,
            "object": kind,
            "created": self._created,
            "model": served.name,
            "system_fingerprint": served.fingerprint or None,
            "choices": choices,
        }

    def _piece(self, choice: dict[str, Any]) -> dict[str, Any]:
        chunk = self._object(self._chunk, [choice])
        return {**chunk, "usage": None} if self._tells_usage else chunk

    def closing(self, answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
        """Yield the counts of tokens, where they were asked for."""
        if self._tells_usage:
            yield {**self._object(self._chunk, []), "usage": usage(self._questions, answers)}

    def _token(self, token: int) -> str:
        return self._questions.served.decode([token])


class ChatShape(_Shape):
    """/v1/chat/completions."""

    def __init__(self, questions: Questions, logprobs: bool, tells_usage: bool) -> None:
        kinds = ("chat.completion", "chat.completion.chunk")
        super().__init__(questions, "chatcmpl", kinds, tells_usage)
        self._logprobs = logprobs

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Return a ``chat.completion``."""
        choices = [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": answer.text,
                    "refusal": None,
                    **({"reasoning_content": answer.reasoning} if answer.reasoning else {}),
                },
                "logprobs": self._told(answer.logprobs),
                "finish_reason": answer.finish,
            }
            for index, answer in enumerate(answers)
        ]
        whole = self._object(self._whole, choices)
        return {**whole, "usage": usage(self._questions, answers)}

    def opening(self) -> Iterator[dict[str, Any]]:
        """Yield who speaks, for each answer."""
        for index in range(len(self._questions.asks)):
            yield self._delta(index, {"role": "assistant", "content": ""})

    def part(self, part: Part) -> Iterator[dict[str, Any]]:
        """Yield what is said, and why it ended."""
        said = part.said
        delta = {"reasoning_content": said.reasoning} if said.reasoning else {}
        if said.text or said.logprobs:
            delta["content"] = said.text
        if delta:
            yield self._delta(part.index, delta, self._told(said.logprobs))
        if part.finish is not None:
            yield self._delta(part.index, {}, None, part.finish)

    def _delta(
        self,
        index: int,
        delta: dict[str, str],
        logprobs: dict[str, Any] | None = None,
        finish: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._piece(choice)

    def _told(self, logprobs: Sequence[Logprob]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        told = [
            {
                **self._one(one.id, one.logprob),
                "top_logprobs": [self._one(token, logprob) for token, logprob in one.top],
            }
            for one in logprobs
        ]
        return {"content": told, "refusal": None}

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._token(token)
        # A token that holds a part of a character has bytes, but its text does not tell them.
        whole = "\N{REPLACEMENT CHARACTER}" not in text
        return {
            "token": text,
            "logprob": max(logprob, _LEAST),
            "bytes": list(text.encode()) if whole else None,
        }


class TextShape(_Shape):
    """/v1/completions. ``echo``: the text of each prompt, to stand before its answers."""

    def __init__(
        self, questions: Questions, echo: Sequence[str], logprobs: bool, tells_usage: bool
    ) -> None:
        super().__init__(questions, "cmpl", ("text_completion", "text_completion"), tells_usage)
        self._echo, self._logprobs = echo, logprobs
        self._offsets = [0] * len(questions.asks)

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Return a ``text_completion``."""
        choices = [
            self._choice(index, self._before(index) + answer.text, answer.logprobs, answer.finish)
            for index, answer in enumerate(answers)
        ]
        whole = self._object(self._whole, choices)
        return {**whole, "usage": usage(self._questions, answers)}

    def opening(self) -> Iterator[dict[str, Any]]:
        """Yield the prompts, where they are to be echoed."""
        for index in range(len(self._questions.asks)):
            if text := self._before(index):
                yield self._piece(self._choice(index, text))

    def part(self, part: Part) -> Iterator[dict[str, Any]]:
        """Yield what is said, and why it ended."""
        said = part.said
        if said.text or said.logprobs or part.finish is not None:
            choice = self._choice(part.index, said.text, said.logprobs, part.finish)
            yield self._piece(choice)

    def _before(self, index: int) -> str:
        choices = len(self._questions.asks) // len(self._questions.prompts)
        return self._echo[index // choices] if self._echo else ""

    def _choice(
        self,
        index: int,
        text: str,
        logprobs: Sequence[Logprob] = (),
        finish: str | None = None,
    ) -> dict[str, Any]:
        told = self._told(index, logprobs) if self._logprobs else None
        return {"index": index, "text": text, "logprobs": told, "finish_reason": finish}

    def _told(self, index: int, logprobs: Sequence[Logprob]) -> dict[str, Any]:
        tokens = [self._token(one.id) for one in logprobs]
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(token)
        tops = [{self._token(i): max(value, _LEAST) for i, value in one.top} for one in logprobs]
        return {
            "tokens": tokens,
            "token_logprobs": [max(one.logprob, _LEAST) for one in logprobs],
            "top_logprobs": tops,
            "text_offset": offsets,
        }


class PlainShape:
    """/generate, which does not stream."""

    def __init__(self, questions: Questions) -> None:
        self.id = f"gen-{uuid4().hex}"
        self._questions = questions

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """Return the one answer."""
        (answer,) = answers
        return {
            "id": self.id,
            "model": self._questions.served.name,
            "response": answer.text,
            "text": answer.text,
            **({"reasoning_content": answer.reasoning} if answer.reasoning else {}),
            "finish_reason": answer.finish,
            "usage": usage(self._questions, answers),
        }


def usage(questions: Questions, answers: Sequence[Answer]) -> dict[str, int]:
    """Return the counts of tokens; a prompt counts once, however many its answers."""
    made = sum(answer.tokens for answer in answers)
    return {
        "prompt_tokens": questions.prompt_tokens,
        "completion_tokens": made,
        "total_tokens": questions.prompt_tokens + made,
    }

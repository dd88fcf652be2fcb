"""An answer's words: how they follow the prompt after which the model says them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from weitiao.records.record import Message, Reason

_EMPTY_REASONING = re.compile(r"<think>\s*</think>\s*")
_LEADING_TAG = re.compile(r"\s*<think>\n?")
_OPENER = re.compile(r"\s*(<think>\s*)?(</think>\s*)?")
_CLOSING = "</think>"
# The blanks of the answer's own first line are the answer's, unless it stands behind the tag.
_GAP = re.compile(r"\s*\n|\s*")


@dataclass(frozen=True, slots=True)
class Words:
    """What stands between prompt and answer: ``text``, called with the answer's content.

    ``opened``: the prompt ends with ``text``, which opens, or opens and closes, a reasoning
    block. Otherwise the template adds ``text`` before the answer.
    """

    text: str
    opened: bool

    def __call__(self, content: str) -> str:
        """Return the words after the prompt."""
        return (_after_opener if self.opened else _after_lead)(self.text, content)

    @property
    def as_they_are(self) -> bool:
        """Whether the words are the content itself."""
        return not self.text and not self.opened


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer: the text the model is given, and the text it must say, end of turn included.

    ``number``: its place in the conversation, from 0. ``completion`` is ``words`` of its
    content and then ``end``; a turn that calls tools has its completion as the template
    writes it, and no ``words``. ``thought``: so many characters of the completion, from its
    start, are reasoning with its tags and the blanks around it.
    """

    number: int
    prompt: str
    completion: str
    words: Words | None = None
    end: str = ""
    thought: int = 0


class RefusedError(Exception):
    """A conversation that this template cannot render with an exact mask."""

    def __init__(self, name: str, **values: Any) -> None:
        super().__init__(name)
        self.reason = Reason(name, values)


def scored_turns(messages: Sequence[Message], score_turns: Literal["all", "last"]) -> list[int]:
    """Return the numbers of the answers that are learnt."""
    answers = [i for i, m in enumerate(messages) if m.role == "assistant"]
    return [i for i in (answers if score_turns == "all" else answers[-1:]) if messages[i].loss]


def answer_starts(said: str, end: int | None = None) -> int:
    """Return where in ``said`` the answer begins, after reasoning closed before ``end``; or 0."""
    closed = said.rfind(_CLOSING, 0, end)
    if closed < 0:
        return 0
    gap = _GAP.match(said, closed + len(_CLOSING))
    assert gap is not None  # it matches an empty text too
    return gap.end()


def left_open(content: str) -> bool:
    """Tell whether ``content`` is reasoning that never ends: nobody can tell an answer in it."""
    return "<think>" in content and content[answer_starts(content) :].lstrip().startswith("<think>")


def without_reasoning(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the turns with the assistant's answers only, as if it had never reasoned."""
    if not any(m.role == "assistant" and _CLOSING in m.content for m in messages):
        return messages
    return tuple(
        replace(m, content=m.content[answer_starts(m.content) :]) if m.role == "assistant" else m
        for m in messages
    )


def words_between(prompt: str, before: str) -> Words | None:
    """Return how an answer follows ``prompt`` where the template writes ``before`` before it.

    None: the one is not the other with a reasoning block opened, or with something added.
    """
    if before.startswith(prompt):
        return Words(before[len(prompt) :], opened=False)
    if prompt.startswith(before) and _OPENER.fullmatch(prompt, len(before)):
        return Words(prompt[len(before) :], opened=True)
    return None


def _after_lead(lead: str, content: str) -> str:
    """Return the words after a prompt to which the template adds ``lead`` before an answer.

    Some leads are an empty reasoning block (Qwen3); an answer with reasoning has its own.
    """
    return (_EMPTY_REASONING.sub("", lead) if "</think>" in content else lead) + content


def _after_opener(opener: str, content: str) -> str:
    """Return the words after a prompt that opens, or opens and closes, a reasoning block."""
    _, has_reasoning, answer = content.rpartition("</think>")
    if "</think>" in opener:
        return answer.lstrip("\n") if has_reasoning else content
    line_end = "" if opener.endswith("\n") else "\n"
    if has_reasoning:
        return line_end + _LEADING_TAG.sub("", content, count=1)
    # What the model must say from this prompt to answer without reasoning first.
    return line_end + "\n</think>\n\n" + content

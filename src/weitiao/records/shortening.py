"""Make a conversation fit: shorten what is said in it, never a header or an end of turn.

What is shortened is the text of single turns, and the chat template then renders the
turns anew. So every header and every end-of-turn token survives by construction.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from weitiao.records.record import Message

CUT_MARK = "…"
"""Stands where the middle of a text was left out."""

_REASONING = re.compile(r"(\s*(?:<think>\n?)?)(.*?)(\n?</think>\n*)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a turn: ``fixed`` is kept whole, ``end`` loses its end, ``middle`` its middle.

    ``context`` tells what the model is given from what the assistant says.
    """

    turn: int
    text: str
    cut: str
    context: bool


def shorten(
    messages: Sequence[Message],
    max_tokens: int,
    count: Callable[[str], int],
    measure: Callable[[Sequence[Message]], int],
) -> tuple[Message, ...] | None:
    """Return the turns with texts shortened so that ``measure`` of them is at most ``max_tokens``.

    First the longest of the system's, user's and tools' texts lose their middle, then the
    assistant's answers lose their end (their reasoning its middle). ``count`` gives the
    tokens of a text, ``measure`` those of the rendered turns. None: the headers alone
    leave no room, or so little that a text would vanish.
    """
    parts = [part for i, message in enumerate(messages) for part in _parts(i, message)]
    soft = [i for i, part in enumerate(parts) if part.cut != "fixed" and part.text]
    lengths = [count(parts[i].text) for i in soft]
    room = max_tokens - (measure(messages) - sum(lengths))
    while (kept := _share(lengths, [parts[i].context for i in soft], room)) is not None:
        texts = [part.text for part in parts]
        for i, length, keep in zip(soft, lengths, kept, strict=True):
            texts[i] = texts[i] if keep >= length else _cut(parts[i], keep, count)
            if not texts[i]:
                return None
        result = _joined(messages, parts, texts)
        # Texts tokenise a little differently inside the template, so measure and correct.
        over = measure(result) - max_tokens
        if over <= 0:
            return result
        room -= over
    return None


def _parts(turn: int, message: Message) -> list[_Part]:
    if message.role != "assistant":
        return [_Part(turn, message.content, "middle", True)]
    if match := _REASONING.fullmatch(message.content):
        opening, thought, closing, answer = match.groups()
        return [
            _Part(turn, opening, "fixed", False),
            _Part(turn, thought, "middle", False),
            _Part(turn, closing, "fixed", False),
            _Part(turn, answer, "end", False),
        ]
    return [_Part(turn, message.content, "end", False)]


def _share(lengths: Sequence[int], context: Sequence[bool], room: int) -> list[int] | None:
    """Return how many tokens of each text are kept; None if there is no room worth having.

    Each text keeps at least a fair minimum, so that a long answer does not eat the question.
    """
    minimum = room // (2 * len(lengths)) if lengths else 0
    if minimum < 1:
        return None
    said = [n for n, is_context in zip(lengths, context, strict=True) if not is_context]
    given = [n for n, is_context in zip(lengths, context, strict=True) if is_context]
    given_room = max(room - sum(said), sum(min(n, minimum) for n in given))
    given_cap = _cap(given, given_room)
    said_cap = _cap(said, room - sum(min(n, given_cap) for n in given))
    caps = [given_cap if is_context else said_cap for is_context in context]
    return [min(n, cap) for n, cap in zip(lengths, caps, strict=True)]


def _cap(lengths: Sequence[int], room: int) -> int:
    """Return the largest cap for which the capped lengths sum to at most ``room``."""
    left = room
    for i, length in enumerate(ordered := sorted(lengths)):
        cap = left // (len(ordered) - i)
        if length > cap:
            return max(cap, 0)
        left -= length
    return max(lengths, default=0)


def _cut(part: _Part, keep: int, count: Callable[[str], int]) -> str:
    if part.cut == "end":
        return _longest_start(part.text, keep, count)
    keep -= count(CUT_MARK)
    if keep < 2:
        return ""
    head = _longest_start(part.text, keep - keep // 2, count)
    tail = _longest_start(part.text[::-1], keep // 2, lambda text: count(text[::-1]))
    return head + CUT_MARK + tail[::-1]


def _longest_start(text: str, keep: int, count: Callable[[str], int]) -> str:
    """Return a start of ``text`` of at most ``keep`` tokens, cut between characters."""
    size = len(text)
    while size and (tokens := count(text[:size])) > keep:
        size = min(size - 1, size * keep // tokens)
    return text[:size]


def _joined(
    messages: Sequence[Message], parts: Sequence[_Part], texts: Sequence[str]
) -> tuple[Message, ...]:
    contents = [""] * len(messages)
    for part, text in zip(parts, texts, strict=True):
        contents[part.turn] += text
    return tuple(
        replace(message, content=content)
        for message, content in zip(messages, contents, strict=True)
    )

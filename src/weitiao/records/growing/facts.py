"""What a new wording must leave as it is: code, addresses, placeholders, quotes, numbers."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from weitiao.records.record import Record
from weitiao.words import Language

Span = tuple[int, int]

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_LATIN_WORD = re.compile("[A-Za-z]+")

_LITERAL = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`"  # code
    r"|(?:https?://|www\.)[^\s<>\"'，。；、！？）》」”]+"
    r"|(?<![A-Za-z0-9_.+-])[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+"
    r"|\$?\{\{?[^{}\n]{1,60}\}\}?|\$[A-Za-z_]\w*|%\(\w+\)[sd]|%[sd]\b"  # placeholders
    r"|</?[A-Za-z_][^<>\n]{0,60}>"
    r"|[〇零一二三四五六七八九十]{2,4}年"  # dates in words
    r"|[一二三四五六七八九十]{1,2}月[一二三四五六七八九十]{1,3}[日号]"
    r"|(?:星期|周|礼拜)[一二三四五六日天]"
    r"|\b(?:January|February|March|April|June|July|August|September|October|November|December"
    r"|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)\b",
    re.DOTALL,
)
_QUOTED = re.compile(r'“([^“”\n]+)”|「([^「」\n]+)」|『([^『』\n]+)』|《([^《》\n]+)》|"([^"\n]+)"')
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_WIDE_DIGITS = str.maketrans("０１２３４５６７８９", "0123456789")
_MOST_JSON = 20
"""Places of a text tried as the beginning of JSON: ``[[[[…`` must not take for ever."""

_LONGEST_LABEL = 40


def language_of(text: str) -> Language:
    """Return the language to speak of a text in: zh where it has as many Han signs as words."""
    han = len(_HAN.findall(text))
    return "zh" if han and han >= len(_LATIN_WORD.findall(text)) else "en"


def lost(parent: str, new: str, labels: Iterable[str] = ()) -> str | None:
    """Return a fact of ``parent`` that ``new`` no longer states, or None.

    Facts are code, JSON, addresses, placeholders, what stands in quotes, dates and numbers,
    each number as often as before, and ``labels``: see :func:`labels_of`.
    """
    for fact in (*_literals(parent), *sorted(labels)):
        if fact not in new:
            return fact
    gone = numbers(parent) - numbers(new)
    return next(iter(gone), None)


def fixed(text: str, labels: Iterable[str] = ()) -> bytearray:
    """Return, for each character of ``text``, 1 where no word may be exchanged, else 0."""
    spans = [match.span() for pattern in (_LITERAL, _QUOTED) for match in pattern.finditer(text)]
    spans += _json_spans(text)
    for label in labels:
        spans += [match.span() for match in re.finditer(re.escape(label), text)]
    mask = bytearray(len(text))
    for start, end in spans:
        mask[start:end] = b"\x01" * (end - start)
    return mask


def numbers(text: str) -> Counter[str]:
    """Return the numbers of ``text`` and how often each stands in it, in one way of writing."""
    found = _NUMBER.findall(text.translate(_WIDE_DIGITS))
    return Counter(number.replace(",", "").lstrip("0") or "0" for number in found)


def labels_of(record: Record, text: str) -> set[str]:
    """Return what the row's answer quotes from ``text``, its question.

    Such are the values of an answer in JSON, the arguments of a tool's call, and a whole
    short answer (a class named in the question): reworded, the answer would be wrong.
    """
    found: set[str] = set()
    answer = record.answer.strip()
    value = _loaded(answer)
    if value is not None:
        found.update(_leaves(value))
    elif len(answer) <= _LONGEST_LABEL:
        found.add(answer)
    for message in record.messages:
        for call in message.tool_calls:
            function = call.get("function", call)
            arguments = function.get("arguments") if isinstance(function, dict) else None
            arguments = _loaded(arguments) if isinstance(arguments, str) else arguments
            found.update(_leaves(arguments))
    return {label for label in found if len(label) > 1 and label in text}


def _literals(text: str) -> Iterator[str]:
    yield from _LITERAL.findall(text)
    for groups in _QUOTED.findall(text):
        yield "".join(groups)  # the marks may change, what they hold may not
    yield from (text[start:end] for start, end in _json_spans(text))


def _json_spans(text: str) -> list[Span]:
    spans: list[Span] = []
    end, tries = 0, 0
    for match in re.finditer(r"[{\[]", text):
        if match.start() < end:
            continue
        tries += 1
        if tries > _MOST_JSON:
            break
        try:
            value, end = json.JSONDecoder().raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if value:
            spans.append((match.start(), end))
    return spans


def _loaded(text: str) -> Any:
    """Return the JSON object or list that ``text`` is, or None."""
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _leaves(value: Any) -> Iterator[str]:
    left = [value]
    while left:  # no recursion: JSON may be nested deeper than Python calls itself
        one = left.pop()
        if isinstance(one, str):
            yield one.strip()
        elif isinstance(one, dict | list):
            left.extend(one.values() if isinstance(one, dict) else one)

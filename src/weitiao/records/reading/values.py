"""JSON values, such that nothing of them is lost in silence."""

import json
import re
from collections import Counter
from collections.abc import Collection
from typing import Any

import orjson

from weitiao.records.record import Reason

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""What undecodable bytes come as; valid text holds none."""

DEEPEST = 100
"""Levels of nesting; what writes JSON gives up at a few hundred."""

_EXACT = 2**53
"""From here on a float may stand for a whole number that had more digits."""

_PLAIN = frozenset((str, int, bool, type(None)))


class _DuplicateKeyError(ValueError):
    """An object names a key twice."""


class _DoubtError(Exception):
    """A value of which the quick way cannot say that all of it was read."""


def is_plain(value: dict[str, Any], source: bytes) -> bool:
    """Tell whether ``value``, read from ``source`` by orjson, is flat and all that stands there.

    A parser keeps the last of two equal keys. Each string, be it key or value, takes two
    quotation marks; if the marks are as many as the strings that came out ask for, there
    was no other string, hence no other key.
    """
    types = [*map(type, value.values())]
    texts = types.count(str)
    return source.count(b'"') == 2 * (len(types) + texts) and (
        texts == len(types) or _PLAIN.issuperset(types)
    )


def is_whole(value: dict[str, Any], source: bytes) -> bool:
    """Tell the same of an object of any form; False may also mean: not sure."""
    marks = source.count(b'"')
    if b"\\" in source:
        if b"\\\\" in source:
            return False
        marks -= source.count(b'\\"')
    try:
        return 2 * _strings(value, 0) == marks
    except _DoubtError:
        return False


def parse_object(text: str) -> dict[str, Any] | Reason:
    """Return the JSON object in ``text``, or what is wrong with it.

    NaN, which pandas writes for an empty cell, is read as null, and infinity as text.
    """
    try:
        value = _CAREFUL.decode(text)
    except _DuplicateKeyError as error:
        return Reason("duplicate_key", {"key": str(error)})
    except RecursionError:
        return Reason("too_deep", {"limit": DEEPEST})
    except ValueError as error:  # also a number of thousands of digits
        return Reason("broken_json", {"column": getattr(error, "colno", 1)})
    if not isinstance(value, dict):
        return Reason("not_an_object")
    if _is_deep(value, DEEPEST):
        return Reason("too_deep", {"limit": DEEPEST})
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return Reason("broken_encoding")
    return value


def parse_item(value: Any, text: str) -> dict[str, Any] | Reason:
    """Return ``value``, which ``LENIENT`` read from ``text``, or what is wrong with it."""
    if not isinstance(value, dict):
        return Reason("not_an_object")
    try:
        source = text.encode()
    except UnicodeEncodeError:
        return Reason("broken_encoding")
    whole = is_plain(value, source) or is_whole(value, source)
    if whole and (b"\\u" not in source or _is_text(value)):
        return value
    return parse_object(text)


def _is_text(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:  # half of a surrogate pair, or what orjson cannot write
        return False
    return True


def _strings(value: dict[str, Any] | list[Any], depth: int) -> int:
    """Count the strings in a value, keys included."""
    if depth == DEEPEST:
        raise _DoubtError
    inside: Collection[Any] = value.values() if isinstance(value, dict) else value
    types = [*map(type, inside)]
    count = types.count(str) + (len(value) if isinstance(value, dict) else 0)
    if _PLAIN.issuperset(types):
        return count
    for inner in inside:
        if isinstance(inner, (dict, list)):
            count += _strings(inner, depth + 1)
        elif isinstance(inner, float) and abs(inner) >= _EXACT:
            raise _DoubtError
    return count


def _is_deep(value: Any, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(inner, levels - 1) for inner in inside)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _DuplicateKeyError(counts.most_common(1)[0][0])
    return found


def _constant(name: str) -> str | None:
    return None if name == "NaN" else name


LENIENT = json.JSONDecoder(strict=False, parse_constant=_constant)
"""Reads control characters in strings; keeps the last of two equal keys."""

_CAREFUL = json.JSONDecoder(strict=False, parse_constant=_constant, object_pairs_hook=_unique)

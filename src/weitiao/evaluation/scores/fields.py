"""Answers that are to be JSON: is it JSON, and which of its fields are right."""

import re
from collections.abc import Iterable
from typing import Any

import orjson

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL | re.IGNORECASE)


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that is the whole of ``text``, or None."""
    try:
        value = orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def json_valid(answer: str, reference: str) -> float | None:
    """Return 1 where the whole answer is one JSON object, else 0.

    None where the reference is not one itself.
    """
    if json_object(reference) is None:
        return None
    return float(json_object(answer) is not None)


def json_fields(answer: str, reference: str) -> float | None:
    """Return the share of the reference's leaf fields that the answer holds with an equal value.

    An answer inside a Markdown code fence is read too: its form is judged by
    :func:`json_valid`. None where the reference is no JSON object or has no field.
    """
    found = field_matches(answer, reference)
    return sum(found.values()) / len(found) if found else None


def field_matches(answer: str, reference: str) -> dict[str, bool]:
    """Return leaf field of the reference (``slots.card``) → whether the answer's value is equal.

    Values are equal when their types are (``true`` is not ``1``, ``1`` is ``1.0``) and
    texts are the same but for outer blanks. Empty where the reference is no JSON object.
    """
    wanted = json_object(reference)
    if not wanted:
        return {}
    fenced = _FENCE.search(answer)
    given = json_object(answer) or (json_object(fenced[1]) if fenced else None) or {}
    leaves = dict(_leaves(given))
    return {path: path in leaves and leaves[path] == value for path, value in _leaves(wanted)}


def _leaves(value: object) -> Iterable[tuple[str, tuple[str, object]]]:
    """Yield (path, (kind, value)) of each leaf; an empty list or object is a leaf."""
    # A stack, not recursion: a model's answer may nest deeper than Python's own stack goes.
    todo: list[tuple[str, object]] = [("", value)]
    while todo:
        path, value = todo.pop()
        inner: list[tuple[Any, object]] = []
        if isinstance(value, dict):
            inner = list(value.items())
        elif isinstance(value, list):
            inner = list(enumerate(value))
        todo.extend((f"{path}.{key}" if path else str(key), item) for key, item in reversed(inner))
        if not inner:
            yield path, (_kind(value), value.strip() if isinstance(value, str) else value)


def _kind(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if number else type(value).__name__

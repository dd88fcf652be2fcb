"""Texts that count as equal: whatever their width, case and blanks."""

import unicodedata
from collections.abc import Sequence
from functools import partial

_BETWEEN = "\x01"
"""What stands between texts that are folded together: no blank, and part of no composition."""

_MARKS = (("，", ","), ("：", ":"), ("？", "?"), ("！", "!"), ("；", ";"), ("（", "("), ("）", ")"))
_is_normal = partial(unicodedata.is_normalized, "NFKC")


def folded(text: str) -> str:
    """Return ``text`` in normal form NFKC, without case and without blanks.

    For comparing alone: what a person wrote is never shown or learnt in this form.
    """
    return "".join(_normal(_without_marks(text)).casefold().split())


def folded_all(texts: Sequence[str]) -> list[str]:
    """Return each of ``texts`` folded, most of the work done for all at once."""
    together = _without_marks(_BETWEEN.join(texts))
    if together.count(_BETWEEN) != len(texts) - 1:
        return list(map(folded, texts))
    if not _is_normal(together):
        together = _BETWEEN.join(map(_normal, together.split(_BETWEEN)))
    return "".join(together.casefold().split()).split(_BETWEEN)


def _without_marks(text: str) -> str:
    """Put right the marks of nearly every Chinese sentence, which leaves most texts normal."""
    if not text.isascii():
        for mark, plain in _MARKS:
            text = text.replace(mark, plain)
    return text


def _normal(text: str) -> str:
    # Normalising takes ten times as long as finding that nothing is left to do.
    return text if _is_normal(text) else unicodedata.normalize("NFKC", text)

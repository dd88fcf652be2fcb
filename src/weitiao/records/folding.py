"""Texts that count as equal: whatever their width, case and blanks."""

import unicodedata
from functools import partial

_is_normal = partial(unicodedata.is_normalized, "NFKC")


def folded(text: str) -> str:
    """Return ``text`` in normal form NFKC, without case and without blanks.

    For comparing alone: what a person wrote is never shown or learnt in this form.
    """
    if not text.isascii():
        # The marks of nearly every Chinese sentence, put right at once: normalising takes
        # ten times as long as finding that nothing is left to do.
        for mark, plain in (("，", ","), ("：", ":"), ("？", "?"), ("！", "!"), ("；", ";")):
            text = text.replace(mark, plain)
        if not _is_normal(text):
            text = unicodedata.normalize("NFKC", text)
    return "".join(text.casefold().split())

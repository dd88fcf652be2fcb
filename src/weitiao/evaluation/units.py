"""What the text scores count: each Han character or kana a unit, each word of other scripts.

Scores made for English split at blanks, so a Chinese sentence is one "word" and reads 0;
scores made on characters alone make English words look alike. Mixed text needs both.
"""

import re
import unicodedata
from collections.abc import Hashable, Sequence
from itertools import pairwise

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_KANA = "\u3040-\u30ff"
_UNIT = re.compile(rf"[{HAN}{_KANA}]|[^\W_{HAN}{_KANA}]+|[^\w\s]|_")
_HAN_CHARACTER = re.compile(f"[{HAN}]")


def units(text: str, *, punctuation: bool = False) -> list[str]:
    """Return the units of ``text`` without regard to case: Han characters, kana, words.

    With ``punctuation`` each mark and symbol is a unit too, else they are passed over.
    """
    found = _UNIT.findall(unicodedata.normalize("NFC", text).casefold())
    return found if punctuation else [unit for unit in found if unit[0].isalnum()]


def pieces(text: str) -> list[str]:
    """Return ``text`` cut before each of its units and marks; joined they are the text again."""
    starts = [unit.start() for unit in _UNIT.finditer(text)]
    # What stands before the first unit goes with it.
    return [text[a:b] for a, b in pairwise([0, *starts[1:], len(text)])]


def has_han(text: str) -> bool:
    """Say whether ``text`` holds a Han character."""
    return _HAN_CHARACTER.search(text) is not None


def ngrams(sequence: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Return the runs of ``n`` neighbours, in order; none where there are fewer than ``n``."""
    return [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence.

    Bit-parallel over ``a`` (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"):
    a Python integer holds a whole row of the table, so long answers take milliseconds.
    """
    where: dict[Hashable, int] = {}
    for i, item in enumerate(a):
        where[item] = where.get(item, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for item in b:
        matches = row & where.get(item, 0)
        row = ((row + matches) | (row - matches)) & full
    return len(a) - row.bit_count()

"""Texts of the user's made fit to be shown: cut, invisible characters named, changes marked."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

Run = tuple[str, bool]
"""A stretch of text, and whether it is marked."""

_EMOJI = "[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f]"
# Control and format characters, separators of lines, blanks that are no plain blank, halves
# of surrogate pairs, private use and Hangul fillers: all that shows as nothing or as a box.
# The joiner within an emoji is no slip and stays.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u180e\u2000-\u200c\u200e\u200f"
    "\u2028-\u202f\u205f-\u206f\u3164\ud800-\udfff\ue000-\uf8ff\ufeff\uffa0\ufff9-\ufffb"
    "\ufffe\uffff\U000e0000-\U000e007f]"
    f"|(?<!{_EMOJI})\u200d|\u200d(?!{_EMOJI})"
)
_INVISIBLE_OR_BLANK = re.compile(f"[ \u3000]|{_INVISIBLE.pattern}")
_SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "CR"}

_LONGEST_COMPARED = 400


def named(text: str, *, blanks: bool = False) -> list[Run]:
    """Return ``text`` as runs; the marked ones are names of characters that nobody sees.

    A line break becomes ⏎, a tab ⇥, a carriage return CR, all else U+ and its number; with
    ``blanks`` a blank becomes ␣ and the ideographic one U+3000.
    """
    runs: list[Run] = []
    end = 0
    for found in (_INVISIBLE_OR_BLANK if blanks else _INVISIBLE).finditer(text):
        if found.start() > end:
            runs.append((text[end : found.start()], False))
        end, sign = found.end(), found[0]
        runs.append((_SIGNS.get(sign, f"U+{ord(sign):04X}"), True))
    return [*runs, (text[end:], False)] if end < len(text) else runs


def plain(text: str, *, blanks: bool = False) -> str:
    """Return :func:`named` as one text, with the names in ‹› and signs of one letter bare."""
    runs = named(text, blanks=blanks)
    return "".join(f"‹{run}›" if mark and len(run) > 1 else run for run, mark in runs)


def cut(text: str, most: int) -> str:
    """Return at most ``most`` characters of ``text``, and an ellipsis for the others."""
    return text if len(text) <= most else text[:most].rstrip() + "…"


def differences(before: str, after: str) -> tuple[list[Run], list[Run]]:
    """Return both texts as runs; the marked ones are only in this one of the two.

    A single equal character between two changes counts as changed: confetti says nothing.
    """
    before, after = cut(before, _LONGEST_COMPARED), cut(after, _LONGEST_COMPARED)
    old: list[Run] = []
    new: list[Run] = []
    found = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    for number, (what, i, i_end, j, j_end) in enumerate(found):
        alone = i_end - i == 1 and 0 < number < len(found) - 1
        old.append((before[i:i_end], alone or what != "equal"))
        new.append((after[j:j_end], alone or what != "equal"))
    return _joined(old), _joined(new)


def _joined(runs: Iterable[Run]) -> list[Run]:
    joined: list[Run] = []
    for text, mark in runs:
        if joined and joined[-1][1] == mark:
            joined[-1] = (joined[-1][0] + text, mark)
        elif text:
            joined.append((text, mark))
    return joined

"""Which of the four kinds each line of regulated verse (近体) is, and where lines break it.

Kinds, by their last five characters (Wang Li, 《诗词格律》): a ``◐●◐○●``, b ``◐○◐●●``,
A ``◐●●○○``, B ``◐○◐●○``; A and B stand where the line rhymes. Before them, in a line of
seven, ``◐`` and the opposite of their second. s is b with its third and fourth exchanged
(``○○●○●``, 特拗), which poets use freely.
"""

from collections.abc import Sequence
from itertools import pairwise

LEVEL, OBLIQUE, FREE, UNKNOWN = "○", "●", "◐", "？"

_KINDS = {"a": "◐●◐○●", "b": "◐○◐●●", "s": "○○●○●", "A": "◐●●○○", "B": "◐○◐●○"}
_OPPOSITE = {LEVEL: OBLIQUE, OBLIQUE: LEVEL}


def wanted(kind: str, length: int) -> str:
    """Return the marks that a line of ``kind`` wants, five or seven; ``◐`` for either."""
    five = _KINDS[kind]
    return five if length == 5 else FREE + _OPPOSITE[five[1]] + five


def misfits(kind: str, marks: str) -> list[int]:
    """Return the indexes at which ``marks`` are decided and not what ``kind`` wants."""
    pairs = zip(marks, wanted(kind, len(marks)), strict=True)
    return [i for i, (mark, want) in enumerate(pairs) if _OPPOSITE.get(mark) == want]


def kinds(lines: Sequence[str]) -> str:
    """Return the kinds, a letter a line, that leave the fewest misfits and broken links.

    ``lines`` are marks. The first line may rhyme or not; after it every other one rhymes.
    """
    # The cheapest way to each kind of the line at hand: Viterbi's algorithm.
    ways = {kind: (len(misfits(kind, lines[0])), kind) for kind in _KINDS}
    for i, marks in enumerate(lines[1:], 1):
        ways = {
            kind: min(
                (cost + len(misfits(kind, marks)) + (not linked(i, path[-1], kind)), path + kind)
                for cost, path in ways.values()
            )
            for kind in ("AB" if i % 2 else "abs")
        }
    return min(ways.values())[1]


def linked(index: int, before: str, kind: str) -> bool:
    """Say whether line ``index`` (from 0) follows the one before as it must.

    Within a couplet the second characters are opposite (对), between couplets alike (粘).
    """
    same = _KINDS[before][1] == _KINDS[kind][1]
    return same != bool(index % 2)


def broken_links(kinds_of_lines: str) -> list[int]:
    """Return the indexes of lines that do not follow the one before them."""
    pairs = enumerate(pairwise(kinds_of_lines), 1)
    return [i for i, (before, kind) in pairs if not linked(i, before, kind)]


def saved(lines: Sequence[str], kinds_of_lines: str, index: int, place: int) -> bool:
    """Say whether the line after makes up for an oblique mark in ``place`` (大拗, 对句相救).

    野火烧不尽，春风吹又生: 不 stands where a level one is due, and 吹 makes up for it.
    """
    if kinds_of_lines[index] != "a" or place != len(lines[index]) - 2:
        return False
    return kinds_of_lines[index + 1] == "B" and lines[index + 1][-3] in (LEVEL, FREE)


def lone_level(kind: str, marks: str) -> bool:
    """Say whether a level character stands alone between oblique ones (孤平) in a B line."""
    return kind == "B" and marks[-5] == marks[-3] == OBLIQUE and marks[-4] != OBLIQUE


def tones_share(lines: Sequence[str], kinds_of_lines: str) -> float | None:
    """Return the share of decided marks, in places that want one of the two, which fit.

    A lone level counts as one more that does not. None where nothing is decided.
    """
    fit = decided = 0
    for i, (marks, kind) in enumerate(zip(lines, kinds_of_lines, strict=True)):
        places = zip(marks, wanted(kind, len(marks)), strict=True)
        of_line = sum(mark in _OPPOSITE and want in _OPPOSITE for mark, want in places)
        wrong = [j for j in misfits(kind, marks) if not saved(lines, kinds_of_lines, i, j)]
        decided += of_line + lone_level(kind, marks)
        fit += of_line - len(wrong)
    return fit / decided if decided else None

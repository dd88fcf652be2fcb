"""The usable rows of a block, and what is kept of each to compare, count and divide.

One list a fact rather than one object a row: so they go between processes, and into the
arrays of all rows, at next to no cost.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from operator import itemgetter


def _numbers() -> "array[int]":
    return array("q")


@dataclass(slots=True)
class Kept:
    """One item a row in each list, in the order of the file.

    ``json``: the record; ``said``: 16 bytes equal for rows that say the same; ``read``: the
    same of the row before cleaning; ``group``: 64 bits equal for rows with one prompt, and
    their place in the seeded order of the split; ``line``: where it stood. ``samples``,
    ``tokens``, ``scored`` and ``shortened`` (0 or 1): what was rendered. ``votes``: who
    accepted it. ``value`` and ``time``: of the columns for balance and age, empty where none
    is asked for. ``parent``: the row or passage it was made from, or "".
    """

    json: list[bytes] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    read: list[bytes] = field(default_factory=list)
    group: "array[int]" = field(default_factory=lambda: array("Q"))
    line: "array[int]" = field(default_factory=_numbers)
    samples: "array[int]" = field(default_factory=_numbers)
    tokens: "array[int]" = field(default_factory=_numbers)
    scored: "array[int]" = field(default_factory=_numbers)
    shortened: "array[int]" = field(default_factory=_numbers)
    votes: "array[int]" = field(default_factory=_numbers)
    value: list[str] = field(default_factory=list)
    time: list[str] = field(default_factory=list)
    parent: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.json)

    def extend(self, other: "Kept", begin: int = 0, end: int | None = None) -> None:
        """Add the rows of ``other`` from ``begin`` on, up to but without ``end``."""
        for column in COLUMNS:
            getattr(self, column).extend(getattr(other, column)[begin:end])

    def at(self, rows: Sequence[int]) -> "Kept":
        """Return the rows with these numbers."""
        chosen = Kept()
        # Of one number alone, itemgetter makes no tuple.
        choose = itemgetter(*rows) if len(rows) > 1 else lambda values: [values[i] for i in rows]
        for column in COLUMNS:
            if values := getattr(self, column):
                getattr(chosen, column).extend(choose(values))
        return chosen


COLUMNS = tuple(column.name for column in fields(Kept))


def merged(many: Kept, few: Kept) -> Kept:
    """Return the rows of both in the order of their lines, as which each of them stands."""
    both, begin = Kept(), 0
    for row, line in enumerate(few.line):
        end = bisect_left(many.line, line, begin)
        both.extend(many, begin, end)
        both.extend(few, row, row + 1)
        begin = end
    both.extend(many, begin)
    return both

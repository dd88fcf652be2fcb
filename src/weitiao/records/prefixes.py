"""Beginnings that rows share, found and laid out so that each is computed once.

A row of a layout is a path of segments: the beginning it shares with others, perhaps a longer
one that it shares with fewer, and what is its own. Arithmetic on token ids, nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

SAVED_AT_LEAST = 16
"""Tokens a shared beginning must save: below it, attention's extra calls cost more."""

Ids = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens ``start`` to ``stop`` of the layout, followed by those that continue them.

    The tokens from ``stop`` to ``last`` see all of this segment; ``above`` are the segments
    that this one sees, from the row's beginning on.
    """

    start: int
    stop: int
    last: int
    above: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class Layout:
    """Rows laid out once each beginning.

    ``ids`` and ``positions`` are of the layout's tokens; ``places`` says for each row, in the
    order given, where each of its tokens stands in the layout.
    """

    ids: Ids
    positions: Ids
    segments: list[Segment]
    places: list[Ids]


def common_length(a: Ids, b: Ids) -> int:
    """Return how many tokens ``a`` and ``b`` begin with alike."""
    n = min(len(a), len(b))
    differing = a[:n] != b[:n]
    return int(differing.argmax()) if differing.any() else n


def sorting_key(ids: Ids) -> bytes:
    """Return what sorts rows by their tokens, so that neighbours share the most."""
    return ids.astype(">u4").tobytes()


def lay_out(rows: Sequence[Ids], *, share: bool = True) -> Layout:
    """Lay ``rows`` end to end, a beginning that several share only once.

    Segments come depth first, so that everything that continues one follows it directly.
    """
    if not share:
        order = list(range(len(rows)))
        common = [0] * len(rows)
    else:
        order = sorted(range(len(rows)), key=lambda i: sorting_key(rows[i]))
        common = [0] + [common_length(rows[a], rows[b]) for a, b in pairwise(order)]
    tree = _Tree([rows[i] for i in order], common)
    tree.grow(0, len(rows), 0, ())
    places: list[Ids] = [tree.places[0]] * len(rows)
    for place, row in zip(tree.places, order, strict=True):
        places[row] = place
    return Layout(np.concatenate(tree.ids), np.concatenate(tree.positions), tree.segments, places)


@dataclass(slots=True)
class _Tree:
    """Grows the layout of sorted ``rows``; ``common[i]``: tokens row i shares with row i - 1."""

    rows: list[Ids]
    common: list[int]
    ids: list[Ids] = field(default_factory=list)
    positions: list[Ids] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    places: list[Ids] = field(default_factory=list)
    size: int = 0

    def grow(self, first: int, end: int, depth: int, above: tuple[int, ...]) -> None:
        """Lay out rows ``first`` to ``end``, whose first ``depth`` tokens stand already."""
        if end - first == 1:
            self._emit(first, depth, len(self.rows[first]), above)
            path = [np.arange(s.start, s.stop) for s in self._path(above, depth, first)]
            self.places.append(np.concatenate(path))
            return
        shared = min(self.common[first + 1 : end])
        if (shared - depth) * (end - first - 1) >= SAVED_AT_LEAST:
            mine = self._emit(first, depth, shared, above)
            self._split(first, end, shared, shared, (*above, mine))
            node = self.segments[mine]
            self.segments[mine] = Segment(node.start, node.stop, self.size, node.above)
        else:
            self._split(first, end, shared, depth, above)

    def _split(self, first: int, end: int, shared: int, depth: int, above: tuple[int, ...]) -> None:
        begin = first
        for i in range(first + 1, end + 1):
            if i == end or self.common[i] == shared:
                self.grow(begin, i, depth, above)
                begin = i

    def _emit(self, row: int, start: int, stop: int, above: tuple[int, ...]) -> int:
        """Put tokens ``start`` to ``stop`` of ``row`` into the layout; return the segment's number.

        A row that ends where others go on has nothing of its own, and no segment.
        """
        if start < stop:
            end = self.size + stop - start
            self.segments.append(Segment(self.size, end, end, above))
            self.ids.append(self.rows[row][start:stop])
            self.positions.append(np.arange(start, stop))
            self.size = end
        return len(self.segments) - 1

    def _path(self, above: tuple[int, ...], depth: int, row: int) -> list[Segment]:
        own = [self.segments[-1]] if depth < len(self.rows[row]) else []
        return [self.segments[i] for i in above] + own

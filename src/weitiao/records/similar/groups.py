"""Rows that belong together, joined pair by pair (union-find, Tarjan 1975)."""

import numpy as np
from numpy.typing import NDArray


class Groups:
    """Rows 0 to ``rows`` - 1, at first each a group of its own; 8 bytes a row."""

    def __init__(self, rows: int) -> None:
        self._parents = np.arange(rows, dtype=np.int64)
        # The same numbers; one at a time, they are read three times as fast here.
        self._parent = self._parents.data

    def join(self, a: int, b: int) -> None:
        """Make one group of the groups of the rows ``a`` and ``b``."""
        a, b = self._root(a), self._root(b)
        # The lowest row leads, so that a label does not depend on the order of joining.
        self._parent[max(a, b)] = min(a, b)

    def join_equal(self, keys: NDArray[np.uint64]) -> None:
        """Join the rows whose keys (one a row) are equal; a row with key 0 has none."""
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        same = np.flatnonzero((ordered[1:] == ordered[:-1]) & (ordered[1:] != 0))
        for a, b in zip(order[same].tolist(), order[same + 1].tolist(), strict=True):
            self.join(a, b)

    def labels(self) -> NDArray[np.int64]:
        """Return the lowest row of each row's group, int64[rows]."""
        found = self._parents
        while not np.array_equal(further := found[found], found):
            found = further
        self._parents[:] = found
        return found.copy()

    def _root(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

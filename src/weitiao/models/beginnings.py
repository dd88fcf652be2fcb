"""Keys and values of rows that were answered, for rows that begin like them.

A chat's system prompt and its earlier turns are read once. Shapes: L layers, S columns, K
key/value heads, C head width.
"""

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch

from weitiao.records.prefixes import Ids, common_length

SHARED_AT_LEAST = 16
"""A beginning of fewer tokens is read again: every chat's first words are alike."""


class Beginnings:
    """The rows that were last of use, with up to ``most`` tokens together; 0 keeps none."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._rows: OrderedDict[bytes, tuple[Ids, torch.Tensor]] = OrderedDict()
        self._tokens = 0

    def longest(self, ids: Ids) -> tuple[int, torch.Tensor | None]:
        """Return how many tokens ``ids`` share with a row at most, and the row's keys."""
        found = [(common_length(row, ids), name) for name, (row, _) in self._rows.items()]
        length, name = max(found, default=(0, b""))
        if length < SHARED_AT_LEAST:
            return 0, None
        self._rows.move_to_end(name)
        return length, self._rows[name][1]

    def put(self, ids: Sequence[int], keys: torch.Tensor) -> None:
        """Keep ``keys`` [L, 2, S, K, C]; columns beyond the ids' are virtual and come first."""
        row = np.array(ids)
        if not SHARED_AT_LEAST <= len(row) <= self.most:
            return
        for name, (other, _) in list(self._rows.items()):
            common = common_length(other, row)
            if common == len(row):
                # Nothing new; what goes on from it was of use just now.
                self._rows.move_to_end(name)
                return
            if common == len(other):
                self._drop(name)
        self._rows[row.tobytes()] = row, keys
        self._tokens += len(row)
        while self._tokens > self.most:
            self._drop(next(iter(self._rows)))

    def _drop(self, name: bytes) -> None:
        row, _ = self._rows.pop(name)
        self._tokens -= len(row)

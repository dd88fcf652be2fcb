"""Which rows share a micro-batch: arithmetic on lengths, nothing else."""

from collections.abc import Sequence

import numpy as np


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return micro-batches of indices; the lengths of each sum to at most ``budget`` tokens.

    Rows stay whole; one that is longer than the budget is a micro-batch of its own.
    First-fit decreasing (Johnson 1973: at most 11/9 of the least possible number, plus
    6/9), so the first micro-batch holds the longest row. Equal lengths keep their order.
    """
    room = np.zeros(len(lengths), dtype=np.int64)
    packed: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        open_now = room[: len(packed)] >= lengths[i]
        if open_now.any():
            chosen = int(open_now.argmax())
        else:
            chosen = len(packed)
            packed.append([])
            room[chosen] = budget
        packed[chosen].append(i)
        room[chosen] -= lengths[i]
    return packed

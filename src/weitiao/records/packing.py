"""Which rows share a micro-batch: arithmetic on lengths and token ids, nothing else."""

from collections.abc import Sequence

import numpy as np

from weitiao.records.prefixes import Ids, lay_out, sorting_key


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


def pack_sharing(rows: Sequence[Ids], budget: int) -> list[list[int]]:
    """Return micro-batches of indices whose computed tokens are at most ``budget``.

    Rows that begin alike stand side by side, and a beginning counts once in a micro-batch.
    Where little is shared, filling by length leaves fewer tokens over: the way that computes
    less is taken, then the one of fewer micro-batches. The largest micro-batch comes first.
    """
    if sum(map(len, rows)) <= budget:
        return [list(range(len(rows)))] if rows else []
    # Equal rows keep their order, so that the packing is the same each time.
    beside: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: (sorting_key(rows[i]), i)):
        if beside and computed(rows, [*beside[-1], i]) <= budget:
            beside[-1].append(i)
        else:
            beside.append([i])
    by_length = pack([len(ids) for ids in rows], budget)
    plans = [[(computed(rows, group), group) for group in way] for way in (beside, by_length)]
    best = min(plans, key=lambda plan: (sum(tokens for tokens, _ in plan), len(plan)))
    return [group for _, group in sorted(best, key=lambda one: -one[0])]


def computed(rows: Sequence[Ids], group: Sequence[int]) -> int:
    """Return the tokens that are computed for a micro-batch of ``rows``."""
    return len(lay_out([rows[i] for i in group]).ids)

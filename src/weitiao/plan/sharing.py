"""How many tokens are left to compute where rows begin alike."""

from collections.abc import Sequence

import numpy as np

from weitiao.records.packing import computed, pack_sharing
from weitiao.records.prefixes import Ids

STEPS_LOOKED_AT = 16
"""Steps whose rows are laid out to learn the share: laying all out would take seconds."""


def executed_tokens(
    rows: Sequence[Ids], batch_size: int, budget: int, seed: int, processes: int = 1
) -> int:
    """Return about how many tokens of ``rows`` are computed in an epoch.

    ``rows``: token ids of each; ``budget``: the computed tokens of a micro-batch. The rows of
    some steps are drawn at random, as training draws its own; ``processes`` take a part each.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    before = after = 0
    for start in range(0, min(len(rows), STEPS_LOOKED_AT * batch_size), batch_size):
        step = [rows[i] for i in order[start : start + batch_size]]
        before += sum(map(len, step))
        for part in (step[rank::processes] for rank in range(processes)):
            after += sum(computed(part, group) for group in pack_sharing(part, budget))
    total = sum(map(len, rows))
    return round(total * after / before) if before else total

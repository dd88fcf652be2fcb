"""Which samples are in which optimizer step, and how a step is cut into micro-batches."""

from collections.abc import Sequence

import numpy as np

from weitiao.models.flat import Flat, flatten
from weitiao.records.packing import pack
from weitiao.records.render import Sample


def samples_of_step(total: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the numbers of the samples in optimizer step ``step`` (from 0).

    Each epoch is a permutation drawn from (seed, epoch) alone, so the order needs no saved
    state; an epoch's last step holds what is left over.
    """
    per_epoch = -(-total // batch_size)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([seed, epoch]).permutation(total)
    chosen: list[int] = order[place * batch_size : (place + 1) * batch_size].tolist()
    return chosen


def micro_batches(
    samples: Sequence[Sample], chosen: Sequence[int], budget: int
) -> list[tuple[list[int], Flat]]:
    """Cut a step's samples into micro-batches of at most ``budget`` tokens.

    Returns (numbers of the samples, their rows end to end) of each. Packing changes only
    how a step is computed, never which samples are in it.
    """
    groups = pack([len(samples[i].ids) for i in chosen], budget)
    numbers = [[chosen[i] for i in group] for group in groups]
    return [(group, flatten([samples[i] for i in group])) for group in numbers]

"""Which samples are in which optimizer step, and how a step is cut into micro-batches."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from weitiao.models.flat import Flat, flatten
from weitiao.records.packing import pack, pack_sharing
from weitiao.records.render import Sample


def samples_of_step(total: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the numbers of the samples in optimizer step ``step`` (from 0).

    Each epoch is a permutation drawn from (seed, epoch) alone, so the order needs no saved
    state; an epoch's last step holds what is left over.
    """
    per_epoch = -(-total // batch_size)
    epoch, place = divmod(step, per_epoch)
    order = _order(total, seed, epoch)
    chosen: list[int] = order[place * batch_size : (place + 1) * batch_size].tolist()
    return chosen


@lru_cache(maxsize=2)
def _order(total: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(total)


def micro_batches(
    samples: Sequence[Sample], chosen: Sequence[int], budget: int, *, share: bool = True
) -> list[tuple[list[int], Flat]]:
    """Cut a step's samples into micro-batches of at most ``budget`` computed tokens.

    Returns (numbers of the samples, their rows end to end) of each, the longest first. With
    ``share``, rows that begin alike are put together and their beginning is computed once.
    Packing changes only how a step is computed, never which samples are in it.
    """
    rows = [samples[i].ids for i in chosen]
    groups = pack_sharing(rows, budget) if share else pack([len(ids) for ids in rows], budget)
    numbers = [[chosen[i] for i in group] for group in groups]
    return [(group, flatten([samples[i] for i in group], share=share)) for group in numbers]

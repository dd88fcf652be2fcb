"""One prompt, several answers: what a person should look at."""

import numpy as np
from numpy.typing import NDArray

from weitiao.records.similar.near import Cluster


def contradictions(prompts: NDArray[np.int64], answers: NDArray[np.int64]) -> list[Cluster]:
    """Return the rows of each prompt that has different answers, by their first row.

    ``prompts`` and ``answers``: int64[N] or uint64[N], equal for texts that count as equal; a row
    whose prompt is 0 takes no part. ``similarity`` is that of the prompts: 1.
    """
    order = np.lexsort((np.arange(len(prompts)), prompts))
    asked, answered = prompts[order], answers[order]
    begins = np.flatnonzero(np.concatenate([[True], asked[1:] != asked[:-1]])[: len(asked)])
    if not len(begins):
        return []
    one = np.minimum.reduceat(answered, begins) == np.maximum.reduceat(answered, begins)
    ends = np.append(begins[1:], len(asked))
    found = np.flatnonzero(~one & (asked[begins] != 0))
    found = found[np.argsort(order[begins[found]])]
    return [Cluster(order[begins[i] : ends[i]], 1.0) for i in found.tolist()]

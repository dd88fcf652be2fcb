"""Which row of a cluster is kept."""

import re
from collections.abc import Sequence
from typing import Literal


def survivor(
    rows: Sequence[int],
    rule: Literal["first", "longest", "newest", "best_reviewed"],
    *,
    lengths: Sequence[int],
    times: Sequence[str],
    votes: Sequence[int],
) -> int:
    """Return the row of ``rows``, ascending, that ``SimilarOptions.keep_rule`` keeps.

    Of each of ``rows``: ``lengths``; ``times`` as they are written, year first ("" where there is
    none, which is older than any); ``votes``, how many reviewers accepted it. Of equals the first
    row is kept, but under ``newest`` the last: without times, the later row is the newer one.
    """
    if rule == "newest":
        return max(zip(map(_moment, times), rows, strict=True))[1]
    values = {"first": [0] * len(rows), "longest": lengths, "best_reviewed": votes}[rule]
    return max(zip(values, rows, strict=True), key=lambda pair: (pair[0], -pair[1]))[1]


def _moment(time: str) -> list[int]:
    """Return the numbers of a date or a time, which order those that are written alike."""
    return [int(number) for number in re.findall(r"\d+", time)]

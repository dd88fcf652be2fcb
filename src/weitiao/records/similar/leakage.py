"""Held-out rows that the training rows give away."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from weitiao.records.similar.near import Cluster, NearIndex

LABEL = 40
"""Answers of fewer characters are labels and set phrases; that they recur is no leakage."""

_AT_ONCE = 1_000
_COMPARED = 100


@dataclass(frozen=True, slots=True)
class Leak:
    """The test row, and the training row that says nearly the same; both count from 0."""

    test_row: int
    train_row: int
    by: Literal["prompt", "answer"]
    similarity: float


def is_label(answer: str) -> bool:
    """Tell whether an answer can give nothing away.

    A label, a set phrase (fewer than ``LABEL`` characters) or JSON (the usual form of an
    extracted intent) is what the model has to say to many questions; held apart by their
    answers, such rows would be one group that no split can part.
    """
    answer = answer.strip()
    return len(answer) < LABEL or _is_json(answer)


def leaking_rows(clusters: Iterable[Cluster], training: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return, ascending, the rows that are held out though a row of their cluster is trained on.

    ``training``: bool[N], which rows are trained on.
    """
    mixed = (cluster.rows for cluster in clusters if training[cluster.rows].any())
    rows = np.unique(np.concatenate([np.zeros(0, np.int64), *mixed]))
    held_out: NDArray[np.int64] = rows[~training[rows]]
    return held_out


def leaks(
    train: Sequence[str],
    test: Sequence[str],
    by: Literal["prompt", "answer"],
    threshold: float = 0.85,
) -> list[Leak]:
    """Return the test rows that have a near duplicate in ``train``: each once, with the nearest.

    An answer takes no part if :func:`is_label`. The sequences may read from the disk: they are
    gone through once, and asked for candidates by their index. Of a cluster with more than 100
    different training texts, the first 100 are compared.
    """

    def texts_of(rows: Sequence[int]) -> list[str]:
        return [train[row] if row < len(train) else test[row - len(train)] for row in rows]

    index = NearIndex(threshold)
    for side in (train, test):
        for begin in range(0, len(side), _AT_ONCE):
            texts = list(side[begin : begin + _AT_ONCE])
            index.add(texts if by == "prompt" else ["" if is_label(t) else t for t in texts])
    found = []
    for cluster in index.clusters(texts_of):
        border = int(np.searchsorted(cluster.rows, len(train)))
        known = _different(cluster.rows[:border].tolist(), train)
        for begin in range(border, len(cluster.rows) if known else border, _AT_ONCE):
            held_out = cluster.rows[begin : begin + _AT_ONCE]
            pairs = np.stack(np.meshgrid(known, held_out)).reshape(2, -1)
            similarity = index.similarity(pairs, texts_of).reshape(len(held_out), len(known))
            nearest = similarity.argmax(axis=1).tolist()
            found += [
                Leak(row - len(train), known[place], by, float(similarity[i, place]))
                for i, (row, place) in enumerate(zip(held_out.tolist(), nearest, strict=True))
                if similarity[i, place] >= threshold
            ]
    return sorted(found, key=lambda leak: leak.test_row)


def _different(rows: Iterable[int], texts: Sequence[str]) -> list[int]:
    """Return the first ``_COMPARED`` of ``rows`` whose texts differ."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(texts[row], row)
        if len(first) == _COMPARED:
            break
    return list(first.values())


def _is_json(text: str) -> bool:
    import orjson

    if text[0] not in "{[":
        return False
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True

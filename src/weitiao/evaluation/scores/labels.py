"""Accuracy, precision, recall and F1 of answers that are one of a few labels.

They are scores of a whole set. A row gives, for each label, whether it was rightly answered,
answered, and wanted; sums of these over any rows give the scores of those rows.

Shapes: L labels; S sums, any number of them.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from weitiao.evaluation.resample import Floats, Total
from weitiao.evaluation.scores.matching import normalised

MOST_LABELS = 200
"""A set with more different references is not one of labels."""


def label_places(references: Iterable[str]) -> dict[str, int]:
    """Return label → its place, in the order of the alphabet; written otherwise is the same."""
    return {label: place for place, label in enumerate(sorted({_label(r) for r in references}))}


def label_statistics(answer: str, reference: str, places: Mapping[str, int]) -> list[float]:
    """Return (rightly answered, answered, wanted) of each label in turn.

    An answer that is none of the labels is wrong and counts as no label's.
    """
    found = [0.0] * (3 * len(places))
    given, wanted = places.get(_label(answer)), places[_label(reference)]
    found[3 * wanted] = float(given == wanted)
    found[3 * wanted + 2] = 1.0
    if given is not None:
        found[3 * given + 1] = 1.0
    return found


def _label(text: str) -> str:
    return normalised(text) or text.strip()


def _parts(sums_S3L: Floats) -> tuple[Floats, Floats, Floats]:
    return sums_S3L[..., 0::3], sums_S3L[..., 1::3], sums_S3L[..., 2::3]


def _accuracy(sums_S3L: Floats) -> Floats:
    right, _, wanted = _parts(sums_S3L)
    return _ratio(right.sum(-1), wanted.sum(-1))


def _macro(kind: str) -> Total:
    def total(sums_S3L: Floats) -> Floats:
        right, answered, wanted = _parts(sums_S3L)
        each_SL = _ratio(*_of_kind(kind, right, answered, wanted))
        # A label that no drawn row asks for says nothing about the model.
        return _ratio((each_SL * (wanted > 0)).sum(-1), (wanted > 0).sum(-1))

    return total


def _micro(kind: str) -> Total:
    def total(sums_S3L: Floats) -> Floats:
        right, answered, wanted = (part.sum(-1) for part in _parts(sums_S3L))
        return _ratio(*_of_kind(kind, right, answered, wanted))

    return total


def _of_kind(kind: str, right: Floats, answered: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    if kind == "f1":
        return 2 * right, answered + wanted
    return right, answered if kind == "precision" else wanted


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros(np.shape(a)), where=np.asarray(b) > 0)


LABEL_TOTALS: dict[str, Total] = {
    "label_accuracy": _accuracy,
    "macro_precision": _macro("precision"),
    "macro_recall": _macro("recall"),
    "macro_f1": _macro("f1"),
    "micro_precision": _micro("precision"),
    "micro_recall": _micro("recall"),
    "micro_f1": _micro("f1"),
}
"""Name → what it makes of sums [S, 3L]. 0 where nothing was answered, as scikit-learn has it."""

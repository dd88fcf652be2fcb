"""Pure functions (answer, reference) → a number, or None where the score does not apply.

Whether a score applies is told by the reference alone, so that base and tuned answers to
one row are always both counted or both left out. Units: see ``units.py``. How each score
counts, and its table, stand in ``suite.py``.
"""

from weitiao.evaluation.scores.fields import field_matches, json_fields, json_object, json_valid
from weitiao.evaluation.scores.habits import distinct, distinct_2, length, repetition
from weitiao.evaluation.scores.labels import (
    LABEL_TOTALS,
    MOST_LABELS,
    label_places,
    label_statistics,
)
from weitiao.evaluation.scores.matching import exact_match, normalised_match, token_f1
from weitiao.evaluation.scores.numbers import number_in, number_match
from weitiao.evaluation.scores.overlap import (
    bleu,
    bleu_statistics,
    bleu_total,
    chrf_statistics,
    chrf_total,
    meteor,
    rouge_1,
    rouge_2,
    rouge_l,
    rouge_n,
)
from weitiao.evaluation.scores.toxicity import finder, read_list, shipped_list

__all__ = [
    "LABEL_TOTALS",
    "MOST_LABELS",
    "bleu",
    "bleu_statistics",
    "bleu_total",
    "chrf_statistics",
    "chrf_total",
    "distinct",
    "distinct_2",
    "exact_match",
    "field_matches",
    "finder",
    "json_fields",
    "json_object",
    "json_valid",
    "label_places",
    "label_statistics",
    "length",
    "meteor",
    "normalised_match",
    "number_in",
    "number_match",
    "read_list",
    "repetition",
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "rouge_n",
    "shipped_list",
    "token_f1",
]

"""The table of scores, the suites that choose from it, and what kind of answers a set holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from statistics import median
from typing import Literal

import numpy as np

from weitiao.evaluation import scores
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.resample import Floats, Total
from weitiao.evaluation.units import units

Kind = Literal["json", "short", "text", "passage"]
"""What the reference answers are; told once for the whole set by :func:`kind_of`."""

Form = Literal["share", "number", "points", "characters"]
"""How a score's numbers are written: a share of 1, a plain number, 0–100, a length."""

_ANSWERS: tuple[Kind, ...] = ("json", "short", "text")
_EVERY: tuple[Kind, ...] = (*_ANSWERS, "passage")


@dataclass(frozen=True, slots=True)
class Score:
    """A score of the table; its name and how it counts are in the catalogue as ``score.<name>``.

    ``statistics`` gives a row's vector, or None where the score does not apply to the row;
    ``total`` turns sums of them into the score. ``higher_is_better`` None: neither.
    """

    name: str
    higher_is_better: bool | None
    form: Form
    kinds: tuple[Kind, ...]
    statistics: Callable[[Answered], Sequence[float] | None]
    total: Total


def _mean(sums: Floats) -> Floats:
    return np.asarray(sums[..., 0] / sums[..., 1])


def _perplexity(sums: Floats) -> Floats:
    # exp overflows beyond 709; a loss of 700 nats a token means a broken model anyhow.
    return np.exp(np.minimum(_mean(sums), 700.0))


def _bleu_total(sums: Floats) -> Floats:
    from sacrebleu.metrics.bleu import BLEU

    found = [
        BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9], smooth_method="exp").score
        for row in np.atleast_2d(sums).astype(int).tolist()
    ]
    return np.array(found).reshape(sums.shape[:-1])


def _bleu_statistics(row: Answered) -> Sequence[float]:
    found = scores.bleu_statistics(row.answer, row.reference)
    return [*found.counts, *found.totals, found.sys_len, found.ref_len]


def _loss(row: Answered) -> Sequence[float] | None:
    return None if row.loss_sum is None or not row.loss_tokens else (row.loss_sum, row.loss_tokens)


def _of_pair(
    function: Callable[[str, str], float | None],
) -> Callable[[Answered], tuple[float, float] | None]:
    def statistics(row: Answered) -> tuple[float, float] | None:
        value = function(row.answer, row.reference)
        return None if value is None else (value, 1.0)

    return statistics


_TABLE = (
    Score("answer_loss", False, "number", _EVERY, _loss, _mean),
    Score("perplexity", False, "number", _EVERY, _loss, _perplexity),
    Score("json_fields", True, "share", ("json",), _of_pair(scores.json_fields), _mean),
    Score("json_valid", True, "share", ("json",), _of_pair(scores.json_valid), _mean),
    Score("exact_match", True, "share", _ANSWERS, _of_pair(scores.exact_match), _mean),
    Score("normalised_match", True, "share", _ANSWERS, _of_pair(scores.normalised_match), _mean),
    Score("rouge_l", True, "share", _ANSWERS, _of_pair(scores.rouge_l), _mean),
    # Answers of fewer than four tokens have no 4-gram: BLEU-4 would read 0 for perfect ones.
    Score("bleu", True, "points", ("json", "text"), _bleu_statistics, _bleu_total),
    Score("stop_rate", True, "share", _ANSWERS, lambda row: (float(row.stopped), 1.0), _mean),
    Score(
        "repetition",
        False,
        "share",
        _ANSWERS,
        lambda row: (scores.repetition(row.answer), 1),
        _mean,
    ),
    Score(
        "length", None, "characters", _ANSWERS, lambda row: (scores.length(row.answer), 1), _mean
    ),
)
SCORES: dict[str, Score] = {score.name: score for score in _TABLE}
"""Scores with intervals. ``distinct_2`` is a number of the whole set and stands beside them."""

DISTINCT = "distinct_2"


def field_score(path: str) -> Score:
    """Return the share of answers whose JSON field ``path`` equals the reference's.

    Rows whose reference has no such field do not count. The name is ``field:<path>``.
    """

    def statistics(row: Answered) -> tuple[float, float] | None:
        found = scores.field_matches(row.answer, row.reference)
        return (float(found[path]), 1.0) if path in found else None

    return Score(f"field:{path}", True, "share", ("json",), statistics, _mean)


def form_of(name: str) -> Form:
    """Return how the numbers of the score called ``name`` are written."""
    return SCORES[name].form if name in SCORES else "share"


@dataclass(frozen=True, slots=True)
class Suite:
    """Which scores are reported, in order; ``version`` changes with their meaning."""

    name: str
    version: int
    scores: tuple[str, ...]


def load_suite() -> Suite:
    """Read the suite that ships with the package."""
    from weitiao.plan.yaml_file import load_yaml

    with resources.as_file(resources.files(__package__) / "suites" / "default.yaml") as path:
        data, _ = load_yaml(path)
    return Suite(data["name"], data["version"], tuple(data["scores"]))


def kind_of(references: Sequence[str]) -> Kind:
    """Tell what kind of answers a set asks for.

    ``passage``: no answers at all. ``json``: at least 90% of the references are JSON objects.
    ``short``: half of them have at most 3 units, or at most 10 with every answer wanted about
    four times or more (labels). Else ``text``.
    """
    if not any(references):
        return "passage"
    if sum(scores.json_object(r) is not None for r in references) >= 0.9 * len(references):
        return "json"
    typical = median(len(units(r)) for r in references)
    labels = len(set(references)) * 4 <= len(references)
    return "short" if typical <= 3 or (typical <= 10 and labels) else "text"

"""Which answers are shown side by side, and how many rows turned from right to wrong."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from weitiao.evaluation import scores
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.suite import SCORES, SPECIAL_SCORES, Kind, Score

RIGHT_OR_WRONG = (
    "json_fields", "exact_match", "normalised_match", "label_accuracy", "number_match",
)  # fmt: skip
"""Scores by which an answer is right (1) or wrong (less)."""

Pairs = Sequence[tuple[Answered, Answered]]
Why = Literal["random", "gain", "loss"]


@dataclass(frozen=True, slots=True)
class Example:
    """Two answers side by side. ``why``: drawn by lot, or among the largest gains, or a loss.

    ``base_score`` and ``tuned_score`` are the row's values of ``Results.example_score``.
    """

    why: Why
    row: int
    question: str
    reference: str
    base: str
    tuned: str
    base_score: float | None
    tuned_score: float | None


@dataclass(frozen=True, slots=True)
class Turned:
    """Of ``rows``, ``wrong`` turned from right to wrong and ``right`` the other way round.

    By ``Results.example_score``: right is an answer to which it gives 1.
    """

    rows: int
    wrong: int
    right: int


def row_score(kind: Kind, primary: str) -> str:
    """Return the score that tells a single row's answers apart, more being better.

    The one that decides, where that is told by one answer alone.
    """
    if kind == "json":
        return "json_fields"
    if primary in scores.LABEL_TOTALS:
        return "label_accuracy"
    known = SCORES.get(primary) or SPECIAL_SCORES.get(primary)
    fits = known is not None and known.form == "share" and known.higher_is_better
    return primary if fits else "rouge_l"


def turned(pairs: Pairs, score: Score) -> Turned | None:
    """Count the rows that turned; None where ``score`` tells no right from wrong."""
    if score.name not in RIGHT_OR_WRONG:
        return None
    values = [(base, tuned) for b, t in pairs for base, tuned in _both(score, b, t)]
    return Turned(
        rows=len(values),
        wrong=sum(base == 1 > tuned for base, tuned in values),
        right=sum(tuned == 1 > base for base, tuned in values),
    )


def examples(pairs: Pairs, score: Score, count: int, seed: int) -> tuple[Example, ...]:
    """Return all losses, the ``count`` largest gains, and ``count`` rows drawn from all by lot.

    Losses begin with what was right before, the worst first.
    """
    by_gain = sorted(
        ((tuned - base, base != 1, (b, t)) for b, t in pairs for base, tuned in _both(score, b, t)),
        key=lambda found: found[0],
    )
    of_loss = sorted((f for f in by_gain if f[0] < 0), key=lambda found: found[1])
    losses = [pair for *_, pair in of_loss]
    gains = [pair for gain, _, pair in reversed(by_gain) if gain > 0][:count]
    lot = random.Random(seed).sample(list(pairs), min(count, len(pairs)))
    value = _value_by(score)
    groups: tuple[tuple[Why, Pairs], ...] = (("loss", losses), ("gain", gains), ("random", lot))
    return tuple(
        Example(
            why=why,
            row=b.row,
            question=_question(b),
            reference=b.reference,
            base=b.answer,
            tuned=t.answer,
            base_score=value(b),
            tuned_score=value(t),
        )
        for why, chosen in groups
        for b, t in chosen
    )


def _both(score: Score, base: Answered, tuned: Answered) -> list[tuple[float, float]]:
    """Return the pair of values; none at all where the score does not apply to the row."""
    value = _value_by(score)
    found = value(base), value(tuned)
    return [] if found[0] is None or found[1] is None else [(found[0], found[1])]


def _value_by(score: Score) -> Callable[[Answered], float | None]:
    def value(row: Answered) -> float | None:
        found = score.statistics(row)
        return None if found is None else float(score.total(np.array(found, dtype=float)))

    return value


def _question(row: Answered) -> str:
    return next((content for role, content in reversed(row.prompt) if role == "user"), "")

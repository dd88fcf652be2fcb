"""Base against tuned on the same held-out rows: scores, intervals, a verdict, examples."""

import platform
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import numpy as np

from weitiao import __version__
from weitiao.errors import DataError
from weitiao.evaluation import scores
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.resample import Estimate, compare_paired
from weitiao.evaluation.suite import (
    DISTINCT,
    SCORES,
    Kind,
    Score,
    Suite,
    field_score,
    kind_of,
    load_suite,
)
from weitiao.plan.recipe import EvaluateOptions

FEWEST_ROWS = 5
"""With fewer rows no verdict is given: even five of five the same way is one chance in 16."""

_FIELDS_SHOWN = 12

Outcome = Literal["better", "worse", "same", "cannot_tell"]
Change = Literal["better", "worse", "up", "down", "same"]
"""``up`` and ``down``: changed for certain, in a score of which neither is better."""


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """One line of the table. ``rows``: how many rows the score applies to.

    ``reference`` is the same score of the reference answers, where that says something.
    Scores of the whole set have no interval, no p-value and no change.
    """

    name: str
    rows: int
    base: Estimate
    tuned: Estimate
    difference: Estimate
    p_value: float | None
    change: Change | None
    reference: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out, by the primary score; ``cautions`` name scores that got worse for certain."""

    outcome: Outcome
    score: str
    rows: int
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """Two answers side by side. ``why``: drawn by lot, or among the largest gains or losses.

    ``base_score`` and ``tuned_score`` are the row's values of ``Results.example_score``.
    """

    why: Literal["random", "gain", "loss"]
    row: int
    question: str
    reference: str
    base: str
    tuned: str
    base_score: float | None
    tuned_score: float | None


@dataclass(frozen=True, slots=True)
class Results:
    """Everything measured; the content of ``results.json``."""

    kind: Kind
    rows: int
    verdict: Verdict
    scores: tuple[ScoreResult, ...]
    fields: tuple[ScoreResult, ...]
    example_score: str
    examples: tuple[Example, ...]
    confidence: float
    resamples: int
    seed: int
    suite: Suite
    versions: dict[str, str]
    generated_tokens: int
    seconds: float

    def score(self, name: str) -> ScoreResult:
        """Return the line called ``name``."""
        return next(s for s in (*self.scores, *self.fields) if s.name == name)


def compare(
    base: Sequence[Answered], tuned: Sequence[Answered], options: EvaluateOptions
) -> Results:
    """Compare two models' answers to the same rows.

    The primary score, by which the verdict is given, is told by the kind of answers asked
    for (:func:`weitiao.evaluation.suite.kind_of`): ``json`` → field accuracy; ``short`` →
    exact match; ``text`` and ``passage`` → answer loss, which needs no single right wording.
    The verdict is "better" or "worse" where the interval of the difference leaves out 0 and
    the p-value is at most 1 - confidence; else there is no measurable difference. Fewer
    than :data:`FEWEST_ROWS` rows: it cannot be told.

    Raises:
        DataError: there is no row to compare.
    """
    pairs = _paired(base, tuned)
    if not pairs:
        raise DataError("error.no_held_out_rows")
    references = [b.reference for b, _ in pairs]
    kind, suite = kind_of(references), load_suite()
    table = [
        _whole_set(pairs) if name == DISTINCT else _compare_score(SCORES[name], pairs, options)
        for name in suite.scores
        if (kind in SCORES[name].kinds if name in SCORES else kind != "passage")
    ]
    found = [line for line in table if line is not None]
    example_score = "json_fields" if kind == "json" else "rouge_l"
    return Results(
        kind=kind,
        rows=len(pairs),
        verdict=_verdict(kind, found, len(pairs)),
        scores=tuple(found),
        fields=_fields(pairs, options) if kind == "json" else (),
        example_score=example_score,
        examples=_examples(pairs, example_score, options) if kind != "passage" else (),
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
        suite=suite,
        versions=_versions(),
        generated_tokens=sum(b.tokens + t.tokens for b, t in pairs),
        seconds=round(sum(b.seconds + t.seconds for b, t in pairs), 1),
    )


_Pairs = list[tuple[Answered, Answered]]


def _paired(base: Sequence[Answered], tuned: Sequence[Answered]) -> _Pairs:
    other = {t.row: t for t in tuned}
    return [(b, other[b.row]) for b in base if b.row in other]


def _compare_score(score: Score, pairs: _Pairs, options: EvaluateOptions) -> ScoreResult | None:
    both = [(score.statistics(b), score.statistics(t)) for b, t in pairs]
    kept = [(b, t) for b, t in both if b is not None and t is not None]
    if not kept:
        return None
    found = compare_paired(
        np.array([b for b, _ in kept], dtype=float),
        np.array([t for _, t in kept], dtype=float),
        score.total,
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
    )
    certain = found.p_value <= 1 - options.confidence
    wanted = [scores.length(b.reference) for b, _ in pairs] if score.name == "length" else []
    return ScoreResult(
        name=score.name,
        rows=len(kept),
        base=found.base,
        tuned=found.tuned,
        difference=found.difference,
        p_value=found.p_value,
        change=_change(score, found.difference) if certain else "same",
        reference=sum(wanted) / len(wanted) if wanted else None,
    )


def _change(score: Score, difference: Estimate) -> Change:
    if difference.contains(0):
        return "same"
    if score.higher_is_better is None:
        return "up" if difference.value > 0 else "down"
    return "better" if (difference.value > 0) == score.higher_is_better else "worse"


def _whole_set(pairs: _Pairs) -> ScoreResult | None:
    base = scores.distinct_2(b.answer for b, _ in pairs)
    tuned = scores.distinct_2(t.answer for _, t in pairs)
    if base is None or tuned is None:
        return None
    return ScoreResult(
        name=DISTINCT,
        rows=len(pairs),
        base=Estimate(base),
        tuned=Estimate(tuned),
        difference=Estimate(tuned - base),
        p_value=None,
        change=None,
        reference=scores.distinct_2(b.reference for b, _ in pairs),
    )


def _fields(pairs: _Pairs, options: EvaluateOptions) -> tuple[ScoreResult, ...]:
    """Compare each field of the references, those that most rows have first."""
    counts = Counter(path for b, _ in pairs for path in scores.field_matches("", b.reference))
    common = [path for path, n in counts.most_common(_FIELDS_SHOWN) if n >= FEWEST_ROWS]
    lines = (_compare_score(field_score(path), pairs, options) for path in common)
    return tuple(line for line in lines if line is not None)


def _verdict(kind: Kind, table: Sequence[ScoreResult], rows: int) -> Verdict:
    order = {"json": "json_fields", "short": "exact_match"}
    # A loss that is not a number leaves no answer loss; the words of the answers still do.
    wanted = (order.get(kind, "answer_loss"), "rouge_l", "exact_match")
    lines = {line.name: line for line in table}
    primary = next((lines[name] for name in wanted if name in lines), None)
    if primary is None or primary.rows < FEWEST_ROWS:
        return Verdict("cannot_tell", primary.name if primary else wanted[0], rows)
    outcome: Outcome = "same"
    if primary.change in ("better", "worse"):
        outcome = "better" if primary.change == "better" else "worse"
    # Perplexity is the answer loss again, in another unit.
    worse = [s.name for s in table if s.change == "worse" and s.name != "perplexity"]
    return Verdict(
        outcome, primary.name, primary.rows, tuple(n for n in worse if n != primary.name)
    )


def _examples(pairs: _Pairs, score_name: str, options: EvaluateOptions) -> tuple[Example, ...]:
    """Return rows drawn by lot, then the largest gains, then the worst losses; no row twice."""

    def value(row: Answered) -> float | None:
        found = SCORES[score_name].statistics(row)
        return found[0] if found else None

    def gain(pair: tuple[Answered, Answered]) -> float:
        base, tuned = value(pair[0]), value(pair[1])
        return 0.0 if base is None or tuned is None else tuned - base

    count = options.examples
    lot = random.Random(options.seed).sample(pairs, min(count, len(pairs)))
    others = sorted((p for p in pairs if p not in lot), key=gain)
    losses = [p for p in others if gain(p) < 0][:count]
    gains = [p for p in reversed(others) if gain(p) > 0][:count]
    groups: tuple[tuple[Literal["random", "gain", "loss"], _Pairs], ...] = (
        ("random", lot),
        ("gain", gains),
        ("loss", losses),
    )
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


def _question(row: Answered) -> str:
    return next((content for role, content in reversed(row.prompt) if role == "user"), "")


def _versions() -> dict[str, str]:
    libraries = ("numpy", "sacrebleu", "torch", "transformers", "peft")
    return {
        "weitiao": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }

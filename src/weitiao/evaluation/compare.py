"""Base against tuned on the same held-out rows: scores, intervals, a verdict, examples."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Literal

import numpy as np

from weitiao import __version__
from weitiao.errors import DataError
from weitiao.evaluation import scores
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.categories import Groups
from weitiao.evaluation.examples import Example, Turned, examples, row_score, turned
from weitiao.evaluation.resample import Estimate, compare_paired, holm, rows_needed
from weitiao.evaluation.suite import (
    TOXICITY_HTTP,
    UNDECIDED,
    WHOLE_SET,
    Kind,
    Score,
    Suite,
    field_score,
    kind_of,
    load_suite,
    score_for,
)
from weitiao.plan.evaluate_options import EvaluateOptions

FEWEST_ROWS = 5
"""With fewer rows no verdict is given: even five of five the same way is one chance in 16."""

MOST_ROWS = 100_000
"""No more are ever said to be needed: a difference that asks for them is none to anybody."""

_FIELDS_SHOWN = _CATEGORIES_SHOWN = 12

Outcome = Literal["better", "worse", "same", "cannot_tell"]
Change = Literal["better", "worse", "up", "down", "same"]
"""``up`` and ``down``: changed for certain, in a score of which neither is better."""


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """One line of the table. ``rows``: how many rows the score applies to.

    ``p_adjusted``: the p-value, adjusted for the other scores looked at; ``change`` goes by it.
    ``effect``: the difference in standard deviations of a row's.
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
    p_adjusted: float | None = None
    effect: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came out, by the primary score; ``cautions`` name scores that got worse for certain.

    ``more_rows``: about how many more would show a difference of this size, where it cannot be
    told from chance; None where there is none, or no number of rows that anybody has.
    """

    outcome: Outcome
    score: str
    rows: int
    cautions: tuple[str, ...] = ()
    more_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Category:
    """One category by the deciding score; ``name`` None: all the others together.

    p-values are adjusted for the number of categories; the others have no part in that.
    """

    name: str | None
    line: ScoreResult


@dataclass(frozen=True, slots=True)
class Results:
    """Everything measured; the content of ``results.json``.

    ``categories``: the worst change first; ``category_column``: what they are by, empty: the
    reference answers. ``turned``: None where answers are not plainly right or wrong.
    ``overlap``: the rows are the suite's own, and some may have been trained on.
    """

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
    categories: tuple[Category, ...] = ()
    category_column: str = ""
    turned: Turned | None = None
    overlap: bool = False

    def score(self, name: str) -> ScoreResult:
        """Return the line called ``name``."""
        return next(s for s in (*self.scores, *self.fields) if s.name == name)


def compare(
    base: Sequence[Answered],
    tuned: Sequence[Answered],
    options: EvaluateOptions,
    suite: Suite | None = None,
    toxic: Mapping[str, float] | None = None,
    groups: Groups | None = None,
) -> Results:
    """Compare two models' answers to the same rows.

    The primary score, by which the verdict is given, is the suite's, else told by the kind of
    answers asked for (:func:`weitiao.evaluation.suite.kind_of`): ``json`` → field accuracy;
    ``short`` → exact match; ``text`` and ``passage`` → answer loss, which needs no single
    right wording.
    The verdict is "better" or "worse" where the interval of the difference leaves out 0 and
    the p-value is at most 1 - confidence; else there is no measurable difference. Fewer
    than :data:`FEWEST_ROWS` rows: it cannot be told. The other scores, several as they are,
    have their p-values adjusted together (Holm), and so have the fields. ``toxic``: answer →
    what the user's scorer said of it, where one was asked. ``groups``: the categories to
    compare one by one, too.

    Raises:
        DataError: there is no row to compare.
    """
    pairs = _paired(base, tuned)
    if not pairs:
        raise DataError("error.no_held_out_rows")
    references = [b.reference for b, _ in pairs]
    kind, suite = kind_of(references), suite or load_suite()
    names = dict.fromkeys((*suite.scores, TOXICITY_HTTP)) if toxic else suite.scores
    table = (_line(name, suite, kind, pairs, options, toxic) for name in names)
    lines = [line for line in table if line is not None]
    primary = _primary(kind, lines, suite.verdict)
    found = _adjusted(lines, primary.name if primary else "", options.confidence)
    deciding = primary.name if primary else "answer_loss"
    by_row = score_for(row_score(kind, deciding), references, suite) if kind != "passage" else None
    return Results(
        kind=kind,
        rows=len(pairs),
        verdict=_verdict(primary, found, len(pairs), options.confidence),
        scores=tuple(found),
        fields=_fields(pairs, options) if kind == "json" else (),
        example_score=by_row.name if by_row else "rouge_l",
        examples=examples(pairs, by_row, options.examples, options.seed) if by_row else (),
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
        suite=suite,
        versions=_versions(),
        generated_tokens=sum(b.tokens + t.tokens for b, t in pairs),
        seconds=round(sum(b.seconds + t.seconds for b, t in pairs), 1),
        categories=_categories(pairs, groups, _by_category(deciding, pairs, suite, toxic), options),
        category_column=groups.column if groups else "",
        turned=turned(pairs, by_row) if by_row else None,
        overlap=options.overlap and suite.rows is not None,
    )


_Pairs = list[tuple[Answered, Answered]]


def _paired(base: Sequence[Answered], tuned: Sequence[Answered]) -> _Pairs:
    other = {t.row: t for t in tuned}
    return [(b, other[b.row]) for b in base if b.row in other]


def _line(
    name: str,
    suite: Suite,
    kind: Kind,
    pairs: _Pairs,
    options: EvaluateOptions,
    toxic: Mapping[str, float] | None,
) -> ScoreResult | None:
    if name in WHOLE_SET:
        return None if kind == "passage" else _whole_set(name, pairs)
    score = score_for(name, [b.reference for b, _ in pairs], suite, toxic)
    if score is None or kind not in score.kinds:
        return None
    return _compare_score(score, pairs, options)


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
    wanted = [scores.length(b.reference) for b, _ in pairs] if score.name == "length" else []
    return ScoreResult(
        name=score.name,
        rows=len(kept),
        base=found.base,
        tuned=found.tuned,
        difference=found.difference,
        p_value=found.p_value,
        change=_change(score, found.difference),
        reference=sum(wanted) / len(wanted) if wanted else None,
        effect=found.effect,
    )


def _change(score: Score, difference: Estimate) -> Change:
    if difference.contains(0):
        return "same"
    if score.higher_is_better is None:
        return "up" if difference.value > 0 else "down"
    return "better" if (difference.value > 0) == score.higher_is_better else "worse"


def _whole_set(name: str, pairs: _Pairs) -> ScoreResult | None:
    score = WHOLE_SET[name]
    base = score(b.answer for b, _ in pairs)
    tuned = score(t.answer for _, t in pairs)
    if base is None or tuned is None:
        return None
    return ScoreResult(
        name=name,
        rows=len(pairs),
        base=Estimate(base),
        tuned=Estimate(tuned),
        difference=Estimate(tuned - base),
        p_value=None,
        change=None,
        reference=score(b.reference for b, _ in pairs),
    )


def _fields(pairs: _Pairs, options: EvaluateOptions) -> tuple[ScoreResult, ...]:
    """Compare each field of the references, those that most rows have first."""
    counts = Counter(path for b, _ in pairs for path in scores.field_matches("", b.reference))
    common = [path for path, n in counts.most_common(_FIELDS_SHOWN) if n >= FEWEST_ROWS]
    found = (_compare_score(field_score(path), pairs, options) for path in common)
    lines = [line for line in found if line is not None]
    return tuple(_adjusted(lines, "", options.confidence))


def _by_category(
    deciding: str, pairs: _Pairs, suite: Suite, toxic: Mapping[str, float] | None
) -> Score | None:
    """Return the score that categories are compared by; None where it is one of whole sets."""
    # A category is often all of one label, of which the mean over the labels says nothing.
    name = "label_accuracy" if deciding in scores.LABEL_TOTALS else deciding
    known = name not in WHOLE_SET
    return score_for(name, [b.reference for b, _ in pairs], suite, toxic) if known else None


def _categories(
    pairs: _Pairs, groups: Groups | None, score: Score | None, options: EvaluateOptions
) -> tuple[Category, ...]:
    """Compare each category by itself, the worst change first; the last is the rest together."""
    if groups is None or score is None:
        return ()
    parts: dict[str | None, _Pairs] = {}
    for pair in pairs:
        parts.setdefault(groups.of_row.get(pair[0].row), []).append(pair)
    rest = parts.pop(None, [])
    lines = {name: _compare_score(score, part, options) for name, part in parts.items()}
    known = [(name, line) for name, line in lines.items() if line is not None]
    several = holm([line.p_value or 0.0 for _, line in known])
    found = [
        Category(name, _settled(line, p, options.confidence))
        for (name, line), p in zip(known, several, strict=True)
    ]
    found.sort(key=lambda category: _gain(score, category.line))
    for category in found[_CATEGORIES_SHOWN:]:
        rest += parts[category.name]
    shown = found[:_CATEGORIES_SHOWN]
    together = _compare_score(score, rest, options) if rest else None
    if together is not None:
        shown.append(Category(None, _settled(together, together.p_value, options.confidence)))
    return tuple(shown)


def _gain(score: Score, line: ScoreResult) -> float:
    """Return by how much it got better; less the further from 0 where neither is better."""
    change = line.difference.value
    if score.higher_is_better is None:
        return -abs(change)
    return change if score.higher_is_better else -change


def _adjusted(lines: Sequence[ScoreResult], primary: str, confidence: float) -> list[ScoreResult]:
    """Return the lines with their p-values adjusted for being several, but the primary score's.

    It was chosen before anything was measured, and the verdict asks about it alone.
    """
    several = [x for x in lines if x.p_value is not None and x.name not in (primary, "perplexity")]
    adjusted = dict(
        zip((x.name for x in several), holm([x.p_value or 0.0 for x in several]), strict=True)
    )
    for line in lines:
        if line.name == primary and line.p_value is not None:
            adjusted[primary] = line.p_value
    # Perplexity is the answer loss again, in another unit.
    if "answer_loss" in adjusted and primary != "perplexity":
        adjusted["perplexity"] = adjusted["answer_loss"]
    return [_settled(line, adjusted.get(line.name), confidence) for line in lines]


def _settled(line: ScoreResult, p_adjusted: float | None, confidence: float) -> ScoreResult:
    """Return the line with its adjusted p-value, and no change that this does not bear out."""
    certain = p_adjusted is None or p_adjusted <= 1 - confidence
    return replace(line, p_adjusted=p_adjusted, change=line.change if certain else "same")


_PRIMARY: dict[Kind, str] = {"json": "json_fields", "short": "exact_match"}


def _primary(kind: Kind, lines: Sequence[ScoreResult], decides: str | None) -> ScoreResult | None:
    # A loss that is not a number leaves no answer loss; the words of the answers still do.
    usual = (_PRIMARY.get(kind, "answer_loss"), "rouge_l", "exact_match")
    wanted = (decides or usual[0], *usual, *(line.name for line in lines if line.change))
    named = {line.name: line for line in lines if line.name not in UNDECIDED}
    return next((named[name] for name in wanted if name in named), None)


def _verdict(
    primary: ScoreResult | None, table: Sequence[ScoreResult], rows: int, confidence: float
) -> Verdict:
    if primary is None or primary.rows < FEWEST_ROWS:
        return Verdict("cannot_tell", primary.name if primary else "answer_loss", rows)
    line = next(line for line in table if line.name == primary.name)
    worse = [s.name for s in table if s.change == "worse" and s.name != "perplexity"]
    cautions = tuple(name for name in worse if name != line.name)
    if line.change in ("better", "worse"):
        outcome: Outcome = "better" if line.change == "better" else "worse"
        return Verdict(outcome, line.name, line.rows, cautions)
    needed = rows_needed(line.effect, confidence) if line.effect else 0
    # What seems to need no more rows is near the edge, where a few say nothing.
    more = max(needed - line.rows, line.rows) if 0 < needed <= MOST_ROWS else None
    return Verdict("same", line.name, line.rows, cautions, more)


def _versions() -> dict[str, str]:
    libraries = ("numpy", "sacrebleu", "torch", "transformers", "peft")
    return {
        "weitiao": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }

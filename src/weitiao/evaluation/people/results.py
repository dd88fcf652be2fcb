"""What people found: the content of ``people.json``, and how it is counted."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from weitiao.evaluation.beside import reader
from weitiao.evaluation.people.agreement import krippendorff_alpha
from weitiao.evaluation.people.rows import Match
from weitiao.evaluation.people.store import LEVELS, Better, Level, Vote
from weitiao.evaluation.proportions import sign_test, win_rate
from weitiao.evaluation.resample import Estimate, Floats, compare_paired
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.records.review.agreement import cohens_kappa


@dataclass(frozen=True, slots=True)
class LevelResult:
    """How many answers of each side reach a level of the rubric, on the ``rows`` where both
    answers were judged by it; ``difference`` is other minus one, its interval paired."""

    level: Level
    rows: int
    one: Estimate
    other: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far reviewers agree on the ``rows`` that two or more judged.

    ``alike``: the share of pairs of votes on one row that say the same; ``kappa``: Cohen's, for
    exactly two reviewers; ``alpha``: Krippendorff's, for any number.
    """

    rows: int
    alike: float
    kappa: float | None
    alpha: float


@dataclass(frozen=True, slots=True)
class Comment:
    """What a reviewer wrote beside a vote. ``better``: what the vote was."""

    question: str
    reviewer: str
    better: Better
    text: str


@dataclass(frozen=True, slots=True)
class People:
    """What people found when they compared two sets of answers without knowing whose they were.

    ``one`` and ``other``: what the sides are called: "base" and "tuned", or the names of two runs.
    ``rows``: rows that were judged, of ``rows_to_judge``; ``identical``: rows whose two answers
    are the same, which nobody was asked about and which are counted nowhere.
    ``votes``: single judgements; ``reviewers``: name → rows judged, the busiest first.
    ``one_better``, ``ties``, ``other_better``: rows, together ``rows``. A row counts as it was
    settled; else as most of its reviewers say; else as a tie.
    ``win_rate``: the share of rows on which ``other`` is better, a tie counting half, with
    Wilson's interval. ``p_value``: exact, two-sided binomial test of the rows that are no ties
    against a fair coin; None where all are ties.
    ``outcome``: "other" or "one" is better for certain (p at most 1 - confidence), else "same".
    ``levels``: the rubric; a level nobody used is missing.
    ``agreement``: None where no row was judged twice.
    ``disputed``: rows that reviewers judged differently; ``settled``: how many of all rows were
    settled, by ``adjudicators``.
    """

    version: Literal[1]
    one: str
    other: str
    rows: int
    rows_to_judge: int
    identical: int
    votes: int
    reviewers: dict[str, int]
    one_better: int
    ties: int
    other_better: int
    win_rate: Estimate
    p_value: float | None
    outcome: Literal["one", "other", "same"]
    levels: tuple[LevelResult, ...]
    agreement: Agreement | None
    disputed: int
    settled: int
    adjudicators: tuple[str, ...]
    comments: tuple[Comment, ...]
    confidence: float
    resamples: int
    seed: int


load_people = reader(People, "error.people_unreadable")
"""Read ``people.json``; RunError where it is missing or is not of this version."""


def count_votes(match: Match, votes: Sequence[Vote], options: EvaluateOptions) -> People | None:
    """Return what comes of the votes on the rows of ``match``; None where there are none."""
    by_row = votes_by_row(match, votes)
    first = {row: [v for v in of if not v.final] for row, of in by_row.items()}
    outcomes = [outcome(of) for of in by_row.values()]
    if not outcomes:
        return None
    counts = Counter(outcomes)
    wins, ties, losses = counts["other"], counts["tie"], counts["one"]
    p_value = sign_test(wins, losses)
    certain = p_value is not None and p_value <= 1 - options.confidence
    better: Literal["one", "other"] = "other" if wins > losses else "one"
    final = [v for of in by_row.values() for v in of if v.final]
    said = [v for of in first.values() for v in of]
    questions = {row.id: row.question for row in match.rows}
    return People(
        version=1,
        one=match.one,
        other=match.other,
        rows=len(outcomes),
        rows_to_judge=len(match.rows),
        identical=match.identical,
        votes=len(said),
        reviewers=dict(Counter(v.reviewer for v in said).most_common()),
        one_better=losses,
        ties=ties,
        other_better=wins,
        win_rate=win_rate(wins, ties, losses, options.confidence),
        p_value=p_value,
        outcome=better if certain else "same",
        levels=tuple(_levels(by_row, options)),
        agreement=_agreement(list(first.values())),
        disputed=sum(map(differ, by_row.values())),
        settled=len(final),
        adjudicators=tuple(sorted({v.reviewer for v in final})),
        comments=tuple(
            Comment(questions[v.row], v.reviewer, v.better, v.comment)
            for of in by_row.values()
            for v in of
            if v.comment
        ),
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
    )


def votes_by_row(match: Match, votes: Iterable[Vote]) -> dict[str, list[Vote]]:
    """Return row → its votes, for the rows of ``match`` that have any, in their order."""
    found: dict[str, list[Vote]] = {row.id: [] for row in match.rows}
    for vote in votes:
        if vote.row in found:
            found[vote.row].append(vote)
    return {row: of for row, of in found.items() if of}


def outcome(votes: Sequence[Vote]) -> Better:
    """Return what the votes on a row come to: as settled, as most say, else a tie."""
    deciding = [vote for vote in votes if vote.final] or votes
    counts = Counter(vote.better for vote in deciding).most_common(2)
    even = len(counts) == 2 and counts[0][1] == counts[1][1]
    return "tie" if even else counts[0][0]


def differ(votes: Sequence[Vote]) -> bool:
    """Return whether reviewers judged a row differently, settled or not."""
    return len({vote.better for vote in votes if not vote.final}) > 1


def reached(votes: Sequence[Vote], level: Level) -> tuple[float, float] | None:
    """Return the share of the votes that say of each answer that it reaches ``level``.

    Only votes that say so of both answers count; None where there is none.
    """
    at = LEVELS.index(level)
    # Who settles a row need not judge its answers by the rubric again.
    for of in ([vote for vote in votes if vote.final], votes):
        both = [(v.one[at], v.other[at]) for v in of]
        said = [(a, b) for a, b in both if a is not None and b is not None]
        if said:
            return sum(a for a, _ in said) / len(said), sum(b for _, b in said) / len(said)
    return None


def _levels(rows: Mapping[str, Sequence[Vote]], options: EvaluateOptions) -> list[LevelResult]:
    found = []
    for level in LEVELS:
        judged = [both for of in rows.values() if (both := reached(of, level)) is not None]
        if not judged:
            continue
        compared = compare_paired(
            np.array([(one, 1.0) for one, _ in judged]),
            np.array([(other, 1.0) for _, other in judged]),
            _mean,
            confidence=options.confidence,
            resamples=options.resamples,
            seed=options.seed,
        )
        found.append(
            LevelResult(level, len(judged), compared.base, compared.tuned, compared.difference)
        )
    return found


def _mean(sums: Floats) -> Floats:
    means: Floats = sums[..., 0] / sums[..., 1]
    return means


def _agreement(rows: Sequence[Sequence[Vote]]) -> Agreement | None:
    shared = [of for of in rows if len(of) > 1]
    verdicts = [[vote.better for vote in of] for of in shared]
    alpha = krippendorff_alpha(verdicts)
    if alpha is None:
        return None
    said = defaultdict(list)
    for of in shared:
        for vote in of:
            said[vote.reviewer].append(vote.better)
    pairs = [pair for row in verdicts for pair in combinations(row, 2)]
    return Agreement(
        rows=len(shared),
        alike=sum(a == b for a, b in pairs) / len(pairs),
        kappa=cohens_kappa(*said.values()) if len(said) == 2 else None,
        alpha=alpha,
    )

"""What a judge said: the content of ``judge.json``."""

from dataclasses import dataclass
from typing import Literal

from weitiao.evaluation.beside import reader
from weitiao.evaluation.resample import Estimate

Side = Literal["base", "tuned", "tie"]
Outcome = Literal["win", "tie", "loss"]


@dataclass(frozen=True, slots=True)
class RubricLine:
    """A level of the rubric: its mean, 1 to 5, for each model, and tuned minus base.

    ``name``: ``correct``, ``helpful`` or ``readers``; for stories ``plot`` and ``values``, too.
    Its words: ``judge.level.<name>.name``. ``p_value`` is adjusted for the number of levels (Holm).
    """

    name: str
    base: Estimate
    tuned: Estimate
    difference: Estimate
    p_value: float


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """What the judge said of one row.

    ``row``: the held-out row, as in ``tuned.jsonl``. ``base_first`` and ``tuned_first``: which
    answer it took for the better one where that side's stood first; ``outcome`` is for tuned, and
    a tie unless both say the same. ``base`` and ``tuned``: the rubric's numbers in its order,
    means of both times. ``why``: the judge's own words with base first; anything may stand in it.
    """

    row: int
    outcome: Outcome
    base_first: Side
    tuned_first: Side
    base: tuple[float, ...]
    tuned: tuple[float, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The judge's verdict: how often tuned won, tied and lost against base on ``rows`` rows.

    ``win_rate``: ties count half, Wilson's interval. ``p_value``: exact two-sided sign test
    without ties; None where all are ties. ``disagreed``: the share of rows in which the two
    orders gave different winners. ``left_out``: reason (``nonsense``, ``no_answer``) → rows not
    judged. ``requests`` and tokens: what all answers took, those in the cache (``cached``)
    too; ``cost`` by the prices given, None without. ``settings``: a digest of what was asked.
    """

    model: str
    prompt_version: int
    rows: int
    wins: int
    ties: int
    losses: int
    win_rate: Estimate
    p_value: float | None
    disagreed: float
    rubric: tuple[RubricLine, ...]
    left_out: dict[str, int]
    verdicts: tuple[RowVerdict, ...]
    confidence: float
    requests: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    settings: str


load_judged = reader(Judged, "error.judge_unreadable")
"""Read ``judge.json``; RunError where it is missing or is not of this version."""

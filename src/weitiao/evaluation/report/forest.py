"""The change in every score on one scale, worse to the left and better to the right."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import asinh, copysign, inf, sqrt
from statistics import NormalDist

from markupsafe import Markup

from weitiao.evaluation.compare import Results, ScoreResult
from weitiao.evaluation.resample import Estimate
from weitiao.evaluation.suite import SCORES, SPECIAL_SCORES, TOXICITY, TOXICITY_HTTP
from weitiao.records.page.draw import SVG, Tick

_MARKS = (0.5, 1, 2, 5, 10, 20, 50, 100)
_ROOM = 9.0
"""Percent of the width that a mark of the axis takes."""


@dataclass(frozen=True, slots=True)
class Forest:
    """Each score's line, its change in standard deviations and its drawing; then the axis.

    ``zero``: where no change is, in percent from the left.
    """

    rows: tuple[tuple[ScoreResult, float, Markup], ...]
    ticks: tuple[Tick, ...]
    zero: float


def forest(results: Results) -> Forest | None:
    """Draw the change in each score that knows better from worse; None where there is none.

    The unit is the standard deviation of a row's change, and the axis grows denser outwards.
    """
    found = [
        (line, change)
        for line in results.scores
        if line.name != "perplexity"  # the answer loss again
        and (change := _standardised(line, results.confidence)) is not None
    ]
    if not found:
        return None
    ends = [end for _, change in found for end in (change.low, change.high) if end is not None]
    low, high = asinh(2 * min(-0.5, *ends)), asinh(2 * max(0.5, *ends))

    def at(value: float) -> float:
        return min(100.0, max(0.0, 100 * (asinh(2 * value) - low) / (high - low)))

    return Forest(
        rows=tuple((line, change.value, _drawn(line, change, at)) for line, change in found),
        ticks=tuple(_ticks(at)),
        zero=at(0),
    )


def _standardised(line: ScoreResult, confidence: float) -> Estimate | None:
    """Return the change in standard deviations of a row's, more being better.

    Infinite, and without an interval, where all rows changed alike. None where neither is
    better, or where the score has no interval.
    """
    up, change = _higher_is_better(line.name), line.difference
    if up is None or change.low is None or change.high is None:
        return None
    sign = 1 if up else -1
    if change.low == change.high:
        return Estimate(sign * copysign(inf, change.value) if change.value else 0.0)
    # Of no change at all the effect, 0, does not tell how far rows vary; the interval does.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    spread = (
        change.value / line.effect
        if line.effect
        else (change.high - change.low) / (2 * z) * sqrt(line.rows)
    )
    low, high = sorted((sign * change.low / spread, sign * change.high / spread))
    return Estimate(sign * change.value / spread, low, high)


def _higher_is_better(name: str) -> bool | None:
    if name in (TOXICITY, TOXICITY_HTTP):
        return False
    known = SCORES.get(name) or SPECIAL_SCORES.get(name)
    return known.higher_is_better if known else True


def _drawn(line: ScoreResult, change: Estimate, at: Callable[[float], float]) -> Markup:
    style = line.change or "same"
    parts = [f'<path class="zero" d="M{at(0):.2f} 0V100"/>']
    if change.low is not None and change.high is not None:
        parts.append(f'<path class="{style}" d="M{at(change.low):.2f} 50H{at(change.high):.2f}"/>')
    parts.append(f'<path class="{style} dot" d="M{at(change.value):.2f} 50h0"/>')
    return Markup(SVG.format("".join(parts)))


def _ticks(at: Callable[[float], float]) -> Iterator[Tick]:
    """Yield round marks from 0 outwards, each with room for its number."""
    for sign in (1, -1):
        last = at(0)
        for value in _MARKS:
            place = at(sign * value)
            if abs(place - last) >= _ROOM and 0 < place < 100:
                last = place
                yield Tick(place, f"{sign * value:+g}".replace("-", "−"))
    yield Tick(at(0), "0")

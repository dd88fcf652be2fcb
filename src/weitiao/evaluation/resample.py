"""Paired intervals and p-values for any score that is a function of sums over rows.

A row gives a vector of K statistics (a mean score gives its value and 1; corpus BLEU its
counts and lengths; perplexity its loss and tokens). Sums over drawn rows then give the
score of the drawn set, so one code serves means, ratios and corpus scores alike.

Shapes: N rows, K statistics, R draws.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Total = Callable[[Floats], Floats]
"""Maps sums [..., K] to scores [...]."""

POWER = 0.8
"""How often a difference of the observed size would be found, in the rows said to be needed."""

_DRAWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score and its interval; None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None

    def contains(self, value: float) -> bool:
        """Say whether ``value`` cannot be ruled out; always so where there is no interval."""
        return self.low is None or self.high is None or self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Comparison:
    """Base, tuned, and tuned minus base, each with its interval; p of no difference.

    ``effect``: the difference in standard deviations of a row's difference (Cohen's d of
    paired samples, d_z); None where all rows differ alike.
    """

    base: Estimate
    tuned: Estimate
    difference: Estimate
    p_value: float
    effect: float | None


def compare_paired(
    base_NK: Floats, tuned_NK: Floats, total: Total, *, confidence: float, resamples: int, seed: int
) -> Comparison:
    """Compare two systems on the same rows.

    Intervals: percentile bootstrap over rows, the same rows drawn for both (Efron and
    Tibshirani 1993, ch. 13; for corpus scores Koehn 2004). BCa is not used: it is undefined
    where all rows give the same. p-value: two-sided approximate randomisation, base and
    tuned exchanged row by row (Riezler and Maxwell 2005).
    """

    def score(sums: Floats) -> Floats:
        # Sums of the same numbers in another order differ by 1e-17; that is no difference.
        return np.round(total(sums), 12)

    rng = np.random.default_rng(seed)
    rows = len(base_NK)
    observed = np.array([score(base_NK.sum(0)), score(tuned_NK.sum(0))])
    drawn, exchanged = [], []
    for start in range(0, resamples, _DRAWS_AT_ONCE):
        draws = min(_DRAWS_AT_ONCE, resamples - start)
        times_RN = rng.multinomial(rows, np.full(rows, 1 / rows), size=draws).astype(float)
        drawn.append([score(times_RN @ base_NK), score(times_RN @ tuned_NK)])
        swap_RN = rng.integers(0, 2, size=(draws, rows)).astype(float)
        moved_RK = swap_RN @ (tuned_NK - base_NK)
        exchanged.append(score(tuned_NK.sum(0) - moved_RK) - score(base_NK.sum(0) + moved_RK))
    base_R, tuned_R = np.concatenate(drawn, axis=1)
    difference = float(observed[1] - observed[0])
    as_large = np.abs(np.concatenate(exchanged)) >= abs(difference)
    # The bootstrap's error is that of the whole set's score; for a mean, a row's over sqrt(N).
    spread = float((tuned_R - base_R).std()) * math.sqrt(rows)
    return Comparison(
        base=_estimate(observed[0], base_R, confidence),
        tuned=_estimate(observed[1], tuned_R, confidence),
        difference=_estimate(difference, tuned_R - base_R, confidence),
        p_value=float((as_large.sum() + 1) / (resamples + 1)),
        effect=difference / spread if spread > 1e-9 * abs(difference) else None,
    )


def rows_needed(effect: float, confidence: float) -> int:
    """Return how many rows show a difference of ``effect`` with probability :data:`POWER`.

    ``((z(1 - alpha / 2) + z(power)) / effect)²``, for a two-sided test of paired samples
    (Cohen 1988, Statistical Power Analysis, ch. 2).

    Raises:
        ZeroDivisionError: there is no effect.
    """
    z = NormalDist().inv_cdf
    return math.ceil(((z((1 + confidence) / 2) + z(POWER)) / effect) ** 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for being several (Holm 1979, Scand. J. Statist. 6)."""
    adjusted, largest, left = [0.0] * len(p_values), 0.0, len(p_values)
    for place in sorted(range(len(p_values)), key=p_values.__getitem__):
        largest = max(largest, min(1.0, left * p_values[place]))
        adjusted[place], left = largest, left - 1
    return adjusted


def _estimate(value: float, draws_R: Floats, confidence: float) -> Estimate:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws_R, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))

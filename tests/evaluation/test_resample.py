"""Intervals and p-values: a known effect is found, none is not, and nothing is nan."""

import numpy as np
import pytest
from scipy import stats

from weitiao.evaluation.resample import compare_paired, holm, rows_needed


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def column(values):
    values = np.asarray(values, dtype=float)
    return np.stack([values, np.ones_like(values)], axis=1)


def compare(base, tuned, resamples=1000, seed=1):
    return compare_paired(
        column(base), column(tuned), mean, confidence=0.95, resamples=resamples, seed=seed
    )


def test_the_interval_is_scipys():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, 60)
    tuned = base * 0.5 + rng.normal(0.4, 1, 60)
    found = compare(base, tuned, resamples=9000)
    expected = stats.bootstrap(
        (base, tuned),
        lambda b, t, axis: (t - b).mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=9000,
        rng=1,
    ).confidence_interval
    assert found.difference.value == pytest.approx((tuned - base).mean())
    assert found.difference.low == pytest.approx(expected.low, abs=0.02)
    assert found.difference.high == pytest.approx(expected.high, abs=0.02)


def test_the_p_value_is_scipys():
    rng = np.random.default_rng(4)
    base = rng.normal(0, 1, 40)
    tuned = base + rng.normal(0.3, 1, 40)
    expected = stats.permutation_test(
        (base, tuned),
        lambda b, t, axis: (t - b).mean(axis=axis),
        permutation_type="samples",
        n_resamples=9000,
        vectorized=True,
        rng=1,
    ).pvalue
    assert 0.01 < expected < 0.5
    assert compare(base, tuned, resamples=9000).p_value == pytest.approx(expected, abs=0.02)


KINDS = {
    "right or wrong": lambda rng, shape: rng.random(shape) < 0.4,
    "shares": lambda rng, shape: rng.beta(0.4, 0.4, shape),
    "losses": lambda rng, shape: rng.lognormal(0.5, 0.8, shape),
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_models_alike_are_called_better_in_at_most_one_of_twenty(kind):
    rng = np.random.default_rng(5)
    better = 0
    for seed in range(200):
        base, tuned = KINDS[kind](rng, (2, 40))
        found = compare(base, tuned, resamples=400, seed=seed)
        better += found.difference.low > 0 and found.p_value <= 0.05
    assert better <= 10


@pytest.mark.parametrize("effect", [0.3, 0.6])
def test_an_effect_is_found_as_often_as_the_rows_needed_for_it_promise(effect):
    rng, rows = np.random.default_rng(6), rows_needed(effect, 0.95)
    found = 0
    for seed in range(200):
        base = rng.normal(0, 1, rows)
        shown = compare(base, base + rng.normal(effect, 1, rows), resamples=400, seed=seed)
        found += shown.difference.low > 0 and shown.p_value <= 0.05
    # 200 draws of 0.8 fall outside in one of a hundred.
    assert 0.72 * 200 < found < 0.88 * 200


def test_the_rows_needed_are_those_of_the_normal_approximation():
    """(1.960 + 0.8416)² = 7.849."""
    assert rows_needed(0.5, 0.95) == 32
    assert rows_needed(-0.1, 0.95) == 785
    assert rows_needed(0.5, 0.99) > rows_needed(0.5, 0.95)


def test_the_effect_is_cohens():
    rng = np.random.default_rng(8)
    base = rng.normal(0, 1, 500)
    moved = rng.normal(0.7, 2, 500)
    found = compare(base, base + moved, resamples=4000)
    assert found.effect == pytest.approx(moved.mean() / moved.std(), rel=0.05)
    assert compare([0.1] * 30, [0.3] * 30).effect is None


def test_several_p_values_are_adjusted_as_holm_does():
    """By hand: 4 × 0.01, 3 × 0.02, 2 × 0.03 and 1 × 0.04, none below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_a_known_effect_is_found():
    rng = np.random.default_rng(7)
    found = compare(rng.random(100) < 0.1, rng.random(100) < 0.6)
    assert found.difference.low > 0.3
    assert found.p_value < 0.01


def test_constants_have_an_interval_of_no_width():
    found = compare([0.1] * 30, [0.3] * 30)
    assert found.base.low == found.base.high == pytest.approx(0.1)
    assert found.difference.low == found.difference.high == pytest.approx(0.2)
    assert found.p_value < 0.01
    same = compare([0.1] * 30, [0.1] * 30)
    assert (same.difference.low, same.difference.high, same.p_value) == (0, 0, 1)


def test_one_row_gives_numbers():
    found = compare([1.0], [2.0])
    assert found.p_value > 0.4
    assert found.difference.low == 1


def test_a_seed_gives_the_same_numbers():
    rng = np.random.default_rng(9)
    base, tuned = rng.random((2, 20))
    assert compare(base, tuned, seed=4) == compare(base, tuned, seed=4)
    assert compare(base, tuned, seed=4) != compare(base, tuned, seed=5)

"""Intervals and p-values: a known effect is found, none is not, and nothing is nan."""

import numpy as np
import pytest
from scipy import stats

from weitiao.evaluation.resample import compare_paired


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


def test_two_models_alike_are_told_apart_about_as_often_as_promised():
    rng = np.random.default_rng(5)
    apart = 0
    for seed in range(200):
        base, tuned = rng.random((2, 40)) < 0.5
        found = compare(base, tuned, resamples=300, seed=seed)
        low, high = found.difference.low, found.difference.high
        apart += (low > 0 or high < 0) and found.p_value <= 0.05
    assert apart <= 20


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

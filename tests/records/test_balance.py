"""How often each row is used: shares that come out exactly, and the same ones every time."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError
from weitiao.records.balance import balance, mix
from weitiao.records.options import BalanceOptions

VALUES = st.lists(st.sampled_from(("诗", "词", "曲", "")), max_size=60)


def options(**given) -> BalanceOptions:
    return BalanceOptions(by="kind", **given)


def used(values, copies) -> Counter:
    out: Counter = Counter()
    for value, count in zip(values, copies.tolist(), strict=True):
        out[value] += count
    return out


@settings(max_examples=80, deadline=None)
@given(
    VALUES,
    st.none() | st.integers(1, 20),
    st.dictionaries(st.sampled_from(("诗", "词", "")), st.sampled_from((0.25, 1.5, 3)), max_size=2),
    st.none() | st.floats(1, 100),
    st.integers(-5, 2**70),
)  # fmt: skip
def test_the_table_is_what_happens(values, cap, weights, temperature, seed) -> None:
    weights = {value: w for value, w in weights.items() if value in values}
    asked = options(cap=cap, weights=weights, temperature=temperature)
    found = balance(values, asked, seed)
    before, after = Counter(values), used(values, found.copies)
    assert {row.value: (row.before, row.after) for row in found.table} == {
        value: (before[value], after[value]) for value in before
    }
    assert [row.before for row in found.table] == sorted(before.values(), reverse=True)
    assert all(after[value] >= 1 for value in before)
    for value in before:
        copies = np.array([c for v, c in zip(values, found.copies, strict=True) if v == value])
        assert (copies > 0).sum() <= (cap or len(values))
        assert np.ptp(copies[copies > 0]) <= 1, "rows of one value are used as often, or once more"
        if cap is None and not weights:
            assert (copies >= 1).all(), "nothing but a cap or a weight leaves rows out"
    assert (balance(values, asked, seed).copies == found.copies).all()


def test_cap() -> None:
    values = ["诗"] * 100 + ["词"] * 5
    found = balance(values, options(cap=10), 1)
    assert used(values, found.copies) == {"诗": 10, "词": 5}
    assert set(found.copies) == {0, 1}
    assert (found.copies != balance(values, options(cap=10), 2).copies).any(), "the seed chooses"
    fewer = balance(values, options(cap=9), 1).copies
    assert (fewer <= found.copies).all(), "a lower cap keeps some of the same rows"
    assert found.copies[:50].sum() not in (0, 10), "not simply the first or the last rows"


def test_weights() -> None:
    values = ["诗"] * 4 + ["词"] * 10 + ["曲"] * 8
    found = balance(values, options(weights={"诗": 2, "词": 1.5, "曲": 0.5}), 1)
    assert found.copies[:4].tolist() == [2] * 4
    assert sorted(found.copies[4:14]) == [1] * 5 + [2] * 5
    assert sorted(found.copies[14:]) == [0] * 4 + [1] * 4


def test_a_weight_is_a_decimal_number() -> None:
    # In binary 1.15 is less than 1.15: 11.499... would be rounded to 11.
    assert balance(["诗"] * 10, options(weights={"诗": 1.15}), 1).copies.sum() == 12


def test_temperature() -> None:
    values = ["诗"] * 900 + ["词"] * 100
    copies = balance(values, options(temperature=2), 1).copies
    after = used(values, copies)
    assert after["诗"] == 900
    # Shares .9 and .1 become proportional to sqrt(.9) and sqrt(.1), that is 3 to 1.
    assert after["词"] == 300
    assert (balance(values, options(temperature=1), 1).copies == 1).all()
    assert used(values, balance(values, options(temperature=1e9), 1).copies)["词"] == 900


def test_one_after_the_other() -> None:
    values = ["诗"] * 800 + ["词"] * 50
    asked = options(cap=200, weights={"诗": 2}, temperature=3)
    assert used(values, balance(values, asked, 1).copies) == {"诗": 400, "词": 200}


def test_what_cannot_be_balanced() -> None:
    with pytest.raises(DataError, match=r"balance\.by"):
        balance(["诗"], BalanceOptions(cap=1), 1)
    with pytest.raises(DataError, match=r"names 赋.*kind.*诗, 词"):
        balance(["词", "诗", "诗"], options(weights={"赋": 2}), 1)
    nothing = balance(["诗"] * 3, BalanceOptions(), 1)
    assert (nothing.copies.tolist(), nothing.table) == ([1, 1, 1], ())
    assert balance([], options(cap=3, temperature=2), 1).copies.tolist() == []


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 500),
    st.dictionaries(
        st.sampled_from(("a.jsonl", "乙.jsonl", "c.csv")),
        st.tuples(st.integers(1, 300), st.integers(1, 32).map(lambda n: n / 100)),
        min_size=1,
    ),
    st.integers(0, 9),
)
def test_shares_come_out_as_asked(own, files, seed) -> None:
    sizes = {name: size for name, (size, _) in files.items()}
    shares = {name: share for name, (_, share) in files.items()}
    drawn = mix(own, sizes, shares, seed)
    whole = own / (1 - sum(shares.values()))
    assert list(drawn) == list(shares)
    for name, rows in drawn.items():
        assert abs(len(rows) - shares[name] * whole) <= 0.5 + 1e-9
        counts = np.bincount(rows, minlength=sizes[name])
        assert len(counts) == sizes[name]
        assert np.ptp(counts) <= 1, "repeated only when all were used"
        assert (np.diff(rows) >= 0).all()


def test_exact_shares() -> None:
    # 0.1 + 0.2 is more than 0.3 in binary numbers; here 70 rows of one's own are 70% of 100.
    drawn = mix(70, {"a": 1000, "b": 5}, {"a": 0.1, "b": 0.2}, 1)
    assert {name: len(rows) for name, rows in drawn.items()} == {"a": 10, "b": 20}
    assert np.bincount(drawn["b"]).tolist() == [4] * 5
    assert len(set(drawn["a"].tolist())) == 10
    # 0.6 is less than 0.6 in binary numbers, but 1.5 rows are 2.
    assert len(mix(1, {"a": 9}, {"a": 0.6}, 1)["a"]) == 2
    other = mix(70, {"a": 1000, "b": 5}, {"a": 0.1, "b": 0.2}, 2)
    assert set(other["a"].tolist()) != set(drawn["a"].tolist())


def test_files_are_drawn_from_in_orders_of_their_own() -> None:
    drawn = mix(800, {"a": 1000, "b": 1000}, {"a": 0.1, "b": 0.1}, 1)
    assert len(set(drawn["a"].tolist()) & set(drawn["b"].tolist())) < 30, "10 by chance"


@pytest.mark.parametrize(
    "shares", [{"a": 0.5, "b": 0.5}, {"a": 0.7, "b": 0.3}, {"a": 0.6, "b": 0.9}]
)
def test_shares_that_leave_nothing(shares) -> None:
    with pytest.raises(DataError, match=r"add up to 1\.[05]"):
        mix(10, {"a": 5, "b": 5}, shares, 1)


def test_a_file_without_rows() -> None:
    with pytest.raises(DataError, match=r"general\.jsonl"):
        mix(10, {"general.jsonl": 0}, {"general.jsonl": 0.1}, 1)

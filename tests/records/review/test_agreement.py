"""Cohen's kappa against a table done by hand, and against the matrix form of the formula."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.records.review import Vote, Votes, pairs, rows_seen
from weitiao.records.review.agreement import cohens_kappa

VERDICTS = ("accept", "edit", "reject")


def by_matrix(one: list[str], other: list[str]) -> float:
    """As scikit-learn computes it: 1 - sum(w * confusion) / sum(w * expected), w = 1 - I."""
    confusion = np.zeros((3, 3))
    for a, b in zip(one, other, strict=True):
        confusion[VERDICTS.index(a), VERDICTS.index(b)] += 1
    expected = np.outer(confusion.sum(axis=1), confusion.sum(axis=0)) / confusion.sum()
    weights = 1 - np.eye(3)
    return 1 - (weights * confusion).sum() / (weights * expected).sum()


def test_by_hand() -> None:
    # Of 50 rows both accept 20 and both reject 15; one accepts 5 that the other rejects, and
    # rejects 10 that the other accepts. p_o = 35/50; p_e = (25*30 + 25*20) / 50**2 = 0.5.
    one = ["accept"] * 25 + ["reject"] * 25
    other = ["accept"] * 20 + ["reject"] * 5 + ["accept"] * 10 + ["reject"] * 15
    assert cohens_kappa(one, other) == pytest.approx(0.4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(VERDICTS)] * 2), min_size=1, max_size=30))
def test_as_scikit_learn_has_it(both: list[tuple[str, str]]) -> None:
    one, other = [a for a, _ in both], [b for _, b in both]
    kappa = cohens_kappa(one, other)
    if len(set(one + other)) == 1:
        assert kappa == 1, "0/0 where both say one thing only"
    else:
        assert kappa == pytest.approx(by_matrix(one, other))
    assert kappa == cohens_kappa(other, one)


def test_one_class_only() -> None:
    assert cohens_kappa(["accept"] * 9, ["accept"] * 9) == 1
    assert cohens_kappa(["accept"] * 9, ["reject"] * 9) == 0
    assert cohens_kappa(["accept", "reject"], ["reject", "accept"]) == -1


def test_each_pair_over_the_rows_both_saw(votes: Votes) -> None:
    verdicts = {"丙": "aar.", "乙": "arr.", "甲": "a..r"}
    names = {"a": "accept", "r": "reject"}
    made = [
        Vote(str(i), who, names[v], 1)
        for who, said in verdicts.items()
        for i, v in enumerate(said)
        if v != "."
    ]
    random.Random(3).shuffle(made)
    votes.add(*made)
    assert [(p.one, p.other, p.rows, round(p.agreement, 3), p.kappa) for p in pairs(votes)] == [
        ("丙", "乙", 3, 0.667, pytest.approx(0.4)),
        ("丙", "甲", 1, 1.0, 1.0),
        ("乙", "甲", 1, 1.0, 1.0),
    ]
    assert rows_seen(votes) == {"丙": 3, "乙": 3, "甲": 2}


def test_two_edits_are_one_verdict(votes: Votes) -> None:
    votes.add(Vote("1", "甲", "edit", 1, "四分钟"), Vote("1", "乙", "edit", 1, "五分钟"))
    assert pairs(votes)[0].agreement == 1

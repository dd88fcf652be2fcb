"""Scores of labels are scikit-learn's, on the whole set and on any rows drawn from it."""

import random

import numpy as np
import pytest
from test_compare import answered

from weitiao.evaluation import scores
from weitiao.evaluation.resample import compare_paired
from weitiao.evaluation.suite import score_for

metrics = pytest.importorskip("sklearn.metrics")

SETS = {
    "zh": ["好评", "中评", "差评", "无"],
    "en": ["refund", "lost card", "a", "balance"],
}


def made(language, rows=60, right=0.6):
    rng = random.Random(language)
    labels = SETS[language]
    references = labels * 2 + rng.choices(labels, weights=(8, 4, 2, 1), k=rows - 8)
    others = [*labels, "", "好", "none of them"]
    answers = [r if rng.random() < right else rng.choice(others) for r in references]
    return answers, references


def oracle(answers, references, labels):
    found = {"label_accuracy": metrics.accuracy_score(references, answers)}
    for mean in ("macro", "micro"):
        values = metrics.precision_recall_fscore_support(
            references, answers, labels=labels, average=mean, zero_division=0
        )
        names = (f"{mean}_precision", f"{mean}_recall", f"{mean}_f1")
        found.update(zip(names, values[:3], strict=True))
    return found


def vectors(name, answers, references, of=None):
    score = score_for(name, of or references)
    rows = [answered(i, a, r) for i, (a, r) in enumerate(zip(answers, references, strict=True))]
    return score, np.array([score.statistics(row) for row in rows])


@pytest.mark.parametrize("language", SETS)
@pytest.mark.parametrize("name", scores.LABEL_TOTALS)
def test_they_are_those_of_scikit_learn(language, name):
    answers, references = made(language)
    score, rows = vectors(name, answers, references)
    expected = oracle(answers, references, sorted(SETS[language]))[name]
    assert float(score.total(rows.sum(0))) == pytest.approx(expected)
    # Rows drawn as the bootstrap draws them: the mean leaves out labels that none asks for.
    rng = random.Random(name)
    for _ in range(20):
        drawn = rng.choices(range(len(rows)), k=9)
        some = [references[i] for i in drawn]
        labels = SETS[language] if name.startswith("micro") else sorted(set(some))
        expected = oracle([answers[i] for i in drawn], some, labels)[name]
        assert float(score.total(rows[drawn].sum(0))) == pytest.approx(expected)


@pytest.mark.parametrize("name", scores.LABEL_TOTALS)
def test_the_paired_bootstrap_sees_a_difference_and_only_where_there_is_one(name):
    answers, references = made("zh", rows=100, right=0.3)
    better, _ = made("zh", rows=100, right=0.9)
    score, base = vectors(name, answers, references)
    _, tuned = vectors(name, better, references)
    options = {"confidence": 0.95, "resamples": 400, "seed": 1}
    found = compare_paired(base, tuned, score.total, **options)
    assert found.difference.low > 0
    assert found.p_value < 0.05
    assert found.base.low < found.base.value < found.base.high
    assert compare_paired(base, base, score.total, **options).p_value == 1


def test_labels_are_read_without_case_width_and_marks():
    answers = ["Ｒefund.", "LOST card", "", "？"]
    references = ["refund", "lost card", "refund", "lost card"]
    score, rows = vectors("label_accuracy", answers, references)
    assert float(score.total(rows.sum(0))) == 0.5
    score, rows = vectors("label_accuracy", ["+", "-"], ["+", "-"], of=["+", "-", "+", "-"])
    assert float(score.total(rows.sum(0))) == 1


def test_what_is_no_set_of_labels_has_no_such_scores():
    assert score_for("macro_f1", [f"第{i}首诗" for i in range(40)]) is None
    assert score_for("macro_f1", [f"l{i % 300}" for i in range(900)]) is None
    assert score_for("macro_f1", ["好评", "差评"] * 10) is not None

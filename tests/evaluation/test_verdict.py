"""What the verdict claims: several scores are no more chances, and how many rows would tell."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from test_compare import OPTIONS, POEMS, answered, both

from weitiao.evaluation import compare as comparing
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.compare import ScoreResult, compare
from weitiao.evaluation.present import verdict_sentence
from weitiao.evaluation.resample import Estimate
from weitiao.evaluation.suite import Suite
from weitiao.words import LANGUAGES


def line(name: str, p_value: float | None) -> ScoreResult:
    known = Estimate(0.0), Estimate(0.0), Estimate(-1.0, -2.0, -0.5)
    return ScoreResult(name, 40, *known, p_value, None if p_value is None else "worse")


def test_several_scores_are_not_several_chances():
    lines = [line("answer_loss", 0.04), *(line(f"score{i}", 0.03) for i in range(4))]
    found = comparing._adjusted([*lines, line("distinct_2", None)], "answer_loss", 0.95)
    # The one that the verdict asks about was chosen beforehand.
    assert (found[0].p_adjusted, found[0].change) == (0.04, "worse")
    assert [x.change for x in found[1:5]] == ["same"] * 4
    assert all(x.p_adjusted == 0.12 for x in found[1:5])
    assert (found[5].p_adjusted, found[5].change) == (None, None)
    alone = comparing._adjusted([line("score", 0.03)], "answer_loss", 0.95)
    assert alone[0].change == "worse"


def test_perplexity_is_no_score_of_its_own():
    lines = [line("exact_match", 0.01), line("answer_loss", 0.03), line("perplexity", 0.03)]
    found = comparing._adjusted(lines, "exact_match", 0.95)
    assert [x.p_adjusted for x in found] == [0.01, 0.03, 0.03]


def test_perplexity_may_decide():
    lines = [line("exact_match", 0.01), line("answer_loss", 0.03), line("perplexity", 0.03)]
    found = comparing._adjusted(lines, "perplexity", 0.95)
    assert [x.p_adjusted for x in found] == [0.02, 0.03, 0.03]


def test_what_tells_no_better_from_worse_does_not_decide():
    suite = Suite("mine", 1, ("length", "chrf"), "length")
    verdict = compare(*both(["短"] * 40, POEMS, POEMS), OPTIONS, suite).verdict
    assert (verdict.outcome, verdict.score) == ("better", "chrf")


def test_a_suite_none_of_whose_scores_fits_says_so_and_not_that_rows_are_few():
    results = compare(*both(POEMS, POEMS, POEMS), OPTIONS, Suite("mine", 1, ("macro_f1", "length")))
    assert results.verdict.outcome == "cannot_tell"
    for language in LANGUAGES:
        sentence = verdict_sentence(results, language)
        assert "mine" in sentence
        assert "40" not in sentence


def test_rows_that_may_have_been_trained_on_are_not_called_kept_out():
    known = OPTIONS.model_copy(update={"overlap": True})
    suite = Suite("mine", 1, ("answer_loss",))
    pair = both(POEMS, POEMS, POEMS)
    for said, results in (
        (("kept out of training", "没有参加训练"), compare(*pair, known, suite)),
        (("may have been", "可能"), compare(*pair, known, replace(suite, rows="mine.jsonl"))),
    ):
        for language, words in zip(("en", "zh"), said, strict=True):
            assert words in verdict_sentence(results, language)


def noisy(rows: int, gain: float) -> comparing.Results:
    """A loss that is lower by ``gain`` standard deviations in the mean, and noise beside."""
    base, tuned = both(POEMS[:rows], POEMS[:rows], POEMS[:rows])
    noise = np.random.default_rng(3).normal(0, 1, rows)
    noise = (noise - noise.mean()) / noise.std()
    tuned = [
        replace(t, loss_sum=t.loss_sum + float(n) - gain) for t, n in zip(tuned, noise, strict=True)
    ]
    return compare(base, tuned, OPTIONS)


def test_the_rows_that_would_tell_are_said():
    results = noisy(20, 0.2)
    assert results.verdict.outcome == "same"
    # 7.85 / 0.2² = 196, of which 20 are there; the bootstrap knows the spread but roughly.
    assert 120 < results.verdict.more_rows < 260
    for language in LANGUAGES:
        known = replace(results, verdict=replace(results.verdict, more_rows=1234))
        assert "1,300" in verdict_sentence(known, language)


def test_no_number_of_rows_tells_what_is_not_there():
    assert noisy(20, 0.0001).verdict.more_rows is None
    assert compare(*both(POEMS, POEMS, POEMS), OPTIONS).verdict.more_rows is None
    assert noisy(20, 2.0).verdict.more_rows is None


SMALL = Suite("small", 1, ("answer_loss", "exact_match", "length"))
LABELS = ["好评", "差评", "中评"] * 20


def simulated(seed: int, wanted: list[str], right: float = 0.5, gain: float = 0.0) -> str:
    """Return the verdict on two models that answer by chance, some rows being harder.

    The second is right in ``right`` of the rows, the first in half of them, and the second's
    loss is lower by ``gain``.
    """
    rng = np.random.default_rng(seed)
    hard = rng.normal(20, 5, len(wanted))

    def side(share: float, better: float) -> list[Answered]:
        losses = hard + rng.normal(-better, 3, len(wanted))
        return [
            answered(i, w if rng.random() < share else "不知道", w, loss=float(losses[i]))
            for i, w in enumerate(wanted)
        ]

    options = OPTIONS.model_copy(update={"resamples": 100, "seed": seed})
    return compare(side(0.5, 0.0), side(right, gain), options, SMALL).verdict.outcome


@pytest.mark.parametrize("wanted", [LABELS, POEMS], ids=["labels", "text"])
def test_the_whole_comparison_finds_what_is_there_and_little_else(wanted: list[str]) -> None:
    """200 models against their like, and 50 against better ones, all the way from the answers."""
    alike = Counter(simulated(seed, wanted) for seed in range(200))
    assert set(alike) <= {"same", "better", "worse"}
    assert alike["better"] <= 10, alike
    assert alike["worse"] <= 10, alike
    # By the normal approximation these are found in 90% (text) and more.
    better = Counter(simulated(seed, wanted, 0.85, 2.2) for seed in range(50))
    assert better["better"] >= 40, better
    assert better["worse"] == 0

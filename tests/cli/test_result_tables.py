"""The verdict on the terminal: what turned and where it got worse, in one line each."""

from dataclasses import replace

import pytest

from weitiao.cli import tables
from weitiao.evaluation.compare import Category, Results, ScoreResult, Verdict
from weitiao.evaluation.examples import Turned
from weitiao.evaluation.resample import Estimate
from weitiao.evaluation.suite import load_suite
from weitiao.words import LANGUAGES, set_language

LINE = ScoreResult(
    "exact_match", 40, Estimate(0.9), Estimate(0.4), Estimate(-0.5, -0.7, -0.3), 0.001, "worse"
)
RESULTS = Results(
    kind="short",
    rows=40,
    verdict=Verdict("worse", "exact_match", 40),
    scores=(LINE,),
    fields=(),
    example_score="exact_match",
    examples=(),
    confidence=0.95,
    resamples=100,
    seed=0,
    suite=load_suite(),
    versions={},
    generated_tokens=0,
    seconds=0.0,
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_turned_and_the_worst_category_are_told(language: str) -> None:
    set_language(language)
    assert tables.verdict(RESULTS)[1] == []
    told = replace(
        RESULTS,
        turned=Turned(rows=40, wrong=3, right=7),
        categories=(Category("\x1b[31m退款", LINE), Category(None, LINE)),
    )
    turned, worst = tables.verdict(told)[1]
    assert all(number in turned for number in ("3", "7", "40"))
    assert "退款" in worst
    assert "\x1b" not in worst
    assert "90.0%" in worst
    quiet = replace(
        told,
        turned=Turned(rows=40, wrong=0, right=7),
        categories=(Category("退款", replace(LINE, change="same")),),
    )
    assert tables.verdict(quiet)[1] == []

"""`weitiao compare` and `weitiao benchmark`: what they show, write and refuse."""

import pytest

from compared_runs import evaluated_run
from conftest import one_sentence


@pytest.fixture
def runs(tmp_path):
    for name, right in (("poor", 0.3), ("good", 0.9)):
        evaluated_run(tmp_path / "runs" / name, right)
    return tmp_path


def test_runs_are_shown_side_by_side(weitiao, runs):
    said = weitiao("compare", "poor", "good", "--out", "both.html")
    assert said.code == 0
    assert said.err == ""
    assert "good is better than poor: macro F1" in said.out
    assert "embedded" in said.out
    assert "good against poor" in said.out
    assert "<html" in (runs / "both.html").read_text(encoding="utf-8")
    spoken = weitiao("compare", "poor", "good", "--lang", "zh")
    assert "good 比 poor 好" in spoken.out


def test_what_cannot_be_is_refused_in_a_sentence(weitiao, runs):
    for words, said in {
        ("compare", "poor"): "two runs or more",
        ("compare", "poor", "poor"): "named twice",
        ("compare", "poor", "god"): "good",
        ("compare", "poor", "good", "--out", "runs/poor"): "ends in .html",
        ("benchmark", "poor"): "--tasks",
        ("benchmark", "poor", "--tasks", " , "): "--tasks",
        ("benchmark", "poor", "--tasks", "arc_easy", "--limit", "0"): "--limit 0",
        ("benchmark", "poor", "--tasks", "arc_easy"): "poor",
    }.items():
        assert said in one_sentence(weitiao(*words)), words
    assert not (runs / "poor" / "evaluation" / "lm_eval.json").exists()
    report = runs / "runs" / "poor" / "report.html"
    report.write_text("the report", encoding="utf-8")
    assert "move it away" in one_sentence(weitiao("compare", "poor", "good", "--out", report))
    assert report.read_text(encoding="utf-8") == "the report"

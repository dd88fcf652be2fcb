"""Runs compared: who is better on the rows in common, what may not be compared in silence."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import orjson
import pytest
from made_measures import made_measures

from compared_runs import answers, evaluated_run
from weitiao.errors import RunError
from weitiao.evaluation.beside import write_measure
from weitiao.evaluation.common_rows import in_common
from weitiao.evaluation.compare import compare
from weitiao.evaluation.comparing import compare_runs, write_page
from weitiao.evaluation.comparing.present import table_lines, verdict_sentences
from weitiao.evaluation.forgetting import load_forgetting
from weitiao.evaluation.judge import load_judged
from weitiao.evaluation.lm_eval_tasks import LmEval, TaskLine
from weitiao.evaluation.speed import load_speed
from weitiao.evaluation.suite import load_suite
from weitiao.plan.evaluate_options import EvaluateOptions


@pytest.fixture
def poor(tmp_path):
    return evaluated_run(tmp_path / "poor", 0.3)


def sentences(found, language="en"):
    return [said for said, _ in verdict_sentences(found, language)]


def notes(found):
    return [note.key.removeprefix("compare.note.") for note in found.notes]


def test_the_tuned_answers_are_compared_on_the_rows_in_common(tmp_path, poor):
    good = evaluated_run(tmp_path / "good", 0.9, range(20, 100))
    found = compare_runs([poor, good])
    results = found.against[0].results
    # By hand: the same answers, cut to rows 20 to 59 and counted anew.
    ours, theirs = answers(0.3, range(60), seed=2)[20:], answers(0.9, range(20, 100), seed=2)[:40]
    wanted = compare(
        [replace(a, row=i) for i, a in enumerate(ours)],
        [replace(a, row=i) for i, a in enumerate(theirs)],
        EvaluateOptions(resamples=300),
        found.columns[0].results.suite,
    )
    assert results.rows == 40
    assert results.scores == wanted.scores
    assert results.verdict == wanted.verdict
    (said,) = sentences(found)
    assert said.startswith("good is better than poor: macro F1")
    assert "40 rows in common" in said
    assert "40 条" in sentences(found, "zh")[0]
    assert [column.results.rows for column in found.columns] == [60, 80]
    assert notes(found) == ["rows"]


def test_the_order_of_the_runs_turns_the_verdict_around(tmp_path, poor):
    good = evaluated_run(tmp_path / "good", 0.9)
    found = compare_runs([good, poor])
    assert found.against[0].results.verdict.outcome == "worse"
    cautions = [kind for _, kind in verdict_sentences(found)]
    assert cautions[0] == "worse"
    assert "caution" in cautions


def test_the_same_answers_differ_in_nothing(tmp_path, poor):
    found = compare_runs([poor, evaluated_run(tmp_path / "again", 0.3)])
    assert found.against[0].results.verdict.outcome == "same"
    assert found.differences == ()
    assert notes(found) == []


def test_another_suite_is_said_and_all_is_counted_by_the_firsts(tmp_path, poor):
    other = evaluated_run(tmp_path / "other", 0.9, suite=load_suite("general"))
    newer = evaluated_run(
        tmp_path / "newer", 0.9, suite=replace(load_suite("intents"), name="tea", version=2)
    )
    found = compare_runs([poor, other, newer])
    assert notes(found) == ["suite", "suite"]
    assert "general 1" in found.notes[0].sentence("en")
    assert "tea 2" in found.notes[1].sentence("en")
    assert {column.results.suite.version for column in found.columns} == {1}
    names = [[line.name for line in column.results.scores] for column in found.columns]
    assert names[0] == names[1] == names[2]


def test_answers_made_in_another_way_are_compared_with_a_warning(tmp_path, poor):
    warm = evaluated_run(tmp_path / "warm", 0.9, range(60), "evaluate.temperature=0.5")
    found = compare_runs([poor, warm])
    assert notes(found) == ["answers"]
    assert found.notes[0].values["told"] == "evaluate.temperature: 0.0 / 0.5"
    (difference,) = found.differences
    assert (difference.setting, difference.values) == ("evaluate.temperature", ("0.0", "0.5"))


def test_losses_over_other_tokens_are_left_out(tmp_path, poor):
    found = compare_runs([poor, evaluated_run(tmp_path / "other", 0.9, tokens=9)])
    assert notes(found) == ["tokens"]
    assert "answer_loss" not in [line.name for line in found.against[0].results.scores]


def test_five_rows_are_the_fewest_that_tell(tmp_path, poor):
    found = compare_runs([poor, evaluated_run(tmp_path / "late", 0.9, range(56, 116))])
    assert found.against[0].results.rows == 4
    assert "4 rows in common are too few" in sentences(found)[0]


def test_of_many_runs_one_that_seems_better_may_be_chance(tmp_path, poor):
    slightly = evaluated_run(tmp_path / "slightly", 0.46)
    alone = compare_runs([poor, slightly]).against[0].results
    p_value = alone.score(alone.verdict.score).p_value
    assert 0.01 < p_value < 0.05, "choose another share: this test needs a near thing"
    assert alone.verdict.outcome == "better"
    same = [evaluated_run(tmp_path / f"same{i}", 0.3) for i in range(4)]
    found = compare_runs([poor, slightly, *same])
    assert found.against[0].results.verdict.outcome == "same"
    assert "several" in notes(found)


def test_measures_stand_in_the_table_where_they_were_taken(tmp_path, poor):
    line = TaskLine("arc", "acc", "1", 20, 0, 0.25, 0.5, 0.1, 0.1, 0.25, 0.14, 0.08, "same")
    measured = LmEval(("arc",), (line,), None, False, "0.4.13", 2.0)
    (poor.evaluation / "lm_eval.json").write_bytes(orjson.dumps(asdict(measured)))
    found = compare_runs([evaluated_run(tmp_path / "plain", 0.3), poor])
    lines = {line.label: line.cells for line in table_lines(found, "en")}
    assert lines["arc: acc (20 rows)"] == ("–", "0.250 → 0.500")
    assert lines["Training rows"] == ("400", "400")
    assert not any("Judge" in label for label in lines)
    labels = [line.decides for line in table_lines(found, "zh")]
    assert labels.count(True) == 2
    (poor.evaluation / "speed.json").write_text('{"of": "another version"}')
    with pytest.raises(RunError, match=r"speed\.json"):
        compare_runs([poor, evaluated_run(tmp_path / "b", 0.3)])


def test_what_was_measured_in_different_ways_is_not_compared_in_silence(tmp_path, poor):
    good = evaluated_run(tmp_path / "good", 0.9)
    for run in (poor, good):
        made_measures(run.evaluation)
    assert notes(compare_runs([poor, good])) == []
    for name, load, change in (
        ("forgetting", load_forgetting, {"asked": 60}),
        ("judge", load_judged, {"settings": "another rubric"}),
        ("speed", load_speed, {"device": "NVIDIA H100"}),
    ):
        path = good.evaluation / f"{name}.json"
        write_measure(path, replace(load(path), **change))
    found = compare_runs([poor, good])
    assert notes(found) == ["forgetting", "judge", "speed"]
    assert "poor: 220, v1; good: 60, v1" in found.notes[0].sentence("en")
    assert "good: NVIDIA H100" in found.notes[2].sentence("zh")


def test_what_cannot_be_compared_is_refused_in_a_sentence(tmp_path, poor):
    elsewhere = evaluated_run(tmp_path / "elsewhere", 0.3, range(500, 560))
    unmeasured = evaluated_run(tmp_path / "unmeasured", 0.3)
    (unmeasured.evaluation / "results.json").unlink()
    old = evaluated_run(tmp_path / "old", 0.3)
    (old.evaluation / "results.json").write_text('{"of": "another version"}')
    silent = evaluated_run(tmp_path / "silent", 0.3)
    (silent.evaluation / "tuned.jsonl").write_text("")
    for runs, said in (
        ([poor], "two runs or more"),
        ([poor, poor], "named twice"),
        ([poor, elsewhere], "no test row in common"),
        ([poor, unmeasured], "unmeasured is not evaluated yet"),
        ([poor, old], "results file of this version"),
        ([poor, silent], "holds no answers"),
    ):
        with pytest.raises(RunError, match=said):
            compare_runs(runs)


def test_whole_texts_have_no_answers_to_compare(tmp_path, poor):
    whole = evaluated_run(tmp_path / "whole", 0.3)
    path = whole.evaluation / "results.json"
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), "kind": "passage"}))
    with pytest.raises(RunError, match="whole texts"):
        compare_runs([poor, whole])


def test_runs_of_one_name_are_called_by_their_paths(tmp_path, poor):
    again = evaluated_run(tmp_path / "b" / "poor", 0.3)
    assert [c.name for c in compare_runs([poor, again]).columns] == [
        str(poor.path), str(again.path),
    ]  # fmt: skip


def test_a_question_asked_twice_is_matched_twice():
    one, two = answers(0.5, range(3)), answers(0.5, range(1, 3)) * 2
    pairs = in_common([*one, one[1]], two, ("a", "b"))
    assert [a.prompt == b.prompt for a, b in pairs] == [True] * 3


def test_the_page_holds_all_in_both_languages_and_loads_nothing(tmp_path, poor):
    hostile = evaluated_run(tmp_path / "<script>alert(1)<", 0.9)
    page = Path(tmp_path / "compare.html")
    write_page(compare_runs([poor, hostile]), page)
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in text
    assert "is better than poor" in text
    assert "比 poor 好" in text
    assert not re.search(r"(src|href)=|https?://|@import|url\(", text)


def test_only_a_page_of_ours_is_replaced(tmp_path, poor):
    found = compare_runs([poor, evaluated_run(tmp_path / "good", 0.9)])
    page, folder = tmp_path / "both.html", tmp_path / "folder.html"
    folder.mkdir()
    poor.report.write_text("<html><title>a report</title></html>", encoding="utf-8")
    for path in (poor.report, folder):
        with pytest.raises(RunError, match=path.name) as told:
            write_page(found, path)
        assert told.value.key == "error.compare_not_ours"
    assert "a report" in poor.report.read_text(encoding="utf-8")
    write_page(found, page)
    first = page.read_text(encoding="utf-8")
    page.write_text(first.replace("</body>", "old</body>"), encoding="utf-8")
    write_page(found, page)
    assert page.read_text(encoding="utf-8") == first

"""A suite from the command line: shipped ones, a file of one's own, and what is refused."""

import json
from pathlib import Path

from conftest import QUICK, Weitiao, one_sentence

OTHER = [("一加一等于几？", "答案是 2"), ("三乘四等于几？", "12"), ("十减七等于几？", "3")]


def own_suite(folder: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"instruction": q, "output": a}, ensure_ascii=False) for q, a in rows]
    (folder / "sums.jsonl").write_text("\n".join(lines), encoding="utf-8")
    suite = folder / "sums.yaml"
    suite.write_text("rows: sums.jsonl\nscores: [number_match, answer_loss]\n", encoding="utf-8")
    return suite


def test_a_suite_of_ones_own_is_answered_and_counted(
    weitiao: Weitiao, data: Path, tiny_base: Path
) -> None:
    suite = own_suite(data.parent, OTHER * 2)
    said = weitiao("eval", data, "--model", tiny_base, *QUICK, f"evaluate.suite={suite}")
    assert said.code == 0, said.err
    found = json.loads((data.parent / "runs/tea/evaluation/results.json").read_text())
    assert found["suite"]["name"] == "sums"
    assert [score["name"] for score in found["scores"]] == ["number_match", "answer_loss"]
    assert found["rows"] == 6


def test_a_suite_edited_after_it_was_counted_is_counted_again(
    weitiao: Weitiao, data: Path, tiny_base: Path
) -> None:
    suite, results = own_suite(data.parent, OTHER * 2), "runs/tea/evaluation/results.json"

    def scores() -> list[str]:
        found = json.loads((data.parent / results).read_text(encoding="utf-8"))
        return [score["name"] for score in found["scores"]]

    said = weitiao("eval", data, "--model", tiny_base, *QUICK, f"evaluate.suite={suite}")
    assert said.code == 0, said.err
    written = (data.parent / results).stat().st_mtime_ns
    assert weitiao("eval", data.parent / "runs/tea").code == 0
    assert (data.parent / results).stat().st_mtime_ns == written, "the same suite: only shown"
    whole = suite.read_text(encoding="utf-8")
    suite.write_text(whole.replace("number_match", "number_match, exact_match"), encoding="utf-8")
    said = weitiao("eval", data.parent / "runs/tea")
    assert said.code == 0, said.err
    assert scores() == ["number_match", "exact_match", "answer_loss"]
    suite.unlink()
    assert weitiao("eval", data.parent / "runs/tea").code == 0
    assert scores() == ["number_match", "exact_match", "answer_loss"]


def test_a_measured_run_can_be_measured_by_another_suite(
    weitiao: Weitiao, data: Path, tiny_base: Path
) -> None:
    results = data.parent / "runs/tea/evaluation/results.json"
    assert weitiao("eval", data, "--model", tiny_base, *QUICK).code == 0
    before = json.loads(results.read_text(encoding="utf-8"))
    said = weitiao("eval", "runs/tea", "--resume", "evaluate.suite=general")
    assert said.code == 0, said.err
    after = json.loads(results.read_text(encoding="utf-8"))
    assert (before["suite"]["name"], after["suite"]["name"]) == ("question_answering", "general")
    assert after["rows"] == before["rows"]
    suite = own_suite(data.parent, OTHER * 2)
    said = weitiao("eval", "runs/tea", "--resume", f"evaluate.suite={suite}")
    assert said.code == 0, said.err
    assert json.loads(results.read_text(encoding="utf-8"))["rows"] == 6


def test_what_was_trained_on_is_refused_unless_said_twice(
    weitiao: Weitiao, data: Path, tiny_base: Path
) -> None:
    known = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()[:40]]
    rows = [(row["prompt"], row["response"]) for row in known]
    suite = own_suite(data.parent, rows)
    words = ("eval", data, "--model", tiny_base, *QUICK, f"evaluate.suite={suite}")
    refused = one_sentence(weitiao(*words))
    assert "sums.jsonl" in refused
    assert "evaluate.overlap=true" in refused
    assert not (data.parent / "runs/tea/adapter").exists(), "told before hours of training"
    said = weitiao(*words, "evaluate.overlap=true", "--resume")
    assert said.code == 0, said.err
    assert said.out.count("may have been trained on") == 2, "what was answered, and the verdict"
    assert "kept out of training" not in said.out


def test_a_wrong_suite_is_told_before_anything_is_trained(
    weitiao: Weitiao, data: Path, tiny_base: Path
) -> None:
    said = weitiao("run", data, "--model", tiny_base, *QUICK, "evaluate.suite=poety")
    assert "poetry" in one_sentence(said)
    suite = data.parent / "mine.yaml"
    suite.write_text("scores: [rouge_1, blue]\n", encoding="utf-8")
    said = weitiao("run", data, "--model", tiny_base, *QUICK, f"evaluate.suite={suite}")
    assert "bleu" in one_sentence(said)
    assert not (data.parent / "runs").exists()

"""`weitiao review`: what it says in the terminal, how it ends, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from conftest import one_sentence
from people_runs import people_run
from weitiao.api import open_run, people
from weitiao.evaluation.people import Store, Vote, load_people


@pytest.fixture
def run(tmp_path):
    return people_run(tmp_path / "tea")


def judge(run):
    store = Store(run.evaluation / "review.sqlite")
    for row in people.match([run]).rows:
        store.put(Vote(row.id, "Li", "other", comment="短 [red]"))
    store.close()


def test_results_are_shown_and_written(weitiao, run):
    said = weitiao("review", "tea", "--results")
    assert said.code == 0
    assert "Nobody has judged" in said.out
    assert not (run.evaluation / "people.json").exists()
    judge(run)
    said = weitiao("review", "tea", "--results")
    assert "People find tuned better than base: on 6 of 6 rows" in said.out
    assert "短 [red]" in said.out
    assert load_people(run.evaluation / "people.json").outcome == "other"
    assert "微调后" in weitiao("review", "tea", "--results", "--lang", "zh").out


def test_rows_are_exported(weitiao, run, tmp_path):
    judge(run)
    said = weitiao("review", "tea", "--export", "best.jsonl", "--as", "answers")
    assert "6 rows written" in said.out
    assert len((tmp_path / "best.jsonl").read_text().splitlines()) == 6
    assert "best.jsonl" in one_sentence(weitiao("review", "tea", "--export", "best.jsonl"))


def test_what_cannot_be_is_refused_in_a_sentence(weitiao, run):
    for words, said in {
        ("tea", "tea"): "same answer on every row",
        ("tea", "tea", "tea"): "3 were given",
        ("tea", "--port", "70000"): "70000 is no port",
        ("tea", "--rows", "0"): "--rows 0",
        ("tea", "--as", "poems"): "preferences, answers",
        ("tea", "--results", "--export", "x"): "one of the two",
        ("none",): "none",
    }.items():
        assert said in one_sentence(weitiao("review", *words)), words
    (run.evaluation / "tuned.jsonl").unlink()
    assert "weitiao eval" in one_sentence(weitiao("review", "tea"))


def test_answers_that_are_lost_are_made_again_as_the_sentence_says(finished, weitiao, tmp_path):
    folder = tmp_path / "runs" / "tea"
    shutil.copytree(finished / "runs" / "tea", folder)
    answers, results = folder / "evaluation/base.jsonl", folder / "evaluation/results.json"
    before = answers.read_text(encoding="utf-8")
    answers.unlink()
    said = one_sentence(weitiao("review", "tea", "--results"))
    assert "results.json away" in said
    assert "weitiao eval runs/tea" in said.replace(f"{tmp_path}/", "")
    results.rename(tmp_path / "away.json")
    assert weitiao("eval", "runs/tea").code == 0
    assert [json.loads(line)["answer"] for line in answers.read_text().splitlines() if line] == [
        json.loads(line)["answer"] for line in before.splitlines() if line
    ]
    people.match([open_run("runs/tea")])


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is a signal elsewhere")
def test_it_waits_at_its_address_until_ctrl_c(run):
    command = [sys.executable, "-m", "weitiao.cli", "review", str(run.path), "--no-browser"]
    environment = {**os.environ, "WEITIAO_LANG": "en"}
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
        # In the background of a shell that is no terminal's, it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        lines = [process.stdout.readline() for _ in range(3)]
        assert "6 rows to judge" in lines[0]
        assert lines[2].strip().startswith("http://127.0.0.1:")
        judge(run)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "6 of 6 rows" in out
    assert "closed" in out
    assert err == ""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from weitiao.errors import RunError
from weitiao.events import EventLog
from weitiao.runs import Run, create_run, list_runs, open_run, publish_directory
from weitiao.words import set_language


@pytest.fixture(autouse=True)
def _english():
    set_language("en")


def begun(path, **plan):
    path.mkdir(parents=True, exist_ok=True)
    (path / "plan.json").write_text(json.dumps({"model": "embedded", "rows": 9, "steps": 4} | plan))
    return Run(path)


def test_a_folder_that_the_user_named_is_never_overwritten(tmp_path):
    out = tmp_path / "mine"
    assert create_run(out, "x").path == out
    begun(out)
    with pytest.raises(RunError, match="--resume"):
        create_run(out, "x")
    assert create_run(out, "x", exists="resume").plan.exists()
    again = create_run(out, "x", exists="overwrite")
    assert list(again.path.iterdir()) == []
    assert (tmp_path / "mine.old-1" / "plan.json").exists()
    begun(out)
    create_run(out, "x", exists="overwrite")
    assert (tmp_path / "mine.old-2" / "plan.json").exists()


@pytest.mark.parametrize("exists", ["refuse", "resume", "overwrite"])
def test_a_folder_or_file_that_is_no_run_is_left_alone(tmp_path, exists):
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("content")
    for path in (documents, tmp_path / "file"):
        with pytest.raises(RunError, match="not a run"):
            create_run(path, "x", exists=exists)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["documents", "file", "letter.txt"]


def test_a_name_of_ours_gets_a_number(tmp_path):
    first = create_run(None, "客户 数据.csv", root=tmp_path)
    assert first.path == tmp_path / "客户-数据.csv"
    begun(first.path)
    second = create_run(None, "客户 数据.csv", root=tmp_path)
    assert second.path.name == "客户-数据.csv-2"
    begun(second.path)
    os.utime(first.path, (1, 1))
    os.utime(first.plan, (1, 1))
    assert create_run(None, "客户 数据.csv", exists="resume", root=tmp_path) == second
    assert create_run(None, "new", exists="resume", root=tmp_path).path.name == "new"
    assert create_run(None, "../..", root=tmp_path).path.parent == tmp_path


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        create_run(tmp_path / "file" / "run", "x")


def test_open_run(tmp_path):
    begun(tmp_path / "bank")
    assert open_run("bank", tmp_path) == open_run(tmp_path / "bank", tmp_path)
    with pytest.raises(RunError, match="did you mean bank"):
        open_run("bnak", tmp_path)
    with pytest.raises(RunError, match="no run zzz"):
        open_run("zzz", tmp_path)
    with pytest.raises(RunError):
        open_run("x", tmp_path / "nowhere")


def make_checkpoint(run, step, text="x", error=None):
    with publish_directory(run.checkpoint(step)) as folder:
        (folder / "state").write_text(text)
        if error is not None:
            raise error


def test_only_complete_checkpoints_count(tmp_path):
    run = Run(tmp_path)
    for step in (9, 100, 20):
        make_checkpoint(run, step)
    with pytest.raises(ZeroDivisionError):
        make_checkpoint(run, 200, "half", error=ZeroDivisionError())
    (tmp_path / "checkpoints" / "step-x").mkdir()
    assert [step for step, _ in run.checkpoints()] == [9, 20, 100]
    run.keep_last(2)
    assert [step for step, _ in run.checkpoints()] == [20, 100]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step-100",
        "step-20",
        "step-x",
    ]


def test_publishing_again_replaces_and_a_failure_keeps_the_old(tmp_path):
    run = Run(tmp_path)
    make_checkpoint(run, 5, "old")
    make_checkpoint(run, 5, "new")
    assert (run.checkpoint(5) / "state").read_text() == "new"
    with pytest.raises(ZeroDivisionError):
        make_checkpoint(run, 5, "broken", error=ZeroDivisionError())
    assert (run.checkpoint(5) / "state").read_text() == "new"
    assert len(list(run.checkpoint(5).parent.iterdir())) == 1


def test_a_full_disk_is_one_sentence(tmp_path):
    with (
        pytest.raises(RunError, match="disk is full"),
        publish_directory(tmp_path / "adapter"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_between_two_renames_is_mended(tmp_path):
    run = begun(tmp_path / "run")
    (run.path / ".adapter.old").mkdir()
    (run.path / ".adapter.old" / "weights").write_text("w")
    (run.path / ".model.new").mkdir()
    (run.path / "checkpoints" / ".step-3.old").mkdir(parents=True)
    with run.lock():
        assert (run.adapter / "weights").read_text() == "w"
        assert run.checkpoints() == []
    left = sorted(p.name for p in run.path.iterdir())
    assert left == ["adapter", "checkpoints", "plan.json"]


def test_publishing_survives_kill_9_at_any_moment(tmp_path):
    code = f"""
from pathlib import Path
from weitiao.runs import publish_directory
n = 0
while True:
    n += 1
    with publish_directory(Path({str(tmp_path)!r}) / "adapter") as folder:
        for name in "ab":
            (folder / name).write_text(str(n))
    print(n, flush=True)
"""
    run = begun(tmp_path)
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        with run.lock():
            assert (run.adapter / "a").read_text() == (run.adapter / "b").read_text() != ""


def test_a_run_is_locked_against_others(tmp_path):
    run = begun(tmp_path)
    with run.lock():
        assert run.worked_on()
        with pytest.raises(RunError, match=str(os.getpid())), run.lock():
            pass
        with pytest.raises(RunError, match="Another weitiao"):
            create_run(tmp_path, "x", exists="overwrite")
    assert not run.worked_on()
    assert [p.name for p in run.path.iterdir()] == ["plan.json"]


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    run = begun(tmp_path)
    code = f"""
import os, signal
from pathlib import Path
from weitiao.runs import Run
with Run(Path({str(tmp_path)!r})).lock():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / ".lock").exists()
    assert not run.worked_on()
    with run.lock():
        assert run.worked_on()


def test_a_reused_process_number_does_not_lock(tmp_path):
    run = begun(tmp_path)
    with run.lock():
        owner = json.loads((tmp_path / ".lock").read_text())
    for change, held in (({}, True), ({"started": owner["started"] - 100}, False)):
        (tmp_path / ".lock").write_text(json.dumps(owner | change))
        assert run.worked_on() is held
    (tmp_path / ".lock").write_text(json.dumps(owner | {"host": "elsewhere", "pid": 1}))
    assert run.worked_on()
    for broken in ("", "[]", '{"host": 3', "null"):
        (tmp_path / ".lock").write_text(broken)
        assert not run.worked_on()


def test_stages_and_list(tmp_path):
    assert list_runs(tmp_path / "nowhere") == []
    run = begun(tmp_path / "a")
    stages = ("records", "plan", "train", "evaluate", "report")
    assert [run.stage_done(stage) for stage in stages] == [False, True, False, False, False]

    def line():
        (one,) = list_runs(tmp_path)
        return one

    assert (line().name, line().model, line().rows, line().steps) == ("a", "embedded", 9, 4)
    assert line().status == "planned"
    log = EventLog(run.events)
    log.emit("train.start", steps=4)
    assert line().status == "failed"
    with run.lock():
        assert line().status == "training"
    run.adapter.mkdir()
    assert not run.stage_done("train")
    log.emit("train.done", steps=4)
    assert line().status == "trained"
    assert run.stage_done("train")
    log.emit("train.start", steps=8)
    assert not run.stage_done("train")
    log.emit("train.done", steps=8)
    run.evaluation.mkdir()
    (run.evaluation / "results.json").write_text('{"verdict": {"outcome": "better"}}')
    assert (line().status, line().verdict) == ("evaluated", "better")
    run.records.mkdir()
    (run.records / "report.json").write_text("{}")
    run.report.write_text("<p>")
    assert all(run.stage_done(stage) for stage in stages)


def test_broken_files_and_strangers_do_not_break_the_list(tmp_path):
    (tmp_path / "not-a-run").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "recipe.yaml").write_text("")
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / "plan.json").write_text("{")
    os.utime(tmp_path / "half", (1, 1))
    os.utime(tmp_path / "half" / "recipe.yaml", (1, 1))
    found = {line.name: line for line in list_runs(tmp_path)}
    assert list(found) == ["spoilt", "half"]
    assert found["half"].status == "failed"
    assert found["spoilt"].model is None

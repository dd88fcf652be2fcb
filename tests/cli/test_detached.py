"""A run in the background outlives its terminal, is looked at, stopped and gone on with."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import QUICK, Weitiao, one_sentence
from weitiao.cli import detached
from weitiao.events import read_events
from weitiao.runs import Owner, Run, owner, write_owner

ENDLESS = ("epochs=1000", "train.batch_size=1", "eval_every=99999", "save_every=99999", *QUICK[4:])
"""49,000 steps; none is saved before it is asked to stop."""

# Begins the run of its argument in the background, and stays until it is hung up on.
TERMINAL = """
import sys, time
from pathlib import Path
from weitiao.cli.detached import begin
from weitiao.cli.screen import screen
from weitiao.cli.view import View
from weitiao.runs import Run
begin(View(screen()), Run(Path(sys.argv[1])), "train", resume=False)
print("begun", flush=True)
time.sleep(600)
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="--detach is not for Windows")


def told(run: Run) -> str:
    return run.log.read_text(encoding="utf-8") if run.log.exists() else ""


def wait_until(run: Run, true: Callable[[], bool], seconds: float = 240) -> None:
    """Wait for what a run in the background is to come to."""
    until = time.monotonic() + seconds
    while not true():
        assert run.worked_on(), told(run)
        assert time.monotonic() < until, told(run)
        time.sleep(0.05)


def steps(run: Run) -> int:
    return run.events.read_text().count('"train.step"') if run.events.exists() else 0


def hung_up_on(run: Run) -> None:
    """Begin ``run`` from a terminal, and lose the terminal."""
    terminal = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, str(run.path)],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert terminal.stdout is not None
    assert any(line == "begun\n" for line in terminal.stdout)
    os.killpg(terminal.pid, signal.SIGHUP)
    assert terminal.wait(10) == -signal.SIGHUP


def test_a_training_outlives_its_terminal_and_is_stopped_and_gone_on_with(
    weitiao: Weitiao, data: Path, tiny_base: Path
) -> None:
    assert weitiao("plan", data, "--model", tiny_base, *ENDLESS).code == 0
    run = Run(Path("runs/tea"))
    hung_up_on(run)
    worker = run.worker()
    assert worker is not None
    follower = None
    try:
        wait_until(run, lambda: steps(run) > 3)
        process = worker.process()
        assert os.getsid(process.pid) == process.pid
        assert "training" in weitiao("runs").out
        assert f"process {worker.pid}" in one_sentence(weitiao("train", "tea", "--detach"))
        follower = subprocess.Popen(
            [sys.executable, "-m", "weitiao.cli", "logs", "tea", "-f"],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        stopped = weitiao("stop", "tea")
        assert stopped.code == 0, stopped.err
        ((step, _),) = run.checkpoints()
        assert f"saved up to step {step} of 49000" in stopped.out
        assert "weitiao train runs/tea --resume --detach" in stopped.out
        assert worker.process() is None
        followed, _ = follower.communicate(timeout=120)
        assert follower.returncode == 0, "it ends with the run"
        assert followed == told(run)
        assert "Asked to stop: it stops after this step" in followed
        assert f"stopped after step {step} of 49000, which is saved" in followed
        assert "Ctrl-C" not in followed, "no key can be pressed there"
        assert "broken off" in weitiao("runs").out

        again = weitiao("train", "tea", "--resume", "--detach")
        assert again.code == 0, again.err
        for command in ("logs runs/tea -f", "weitiao runs", "stop runs/tea"):
            assert command in again.out
        wait_until(run, lambda: f"Going on after step {step}." in told(run))
        worker = run.worker()
        assert worker is not None
        killed = weitiao("stop", "tea", "--now")
        assert f"saved up to step {step} of 49000" in killed.out
        assert not run.worked_on(), "not even as a process that its parent has not collected"
    finally:
        for process in (worker.process(), follower):
            if process is not None:
                process.kill()


def test_a_training_whose_terminal_is_lost_saves_and_stops(
    weitiao: Weitiao, data: Path, tiny_base: Path
) -> None:
    assert weitiao("plan", data, "--model", tiny_base, *ENDLESS).code == 0
    run = Run(Path("runs/tea"))
    # A terminal of its own, which goes when the process that holds its other end is killed.
    line = [sys.executable, "-m", "weitiao.cli", "train", str(run.path)]
    terminal = subprocess.Popen(
        [sys.executable, "-c", f"import pty; pty.spawn({line!r})"], stdout=subprocess.DEVNULL
    )
    worker = None
    try:
        until = time.monotonic() + 240
        while steps(run) <= 3 and time.monotonic() < until:
            time.sleep(0.05)
        worker = run.worker()
        assert worker is not None
        terminal.kill()
        while run.worked_on() and time.monotonic() < until:
            time.sleep(0.05)
        ((step, _),) = run.checkpoints()
        told = [event.kind for event in read_events(run.events)]
        assert told[-1] == "train.checkpoint"
        assert told.count("train.step") == step
        assert told.count("train.stopping") == 1
    finally:
        terminal.kill()
        terminal.wait()
        if worker is not None and (process := worker.process()) is not None:
            process.kill()


def test_mistakes_are_told_at_once(weitiao: Weitiao, data: Path, tiny_base: Path) -> None:
    assert "missing.json" in one_sentence(weitiao("run", "missing.json", "--detach"))
    assert "epoch" in one_sentence(weitiao("run", data, "--detach", "epoch=three"))
    assert "no-such-model" in one_sentence(
        weitiao("train", data, "--detach", "--model", "./no-such-model")
    )
    assert not Path("runs").exists()
    assert "--detach" in one_sentence(weitiao("plan", data, "--detach"))


def test_a_broken_off_training_is_not_gone_on_with_unasked(
    weitiao: Weitiao, tmp_path: Path
) -> None:
    run = a_run(tmp_path)
    run.checkpoint(4).mkdir(parents=True)
    with pytest.raises(Exception, match="broken off after step 4"):
        run.require_resumable(False)
    run.require_resumable(True)


def a_run(home: Path) -> Run:
    run = Run(home / "runs" / "tea")
    run.path.mkdir(parents=True)
    run.recipe.write_text("")
    return run


def test_a_process_of_the_same_number_is_never_signalled(weitiao: Weitiao, tmp_path: Path) -> None:
    run = a_run(tmp_path)
    me = owner(os.getpid(), "train")
    write_owner(run.process, Owner(me.pid, me.started - 100, me.host, "train"))
    assert "Nothing is running" in weitiao("stop", "tea").out
    assert weitiao("stop", "tea", "--now").code == 0
    write_owner(run.process, me)
    assert run.worker() == me
    assert "running" in weitiao("runs").out


def test_another_computers_process_is_not_stopped_from_here(
    weitiao: Weitiao, tmp_path: Path
) -> None:
    run = a_run(tmp_path)
    theirs = {"pid": os.getpid(), "started": 1.0, "host": "elsewhere"}
    (run.path / ".lock").write_text(json.dumps(theirs))
    assert "computer elsewhere" in one_sentence(weitiao("stop", "tea"))
    # What was begun there and has ended since cannot be told from what goes on.
    (run.path / ".lock").rename(run.process)
    assert "Nothing is running" in weitiao("stop", "tea").out


def test_logs_of_a_run_without_one(weitiao: Weitiao, tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert "--detach" in one_sentence(weitiao("logs", "tea"))
    run.log.write_bytes("第一步\x1b[2J\n".encode() + "损".encode()[:2])
    assert re.fullmatch("第一步\\[2J\n", weitiao("logs", "tea", "-f").out)


def test_windows_is_told_so(
    weitiao: Weitiao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(tmp_path)
    monkeypatch.setattr(detached, "os", SimpleNamespace(name="nt"))
    assert "Windows" in one_sentence(weitiao("stop", "tea"))

"""``weitiao train`` with several processes: one command starts them, shows and ends them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conftest import QUICK, Weitiao
from weitiao.runs import Run

LONGER = ("train.processes=2", "max_steps=12", "eval_every=4", "save_every=4", *QUICK[3:])


def adapter(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def steps(run: Path) -> list[int]:
    if not (run / "events.jsonl").exists():
        return []
    told = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event["step"] for event in told if event["kind"] == "train.step"]


@pytest.mark.parametrize(("strategy", "printing"), [("ddp", (1,)), ("fsdp", (0, 1))])
def test_one_command_trains_in_two_processes(
    weitiao: Weitiao,
    data: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    printing: tuple[int, ...],
) -> None:
    """With ddp, on a processor of two cores, the second one is forked from the first."""
    monkeypatch.setattr("weitiao.plan.machine.usable_cores", lambda: 2)
    settings = ("train.processes=2", f"train.strategy={strategy}", *QUICK)
    said = weitiao("train", data, "--model", tiny_base, *settings)
    assert said.code == 0, said.err
    run = Run(data.parent / "runs" / "tea")
    assert steps(run.path) == [1, 2, 3, 4]
    assert run.stage_done("train")
    assert "4/4" in said.out
    assert not run.worked_on()
    for rank in printing:
        assert (run.path / "processes" / f"process-{rank}.txt").is_file()
    # What torchrun starts must find a run that one process has planned.
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "no planned run" in weitiao("train", data, "--model", tiny_base, *settings).err


@pytest.mark.slow
@pytest.mark.parametrize("how", ["member", "parent", "asked"])
def test_a_team_that_is_killed_goes_on_to_the_same_bytes(
    weitiao: Weitiao, data: Path, tiny_base: Path, how: str
) -> None:
    home = data.parent
    line = ["train", str(data), "--model", str(tiny_base), *LONGER]
    assert weitiao(*line, "--out", home / "whole").code == 0
    started = psutil.Popen(
        [sys.executable, "-m", "weitiao.cli", *line, "--out", str(home / "killed")],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "WEITIAO_LANG": "en"},
    )
    until = time.monotonic() + 300
    while max(steps(home / "killed"), default=0) < 6 and time.monotonic() < until:
        time.sleep(0.01)
    members = started.children()
    if how == "asked":
        started.send_signal(signal.SIGTERM)
    else:
        (started if how == "parent" else members[-1]).kill()
    said = started.communicate()[1]
    if how == "asked":
        assert started.returncode == 3
        assert "asked to stop" in said
    elif how == "member":
        assert started.returncode == 3
        assert "ended unexpectedly" in said
    psutil.wait_procs(members, timeout=60)
    assert not any(member.is_running() for member in members)
    done = weitiao("train", home / "killed", "--resume")
    assert done.code == 0, done.err
    assert adapter(home / "killed") == adapter(home / "whole")
    assert set(steps(home / "killed")) == set(range(1, 13))

"""Forks of one process end with what one ends with, go on, stop and fail together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from small_work import events, weights, work

from weitiao.errors import TrainingError
from weitiao.events import Event, EventLog
from weitiao.runs import Run
from weitiao.training.forked import in_forks, train_forked
from weitiao.training.loop import train
from weitiao.training.memory import own_bytes
from weitiao.training.team import Team

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux")

STILL = ("train.lora.dropout=0", "micro_batch_tokens=60", "learning_rate=0.001")
NOISY = ("train.lora.dropout=0.2", "micro_batch_tokens=60", "precision=bf16")


def forked(
    folder: Path, *overrides: str, look: Callable[[Event], None] | None = None, processes: int = 2
) -> Run:
    made = work(folder, *overrides, plan={"processes": processes})
    if look is not None:
        made = replace(made, events=EventLog(made.run.events, (look,)))
    train_forked(made)
    return made.run


def tensors(run: Run) -> torch.Tensor:
    found = load_file(next(run.adapter.glob("*.safetensors")))
    return torch.cat([found[name].flatten() for name in sorted(found)])


@pytest.mark.parametrize("processes", [2, 3])
def test_forks_end_with_the_weights_of_one_process(tmp_path: Path, processes: int) -> None:
    alone = work(tmp_path / "alone", *STILL)
    train(alone)
    run = forked(tmp_path / "forked", *STILL, processes=processes)
    expected = tensors(alone.run)
    assert (tensors(run) - expected).norm() < 1e-5 * expected.norm()
    for ours, theirs in zip(
        events(run, "train.step"), events(alone.run, "train.step"), strict=True
    ):
        assert ours.data["loss"] == pytest.approx(theirs.data["loss"], abs=2e-5)
        assert ours.data["grad_norm"] == pytest.approx(theirs.data["grad_norm"], rel=1e-3)
        assert ours.data["tokens"] == theirs.data["tokens"]


def test_the_same_recipe_gives_the_same_bytes_though_one_run_was_killed(tmp_path: Path) -> None:
    whole = forked(tmp_path / "whole", *NOISY)

    class Killed(BaseException):
        """Stands for kill -9: nothing of ours may catch it."""

    def kill(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        forked(tmp_path / "killed", *NOISY, look=kill)
    run = forked(tmp_path / "killed", *NOISY)
    assert [e.data["step"] for e in events(run, "train.resumed")] == [2]
    assert weights(run) == weights(whole)


def test_asked_to_stop_all_stop_at_that_step(tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError, match="after step 2 of 6"):
        forked(tmp_path / "run", *STILL, look=stop)
    assert Run(tmp_path / "run").checkpoints()[-1][0] == 2
    assert not psutil.Process().children()


def test_one_that_ends_without_a_word_is_named(tmp_path: Path) -> None:
    def part(team: Team) -> int:
        if not team.leads:
            raise ValueError("the other one's last words")
        team.wait()
        return 0

    with pytest.raises(TrainingError, match=r"rocess 1 .*process-1\.txt"):
        in_forks(2, tmp_path, part)
    assert "last words" in (tmp_path / "process-1.txt").read_text()
    assert not psutil.Process().children()
    assert torch.get_num_threads() >= 1


def test_what_the_leader_raises_goes_up_and_ends_the_others(tmp_path: Path) -> None:
    def part(team: Team) -> None:
        if team.leads:
            raise KeyError("the leader's own")
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(KeyError):
        in_forks(2, tmp_path, part)
    assert time.monotonic() - began < 20
    assert not psutil.Process().children()


def test_threads_are_given_back(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert in_forks(2, tmp_path, lambda team: torch.get_num_threads()) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_memory_is_that_of_all_and_what_they_share_counts_once(tmp_path: Path) -> None:
    given = torch.ones(30_000_000)  # 120 MB, held before the fork

    def part(team: Team) -> list[int]:
        own = torch.full((10_000_000,), float(team.rank))  # 40 MB of each one's own
        held = own_bytes() - team.born_bytes if team.born_bytes else 0
        assert own[0] + given[0] > 0
        return team.gather(held)

    leader, other = in_forks(2, tmp_path, part)
    assert leader == 0
    assert 40e6 < other < 80e6


def test_the_others_die_with_a_killed_leader(tmp_path: Path) -> None:
    script = (
        "import time, sys; from pathlib import Path\n"
        "from weitiao.training.forked import in_forks\n"
        "def part(team):\n"
        "    Path(sys.argv[1], str(team.rank)).touch()\n"
        "    time.sleep(60)\n"
        "in_forks(2, Path(sys.argv[1]), part)\n"
    )
    leader = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    until = time.monotonic() + 60
    while not (tmp_path / "1").exists() and time.monotonic() < until:
        time.sleep(0.05)
    (other,) = psutil.Process(leader.pid).children()
    leader.kill()
    leader.wait()
    other.wait(10)
    assert not other.is_running()


def test_the_peak_counts_all_processes(tmp_path: Path) -> None:
    alone = work(tmp_path / "alone", *STILL)
    train(alone)
    run = forked(tmp_path / "forked", *STILL)
    ours, theirs = (events(r, "train.done")[0].data for r in (run, alone.run))
    assert ours["peak_memory_bytes"] > theirs["peak_memory_bytes"]

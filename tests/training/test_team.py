"""Several processes end with what one ends with, and go on, stop and fail together."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_work import LENGTHS, SAMPLES, events, weights, work
from team_member import do, job

from weitiao.errors import TrainingError
from weitiao.events import Event, EventLog
from weitiao.plan.plan import Plan
from weitiao.runs import Run
from weitiao.training import step
from weitiao.training.launch import launch, lowered, retold, train_as_team
from weitiao.training.loop import train
from weitiao.training.team import Team, allot, join, row_cost
from weitiao.training.work import begin

STILL = ("train.lora.dropout=0", "micro_batch_tokens=60", "learning_rate=0.001")
NOISY = ("train.lora.dropout=0.2", "micro_batch_tokens=60", "precision=bf16")
EXACT = [(strategy, method) for strategy in ("ddp", "fsdp") for method in ("lora", "full")]
RESUMED = {"ddp": NOISY, "fsdp": ("method=full", "micro_batch_tokens=60")}


def jobs_in(home: Path) -> list[dict[str, Any]]:
    jobs = [job(home / f"{s}-{m}", s, *STILL, f"method={m}") for s, m in EXACT]
    layers = ("method=full", "gradient_checkpointing=full")
    jobs.append(job(home / "layers", "fsdp", *STILL, *layers))
    for strategy, overrides in RESUMED.items():
        killed = home / f"killed-{strategy}"
        jobs += [
            job(home / f"whole-{strategy}", strategy, *overrides),
            job(killed, strategy, *overrides, happens=(0, 3, "killed")),
            job(killed, strategy, *overrides),
        ]
    return [
        *jobs,
        job(home / "stopped", "ddp", *NOISY, happens=(1, 2, "stopped")),
        job(home / "short", "ddp", *STILL, happens=(1, 2, "short")),
        job(home / "nan", "ddp", *STILL, happens=(1, 2, "nan")),
        job(home / "too-short", "fsdp", *STILL, happens=(1, 2, "short")),
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have done all jobs."""
    home = tmp_path_factory.mktemp("team")
    # The last job ends one process in the midst of a step that the other waits in.
    with pytest.raises(TrainingError, match="ran out of memory with micro-batches of 60"):
        do(home, jobs_in(home))
    return home


def tensors(run: Run) -> torch.Tensor:
    folder = run.adapter if run.adapter.exists() else run.model
    found = load_file(next(folder.glob("*.safetensors")))
    return torch.cat([found[name].flatten() for name in sorted(found)])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[torch.Tensor, list[Event]]]:
    found = {}
    for method in ("lora", "full"):
        made = work(tmp_path_factory.mktemp(method) / "run", *STILL, f"method={method}")
        train(made)
        found[method] = tensors(made.run), events(made.run, "train.step")
    return found


@pytest.mark.parametrize(("strategy", "method"), [*EXACT, ("layers", "full")])
def test_two_processes_end_with_the_weights_of_one(
    home: Path, alone: Any, strategy: str, method: str
) -> None:
    name = strategy if strategy == "layers" else f"{strategy}-{method}"
    run, (expected, steps) = Run(home / name), alone[method]
    assert (tensors(run) - expected).norm() < 1e-5 * expected.norm()
    told = events(run, "train.step")
    assert [e.data["loss"] for e in told] == pytest.approx(
        [e.data["loss"] for e in steps], abs=2e-5
    )
    for ours, theirs in zip(told, steps, strict=True):
        assert ours.data["grad_norm"] == pytest.approx(theirs.data["grad_norm"], rel=1e-3)
        assert ours.data["grad_norm"] > 0
        for counted in ("tokens", "scored_tokens"):
            assert ours.data[counted] == theirs.data[counted]


@pytest.mark.parametrize("strategy", RESUMED)
def test_a_killed_team_resumes_to_the_same_bytes(home: Path, strategy: str) -> None:
    whole, killed = Run(home / f"whole-{strategy}"), Run(home / f"killed-{strategy}")
    assert weights(killed) == weights(whole)
    assert [e.data["step"] for e in events(killed, "train.resumed")] == [2]


def test_another_number_of_processes_does_not_go_on(home: Path) -> None:
    folder = home / "whole-ddp"
    with pytest.raises(TrainingError, match="processes: 2 → 1"):
        train(work(folder, *NOISY))


def test_asked_to_stop_in_one_process_all_stop_at_that_step(home: Path) -> None:
    said = [(home / "stopped" / f"error-{rank}.txt").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    stopped_at = Run(home / "stopped").checkpoints()[-1][0]
    assert f"after step {stopped_at} of 6" in said[0]
    assert 2 <= stopped_at < 6


def test_short_of_memory_in_one_process_all_repeat_the_step(home: Path, alone: Any) -> None:
    run, (expected, _) = Run(home / "short"), alone["lora"]
    assert [e.data["step"] for e in events(run, "train.shrunk")] == [3]
    assert [e.data["step"] for e in events(run, "train.step")] == [1, 2, 3, 4, 5, 6]
    assert (tensors(run) - expected).norm() < 1e-5 * expected.norm()


def test_a_loss_that_is_no_number_in_one_process_is_told_by_all(home: Path) -> None:
    said = [(home / "nan" / f"error-{rank}.txt").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "loss of step 3 is not a number, in the rows rows.jsonl:" in said[0]
    assert Run(home / "nan").checkpoints()[-1][0] == 2


def test_dropout_differs_from_process_to_process(tmp_path: Path) -> None:
    engine = begin(work(tmp_path, team=Team(1, 2)))
    step._backward(engine, 4, 0, engine.cut(SAMPLES, [0])[0], 1)
    assert torch.initial_seed() == step.seed_of(engine.work.plan.seed, 4, 0, 1)
    assert step.seed_of(1, 2, 3, 0) != step.seed_of(1, 2, 3, 1)


def test_one_process_alone_is_a_team(tmp_path: Path) -> None:
    with join(Plan.model_construct(processes=1)) as team:
        assert team == Team()
    assert team.gather("a") == ["a"]
    assert team.least(3) == 3


def test_as_many_processes_as_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(TrainingError, match="planned for 4 processes, but 2"),
        join(Plan.model_construct(processes=4)),
    ):
        pass


@given(
    st.lists(st.floats(0.1, 100), max_size=40),
    st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_rows_are_dealt_out_once_and_evenly(costs: list[float], parts: int) -> None:
    dealt = allot(costs, parts)
    assert sorted(i for part in dealt for i in part) == list(range(len(costs)))
    assert all(part == sorted(part) for part in dealt)
    sums = [sum(costs[i] for i in part) for part in dealt]
    # A part was the cheapest when it was given its last row.
    assert max(sums) <= sum(costs) / parts + max(costs, default=0) + 1e-6
    assert dealt == allot(costs, parts)


def test_shares_are_balanced_by_cost_not_by_rows(tmp_path: Path) -> None:
    engine = begin(work(tmp_path, team=Team(0, 3)))
    shape = engine.work.plan.shape
    chosen = list(range(len(SAMPLES)))
    shares = engine.shares(SAMPLES, chosen)
    assert sorted(i for share in shares for i in share) == chosen
    costs = [row_cost(shape, LENGTHS[i], int(SAMPLES[i].scored.sum())) for i in chosen]
    sums = [sum(costs[i] for i in share) for share in shares]
    assert max(sums) < 1.1 * np.mean(sums)
    assert row_cost(shape, 20, 5) < row_cost(shape, 20, 6) < row_cost(shape, 21, 6)


def launched(tmp_path: Path, code: str, processes: int = 2) -> None:
    command = [sys.executable, "-c", code, str(tmp_path)]
    launch(command, processes, tmp_path / "logs", lambda: None)


def test_fewer_gpus_than_processes_are_told_before_any_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = work(tmp_path)
    plan = made.plan.model_copy(update={"device": "cuda", "processes": 2})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("weitiao.training.launch.launch", lambda *_: pytest.fail("started"))
    with pytest.raises(TrainingError, match=r"2 processes were asked for.* has 1 GPU"):
        train_as_team(made.run, plan)


MEMBER = """
import os, sys, time
from pathlib import Path
from weitiao.errors import RunError
from weitiao.training.launch import member_of_team
here, rank = Path(sys.argv[1]), os.environ["RANK"]
(here / f"pid-{rank}").write_text(str(os.getpid()))
"""


def test_what_one_process_raises_is_raised_and_no_process_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weitiao.training.launch.GRACE", 0.5)
    code = """
with member_of_team():
    if rank == "1":
        raise RunError("error.run_in_use", path="tea", pid=7)
    time.sleep(600)
"""
    with pytest.raises(Exception, match="7") as caught:
        launched(tmp_path, MEMBER + code)
    assert caught.value.key == "error.run_in_use"
    assert not any(psutil.pid_exists(int(f.read_text())) for f in tmp_path.glob("pid-*"))


def test_a_process_that_ends_without_a_word_is_told_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weitiao.training.launch.GRACE", 0.5)
    code = "import os; print('last words', flush=True); os.environ['RANK'] == '0' and os._exit(7)"
    with pytest.raises(TrainingError, match=r"code 7.*process-0\.txt"):
        launched(tmp_path, code)
    assert "last words" in (tmp_path / "logs" / "process-0.txt").read_text()


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    code = MEMBER + "with member_of_team():\n    time.sleep(600)\n"
    parent = f"""
import sys
from pathlib import Path
from weitiao.training.launch import launch
launch([sys.executable, "-c", {code!r}, sys.argv[1]], 2, Path(sys.argv[1]) / "logs", lambda: None)
"""
    started = psutil.Popen([sys.executable, "-c", parent, str(tmp_path)])
    wait_for(lambda: len([f for f in tmp_path.glob("pid-*") if f.read_text()]) == 2)
    children = started.children()
    assert len(children) == 2
    started.kill()
    started.wait()
    wait_for(lambda: not any(child.is_running() for child in children))


def wait_for(what: Any, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.1)
    assert what()


def test_events_of_the_leader_are_told_once_and_whole(tmp_path: Path) -> None:
    path, told = tmp_path / "events.jsonl", []
    EventLog(path).emit("train.start", steps=2)
    look = retold(path, [told.append])
    look()
    EventLog(path).emit("train.step", step=1)
    with path.open("a") as half:
        half.write('{"kind": "train.step", "time": 1, ')
    look()
    with path.open("a") as half:
        half.write('"step": 2}\n')
    look()
    look()
    assert [(event.kind, event.data) for event in told] == [
        ("train.step", {"step": 1}),
        ("train.step", {"step": 2}),
    ]


def test_a_team_short_of_memory_begins_anew_with_smaller_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the weights are spread out, the others cannot repeat a step."""
    made = work(tmp_path, "micro_batch_tokens=60")
    begun, told = [], []

    def short_once(command: list[str], processes: int, logs: Path, look: Any, more: Any) -> None:
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        begun.append(lowered(made.plan).micro_batch_tokens)
        if len(begun) == 1:
            raise TrainingError("error.team_memory", rank=1, tokens=60)
        look()

    monkeypatch.setattr("weitiao.training.launch.launch", short_once)
    train_as_team(made.run, made.plan, [told.append])
    assert begun == [60, 30]
    assert [(e.kind, e.data) for e in told] == [("train.shrunk", {"micro_batch_tokens": 30})]

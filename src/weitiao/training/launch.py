"""Starting a team of processes on this computer, and seeing to it that none is left behind.

What torchrun does for several computers, this does for one without being asked: each process
is told its place in the words that torchrun uses, so that either can start them. A process
that fails is followed by all others, and its error is raised here.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from weitiao import errors
from weitiao.errors import TrainingError, WeitiaoError
from weitiao.events import Event, EventLog, Listener
from weitiao.plan.machine import usable_cores
from weitiao.plan.plan import Plan
from weitiao.runs import Run
from weitiao.training.interrupt import Stop, stop_requested
from weitiao.words import language

_LOOK_EVERY = 0.1
"""Seconds between two looks at the processes and at what they have told."""

GRACE = 15.0
"""Seconds in which the others may end by themselves after one has failed."""

_ERRORS = "WEITIAO_TEAM_ERRORS"
"""The folder in which a process leaves what a user must know."""

_TOKENS = "WEITIAO_TEAM_TOKENS"
"""The most tokens of a micro-batch, where memory was too short for what the plan says."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A process of the team and the file that holds what it printed."""

    rank: int
    process: "subprocess.Popen[bytes]"
    log: Path


def in_team() -> bool:
    """Return whether this process was started as one of several, by us or by torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def train_as_team(run: Run, plan: Plan, listeners: Sequence[Listener] = ()) -> None:
    """Train ``run``, or go on with it, in the plan's processes; tell ``listeners`` its events.

    Where the weights are spread out and one process is short of memory, the others cannot
    repeat a step with it. All begin anew at the last checkpoint then, with smaller
    micro-batches.

    Raises:
        TrainingError: there are fewer GPUs than processes on this computer.
        WeitiaoError: what one of the processes raised.
    """
    gpus = torch.cuda.device_count()
    if plan.device == "cuda" and plan.processes > gpus:
        raise TrainingError("error.team_gpus", processes=plan.processes, gpus=gpus)
    # -P: what lies in the working directory must not be taken for a library.
    command = [sys.executable, "-P", "-m", "weitiao.cli", "train", str(run.path), "--resume"]
    look, tokens = retold(run.events, listeners), plan.micro_batch_tokens
    while True:
        settings = {_TOKENS: str(tokens), "PYTHONIOENCODING": "utf-8", "WEITIAO_LANG": language()}
        try:
            launch(command, plan.processes, run.path / "processes", look, settings)
            return
        except TrainingError as error:
            if error.key != "error.team_memory":
                raise
            tokens = int(str(error.values["tokens"])) // 2
        EventLog(run.events).emit("train.shrunk", micro_batch_tokens=tokens)


def lowered(plan: Plan) -> Plan:
    """Return ``plan`` with the smaller micro-batches that this process was started with."""
    tokens = min(plan.micro_batch_tokens, int(os.environ.get(_TOKENS, plan.micro_batch_tokens)))
    return plan.model_copy(update={"micro_batch_tokens": tokens})


def launch(
    command: Sequence[str],
    processes: int,
    logs: Path,
    look: Callable[[], object],
    settings: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run ``command`` in ``processes`` processes until all have ended.

    ``look`` is called some times a second. What the processes print goes to ``logs``, a file
    each; ``settings`` are put into their environment. A request to stop is passed on to them;
    they end when this process does.

    Raises:
        WeitiaoError: what one of the processes raised.
        TrainingError: one ended without saying why.
    """
    # The processes find each other here. The port is taken before any of them needs it.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    logs.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="weitiao-") as left,
        stop_requested(lambda: None) as stop,
    ):
        places = _places(processes, store.port)
        shared = {**os.environ, **settings, **places, _ERRORS: left}
        members: list[Member] = []
        try:
            for rank in range(processes):
                members.append(_start(command, rank, logs / f"process-{rank}.txt", shared))
            failed = _wait(members, stop, look)
        finally:
            _end(members)
        look()
        if failed is not None:
            raise _reason(members, failed, Path(left), stop)


def _places(processes: int, port: int) -> dict[str, str]:
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // processes))
    settings = {
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # The store is ours; no process needs to open one at that port.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": threads,
    }
    if sys.platform == "linux":
        # A laptop's own name may lead nowhere; all processes are on this computer.
        settings["GLOO_SOCKET_IFNAME"] = "lo"
    return settings


def _start(command: Sequence[str], rank: int, log: Path, shared: dict[str, str]) -> Member:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            # Its end is how a process notices that this one is gone, killed or not.
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches this process alone, which passes it on.
            start_new_session=True,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
    return Member(rank, process, log)


def _wait(members: Sequence[Member], stop: Stop, look: Callable[[], object]) -> Member | None:
    """Wait until all have ended; return the first that failed."""
    failed: Member | None = None
    until, passed_on = float("inf"), False
    while any(member.process.poll() is None for member in members) and time.monotonic() < until:
        if stop.asked and not passed_on:
            passed_on = True
            for member in members:
                member.process.terminate()
        if failed is None and (failed := _first_failed(members)) is not None:
            until = time.monotonic() + GRACE
        look()
        time.sleep(_LOOK_EVERY)
    return failed or _first_failed(members)


def _first_failed(members: Sequence[Member]) -> Member | None:
    return next((member for member in members if member.process.poll()), None)


def _end(members: Sequence[Member]) -> None:
    for member in members:
        if member.process.poll() is None:
            member.process.kill()
        member.process.wait()
        if member.process.stdin is not None:
            member.process.stdin.close()


def _reason(
    members: Sequence[Member], failed: Member, left: Path, stop: Stop
) -> WeitiaoError | KeyboardInterrupt:
    """Return what the team ended for: what a process has said, or that one said nothing."""
    for member in (failed, *members):
        with contextlib.suppress(OSError, ValueError):
            said = json.loads((left / f"{member.rank}.json").read_text(encoding="utf-8"))
            kind: type[WeitiaoError] = getattr(errors, said["kind"])
            return kind(said["key"], **said["values"])
    if stop.asked:
        return KeyboardInterrupt()
    code = failed.process.returncode
    return TrainingError("error.team_crashed", rank=failed.rank, code=code, log=failed.log)


@contextlib.contextmanager
def member_of_team() -> Iterator[None]:
    """Leave a user's error where :func:`launch` finds it; end when that process does.

    Nothing is done in a process that something else started.
    """
    left = os.environ.get(_ERRORS)
    if left is None:
        yield
        return
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        yield
    except WeitiaoError as error:
        said = {"kind": type(error).__name__, "key": error.key, "values": error.values}
        path = Path(left) / f"{os.environ['RANK']}.json"
        path.write_text(json.dumps(said, default=str), encoding="utf-8")
        raise


def _end_with_parent() -> None:
    """Wait for the end of the pipe that the parent holds, then end at once.

    The run's lock died with the parent: nothing may be written any more.
    """
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


def retold(path: Path, listeners: Sequence[Listener]) -> Callable[[], None]:
    """Return what tells ``listeners`` the events written to ``path`` since it was last called."""
    position = path.stat().st_size if path.exists() else 0

    def look() -> None:
        nonlocal position
        if not path.exists():
            return
        with path.open("rb") as lines:
            lines.seek(position)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                position += len(line)
                told = json.loads(line)
                event = Event(told.pop("kind"), told.pop("time"), told)
                for listener in listeners:
                    listener(event)

    return look

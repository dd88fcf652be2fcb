"""Several processes on one CPU, made from this one: each core computes rows of its own.

Most of what a step on short rows does is too small to be shared out among cores. A fork has
the same weights and is there at once.
"""

import ctypes
import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist

from weitiao.errors import TrainingError
from weitiao.events import EventLog
from weitiao.plan.plan import Plan
from weitiao.training.checkpoint import Progress
from weitiao.training.loop import train
from weitiao.training.memory import own_bytes
from weitiao.training.team import PATIENCE, Team
from weitiao.training.work import Work

Result = TypeVar("Result")

_DIE_WITH_PARENT = 1
"""``PR_SET_PDEATHSIG`` of Linux's prctl."""


def may_fork(plan: Plan) -> bool:
    """Return whether the processes of ``plan``, made here or elsewhere, are made by fork."""
    return plan.forked and sys.platform == "linux"


def train_forked(work: Work) -> Progress:
    """Do as :func:`weitiao.training.loop.train` does, in the plan's processes.

    Raises:
        TrainingError: as there, or one of the others ended without saying why.
    """

    def part(team: Team) -> Progress:
        return train(replace(work, team=team, events=work.events if team.leads else EventLog()))

    return in_forks(work.plan.processes, work.run.path / "processes", part)


def in_forks(size: int, logs: Path, do: Callable[[Team], Result]) -> Result:
    """Call ``do`` in ``size`` processes of one thread each; return what it returns in this one.

    This one leads them; they end with it, and nothing of theirs stays. What they print goes to
    ``logs``, a file each.

    Raises:
        TrainingError: one of the others ended without saying why.
    """
    threads = torch.get_num_threads()
    logs.mkdir(parents=True, exist_ok=True)
    gc.collect()
    gc.freeze()  # what the collector leaves alone stays shared
    # What was freed is given back: a fork that used it again would copy it, and nobody count it.
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    others: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="weitiao-") as folder:
        meeting = Path(folder) / "meeting"
        try:
            for rank in range(1, size):
                others[rank] = _fork(rank, size, meeting, _log(logs, rank), do)
            return _joined(0, size, meeting, do)
        except RuntimeError as cause:
            # Who waits in vain for another process is told so in a library's words.
            for rank, pid in others.items():
                if code := _ended_with(pid):
                    told = {"rank": rank, "code": code, "log": _log(logs, rank)}
                    raise TrainingError("error.team_crashed", **told) from cause
            raise
        finally:
            for pid in others.values():
                with suppress(ProcessLookupError, ChildProcessError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
            if dist.is_initialized():
                dist.destroy_process_group()
            torch.set_num_threads(threads)
            gc.unfreeze()


def _log(logs: Path, rank: int) -> Path:
    return logs / f"process-{rank}.txt"


def _joined(rank: int, size: int, meeting: Path, do: Callable[[Team], Result]) -> Result:
    born = own_bytes() if rank else 0
    torch.set_num_threads(1)
    # A laptop's own name may lead nowhere; all processes are on this computer.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=PATIENCE
    )
    return do(Team(rank, size, forked=True, born_bytes=born))


def _fork(rank: int, size: int, meeting: Path, log: Path, do: Callable[[Team], object]) -> int:
    """Return the number of a new process that does its part."""
    parent = os.getpid()
    return os.fork() or _follow(parent, rank, size, meeting, log, do)


def _follow(
    parent: int, rank: int, size: int, meeting: Path, log: Path, do: Callable[[Team], object]
) -> NoReturn:
    """Do the part of ``rank`` and end; nothing may return into the parent's calls."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        with log.open("wb") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        if os.getppid() == parent:
            _joined(rank, size, meeting, do)
        code = 0
    except BaseException:
        # What a user must know the leader says: they all look at what all of them did.
        log.write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        # Not the parent's way out: its files would be flushed twice, its folders removed.
        os._exit(code)


def _ended_with(pid: int) -> int | None:
    """Return what a process ended with, waiting for a moment; None where it goes on."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        # Left to be collected: until then no other process can have its number.
        if found := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        time.sleep(0.02)
    return None

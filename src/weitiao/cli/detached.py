"""A run in the background: begun so that it outlives the terminal, looked at, and stopped."""

import codecs
import os
import subprocess
import sys
import time

from rich.console import Console
from rich.text import Text

from weitiao.cli import tables
from weitiao.cli.screen import clean, verbatim
from weitiao.cli.view import View
from weitiao.errors import RunError
from weitiao.records.files import write_error
from weitiao.runs import Owner, Run, Stage, owner, write_owner
from weitiao.words import language, say

_LOOK_EVERY = 0.3
"""Seconds between two looks at the log, or at whether a process has ended."""

_COMPLETE: dict[str, Stage] = {"train": "train", "eval": "evaluate", "run": "report"}
"""The stage that is done when a verb has come to its end."""


def begin(view: View, run: Run, goal: str, *, resume: bool) -> None:
    """Carry on with ``run`` in a process of its own; say how to look at it and how to stop it.

    Raises:
        RunError: this is Windows, another process works on the run, or its training was
            broken off and ``resume`` is false.
    """
    _require_posix()
    if (worker := run.worker()) is not None:
        raise RunError("error.run_in_use", path=run.path, pid=worker.pid)
    run.require_resumable(resume)
    words = [goal, str(run.path), *(["--resume"] if resume else [])]
    pid = _start(run, words)
    write_owner(run.process, owner(pid, goal))
    view.still()
    view.note(say("cli.detached.begun", pid=pid), "green")
    view.note(say("cli.detached.look"))
    verbatim(view.console, tables.command("weitiao logs", str(run.path), "-f"))
    view.note(say("cli.next.runs"))
    verbatim(view.console, "weitiao runs")
    view.note(say("cli.detached.stop"))
    verbatim(view.console, tables.command("weitiao stop", str(run.path)))


def _start(run: Run, words: list[str]) -> int:
    """Start weitiao with ``words``, writing into the run's log; return the process's number."""
    try:
        with run.log.open("a", encoding="utf-8") as log:
            when = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"{when}  {tables.command('weitiao', *words)}\n")
            log.flush()
            # The leader of a session of its own has no terminal, so no hang-up reaches it. -P:
            # what lies in the working directory must not be taken for a library.
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "weitiao.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "WEITIAO_LANG": language(), "PYTHONIOENCODING": "utf-8"},
            ).pid
    except OSError as error:
        raise write_error(run.log, error) from error


def show_log(console: Console, run: Run, *, follow: bool) -> None:
    """Print what a run in the background has said; ``follow``: until it ends.

    Raises:
        RunError: the run was not begun in the background.
    """
    if not run.log.is_file():
        raise RunError("error.no_log", path=run.path)
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    with run.log.open("rb") as log:
        while True:
            # Asked before reading: what it said last is read when it is known to have ended.
            goes_on = follow and run.worked_on()
            console.print(Text(clean(decode(log.read()))), soft_wrap=True, end="")
            if not goes_on:
                return
            time.sleep(_LOOK_EVERY)


def stop(view: View, run: Run, *, now: bool) -> None:
    """End the process that works on ``run``: after its step and a checkpoint, or ``now``.

    Raises:
        RunError: this is Windows, or the process is another computer's or another user's.
    """
    _require_posix()
    worker = run.worker()
    if worker is None:
        view.note(say("cli.stop.nothing", path=clean(str(run.path))))
        return
    if not worker.is_here:
        raise RunError("error.stop_elsewhere", path=run.path, host=worker.host)
    _signal(worker, now=now)
    if not now:
        view.note(say("cli.stop.asked"))
    view.wait(say("cli.stop.waiting"))
    while worker.lives():
        time.sleep(_LOOK_EVERY)
    view.still()
    _tell_where(view, run, worker.goal)


def _signal(worker: Owner, *, now: bool) -> None:
    import psutil  # type: ignore[import-untyped]

    # psutil looks at the start of a process again before it sends a signal.
    try:
        if (process := worker.process()) is None:
            return
        if not now:
            process.terminate()
            return
        for one in (process, *process.children(recursive=True)):
            one.kill()
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise RunError("error.stop_denied", pid=worker.pid) from error


def _tell_where(view: View, run: Run, goal: str) -> None:
    """Say how far the run came, and how to go on with it."""
    from weitiao.plan.plan import read_plan

    if run.stage_done(_COMPLETE[goal]):
        view.note(say("cli.stop.complete"), "green")
        return
    checkpoints = run.checkpoints()
    if run.stage_done("train"):
        view.note(say("cli.stop.trained"))
    elif checkpoints:
        steps = read_plan(run.plan).steps
        view.note(say("cli.stop.after_step", step=checkpoints[-1][0], steps=steps))
    else:
        view.note(say("cli.stop.no_checkpoint"))
    view.note(say("cli.stop.go_on"))
    detach = ["--detach"] if run.process.is_file() else []
    verbatim(view.console, tables.command(f"weitiao {goal}", str(run.path), "--resume", *detach))


def _require_posix() -> None:
    if os.name == "nt":
        raise RunError("error.no_background")

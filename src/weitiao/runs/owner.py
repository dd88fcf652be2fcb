"""Which process works on a run: its number, when it began and on which computer."""

import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weitiao.errors import RunError
from weitiao.records.files import write_atomic


@dataclass(frozen=True, slots=True)
class Owner:
    """A process; ``started`` in seconds since the epoch tells it from a later one of its number.

    ``goal`` is the verb that brings the run to the end that was asked for.
    """

    pid: int
    started: float
    host: str
    goal: str = "run"

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this computer."""
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        """Return whether it works still; of another computer's process that is believed."""
        return not self.is_here or self.process() is not None

    def process(self) -> Any:
        """Return its ``psutil.Process``, which no later process of its number can be taken for.

        None where it has ended, or has only not been collected yet by its parent.
        """
        import psutil  # type: ignore[import-untyped]

        try:
            found = psutil.Process(self.pid)
            ended = found.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            return None if ended or abs(found.create_time() - self.started) >= 1.0 else found
        except (psutil.Error, ValueError):
            return None


def owner(pid: int, goal: str = "run") -> Owner:
    """Return the living process ``pid`` of this computer.

    Raises:
        psutil.NoSuchProcess: it has ended.
    """
    import psutil

    return Owner(pid, psutil.Process(pid).create_time(), socket.gethostname(), goal)


def read_owner(path: Path) -> Owner | None:
    """Return the process that ``path`` names; None where it names none."""
    try:
        found = Owner(**json.loads(path.read_bytes()))
        return found if isinstance(found.pid, int) and found.started >= 0 else None
    except (OSError, ValueError, TypeError):
        return None


def write_owner(path: Path, process: Owner) -> None:
    """Let ``path`` name ``process``.

    Raises:
        RunError: it cannot be written.
    """
    write_atomic(path, json.dumps(asdict(process)))


def take_lock(path: Path) -> None:
    """Let the lock file ``path`` name this process; that of a dead one is taken over.

    Raises:
        RunError: a living process holds it.
        OSError: it cannot be written.
    """
    # Linked into place whole: a lock file is never seen half written.
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    mine.write_text(json.dumps(asdict(owner(os.getpid()))), encoding="utf-8")
    try:
        for _ in range(2):
            with suppress(FileExistsError):
                os.link(mine, path)
                return
            holder = read_owner(path)
            if holder is not None and holder.lives():
                raise RunError("error.run_in_use", path=path.parent, pid=holder.pid)
            path.unlink(missing_ok=True)
        # Whoever took it first between our two tries works on the run now.
        raise RunError("error.run_in_use", path=path.parent, pid="?")
    finally:
        mine.unlink(missing_ok=True)

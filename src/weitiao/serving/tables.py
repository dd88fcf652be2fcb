"""A SQLite file behind a thread of its own: whoever hands something over never waits for a disk."""

import asyncio
import atexit
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from weitiao.serving.desk import LOG

Base = sqlite3.Connection
T = TypeVar("T")

_PAUSE = 30.0
"""Seconds until a file that cannot be opened is tried again."""
_HOUR = 3600.0
_MINUTE = 60.0


class ForeignFileError(sqlite3.DatabaseError):
    """The file holds other tables than ours, or those of another version."""


@dataclass(frozen=True, slots=True)
class Tables:
    """A file and the tables in it; ``version`` is above 0 and changes with ``schema``.

    ``changes``: what makes out of a file of an earlier version one of the next, by the earlier.
    """

    path: Path
    schema: tuple[str, ...]
    version: int
    changes: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def open(self) -> Base:
        """Open the file, or begin it, readable by its owner only. Processes may share it.

        Raises:
            sqlite3.Error: it cannot be used; a :class:`ForeignFileError` where it is not ours.
            OSError: its folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self.path.touch(mode=0o600)
        base = sqlite3.connect(self.path, timeout=5, check_same_thread=False)
        try:
            self._begin(base)
        except BaseException:
            base.close()
            raise
        return base

    def _begin(self, base: Base) -> None:
        # First, as another program's file is to stay as it is.
        self._is_begun(base)
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        # What people asked is to be gone from the disk, too, once it is deleted.
        base.execute("PRAGMA secure_delete = ON")
        with base:
            base.execute("BEGIN IMMEDIATE")
            begun = self._is_begun(base)
            if begun == self.version:
                return
            changes = [self.changes[old] for old in range(begun, self.version)] if begun else []
            for statements in changes or [self.schema]:
                for statement in statements:
                    base.execute(statement)
            base.execute(f"PRAGMA user_version = {self.version}")

    def _is_begun(self, base: Base) -> int:
        """Return the version of the tables that are there; 0 for none."""
        (version,) = base.execute("PRAGMA user_version").fetchone()
        (tables,) = base.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version not in (self.version, *self.changes) and (version or tables):
            raise ForeignFileError("other tables")
        return int(version) if tables else 0

    def move_aside(self) -> Path:
        """Give a file that cannot be read another name, which is returned."""
        number = 1
        while (to := self.path.with_suffix(f".broken-{number}{self.path.suffix}")).exists():
            number += 1
        self.path.rename(to)
        # What was not yet taken over from the log belongs to the file.
        with suppress(FileNotFoundError):
            Path(f"{self.path}-wal").rename(f"{to}-wal")
        Path(f"{self.path}-shm").unlink(missing_ok=True)
        return to


_Task = tuple[Callable[[Base], Any], "Future[Any] | None"]


class Background:
    """The one thread that uses a file. A file that fails is told of in the log, and nowhere else.

    ``hourly`` is done at the beginning and every hour. A file that cannot be read is moved aside
    and begun anew; one that cannot be opened is tried again after a while.
    """

    def __init__(
        self, tables: Tables, hourly: Callable[[Base], object], most_waiting: int = 256
    ) -> None:
        self._tables, self._hourly = tables, hourly
        self._tasks: queue.Queue[_Task | None] = queue.Queue(most_waiting)
        self._base: Base | None = None
        self._open_at = 0.0
        self._ill = self._closed = False
        self.dropped = 0
        """What was handed over and had no room."""
        self._thread = threading.Thread(target=self._loop, name=tables.path.stem, daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def tell(self, work: Callable[[Base], object]) -> None:
        """Have something written, soon; where too much waits already, it is dropped and counted."""
        self._put((work, None))

    async def ask(self, work: Callable[[Base], T], seconds: float) -> T | None:
        """Return what ``work`` returns; None where the file fails or takes longer than that."""
        future: Future[T | None] = Future()
        if not self._put((work, future)):
            return None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            return None

    def close(self) -> None:
        """Write what is waiting, for 5 s at most; once is enough."""
        atexit.unregister(self.close)
        if self._closed:
            return
        self._closed = True
        with suppress(queue.Full):
            self._tasks.put(None, timeout=5)
        self._thread.join(5)

    def _put(self, task: _Task) -> bool:
        if self._closed:
            return False
        try:
            self._tasks.put_nowait(task)
        except queue.Full:
            self.dropped += 1
            return False
        return True

    def _loop(self) -> None:
        hour = minute = 0.0
        told = 0
        while True:
            now = time.monotonic()
            if now >= hour:
                self._do(self._hourly)
                hour = now + _HOUR
            if self.dropped > told and now >= minute:
                told, minute = self.dropped, now + _MINUTE
                self._log("dropped", count=told)
            try:
                task = self._tasks.get(timeout=_MINUTE)
            except queue.Empty:
                continue
            if task is None:
                break
            work, future = task
            if future is None:
                self._do(work)
            elif future.set_running_or_notify_cancel():
                future.set_result(self._do(work))
        if self._base is not None:
            self._base.close()

    def _do(self, work: Callable[[Base], T]) -> T | None:
        """Return what ``work`` returns, in one transaction; None where it fails."""
        try:
            if self._base is None:
                if time.monotonic() < self._open_at:
                    return None
                self._open_at = time.monotonic() + _PAUSE
                self._base = self._tables.open()
            with self._base:
                done = work(self._base)
        except Exception as error:
            self._failed(error)
            return None
        self._ill = False
        return done

    def _failed(self, error: Exception) -> None:
        if not self._ill:
            self._ill = True
            self._log("failed", why=str(error))
        if not is_unreadable(error):
            return
        if self._base is not None:
            self._base.close()
            self._base = None
        with suppress(OSError):
            self._log("moved aside", to=str(self._tables.move_aside()))
            self._open_at = 0.0

    def _log(self, what: str, **fields: object) -> None:
        LOG.warning(what, extra={"fields": {"file": str(self._tables.path), **fields}})


def is_unreadable(error: Exception) -> bool:
    """Return whether a file is damaged, or is none of ours; anything else may pass."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return damaged or isinstance(error, ForeignFileError)

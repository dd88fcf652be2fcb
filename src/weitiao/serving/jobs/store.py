"""The table of jobs: SQLite, shared by the server, its workers and other servers.

A job runs at least once, its results are written once: whoever runs it holds it by a token that
is new with every claim, and what comes from an older claim is not taken.
"""

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from weitiao.errors import RunError, WeitiaoError
from weitiao.serving.tables import Tables

State = Literal["queued", "running", "done", "failed", "cancelled"]
Kind = Literal["batch", "dialogue", "evaluation"]

_VERSION = 2
_PAGE = 200
# Whoever took a job later has a higher place.
_TURN = "CREATE TABLE turn (owner TEXT PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID"
_CHANGES = {1: ("ALTER TABLE job ADD COLUMN runner TEXT", _TURN)}
_SCHEMA = (
    """CREATE TABLE job (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    spec TEXT NOT NULL,
    total INTEGER NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    runner TEXT,
    worker TEXT,
    heartbeat REAL,
    announced REAL,
    attempts INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    cancel INTEGER NOT NULL,
    reason TEXT,
    summary TEXT
)""",
    "CREATE INDEX job_by_state ON job (state, created)",
    _TURN,
    """CREATE TABLE item (
    job TEXT NOT NULL REFERENCES job ON DELETE CASCADE,
    place INTEGER NOT NULL,
    ask TEXT NOT NULL,
    PRIMARY KEY (job, place)
) WITHOUT ROWID""",
    """CREATE TABLE result (
    job TEXT NOT NULL REFERENCES job ON DELETE CASCADE,
    place INTEGER NOT NULL,
    line TEXT NOT NULL,
    failed INTEGER NOT NULL,
    PRIMARY KEY (job, place)
) WITHOUT ROWID""",
)
_COLUMNS = (
    "id, owner, kind, spec, total, state, created, started, ended, worker, attempts, reason,"
    " summary, (SELECT count(*) FROM result WHERE job = id),"
    " (SELECT count(*) FROM result WHERE job = id AND failed)"
)
_HELD = "id = ? AND worker = ? AND state = 'running'"
_NEXT = (
    "state = 'queued' AND NOT EXISTS (SELECT 1 FROM job AS other WHERE other.owner = job.owner"
    " AND other.state = 'running' AND other.runner = ?1)"
)


@dataclass(frozen=True, slots=True)
class Job:
    """One job; times are seconds since 1970.

    ``owner``: whose it is; '' where nobody needs a key. ``spec``: what holds for all its items.
    ``attempts``: how often it was begun. ``reason``: the catalogue's key and values of why it
    failed. ``done`` of ``total`` items have a result, ``failed`` of these say what went wrong.
    """

    id: str
    owner: str
    kind: Kind
    spec: Mapping[str, Any]
    total: int
    state: State
    created: float
    started: float | None
    ended: float | None
    worker: str | None = field(repr=False)
    attempts: int
    reason: tuple[str, Mapping[str, Any]] | None
    summary: Mapping[str, Any] | None
    done: int
    failed: int


class Store:
    """The table. Threads may share it, and processes its file."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it, readable by its owner only.

        Raises:
            RunError: it cannot be written, or another version wrote it.
        """
        self.path = path
        self._lock = threading.Lock()
        try:
            self._base = Tables(path, _SCHEMA, _VERSION, _CHANGES).open()
            try:
                self._begin()
            except BaseException:
                self._base.close()
                raise
        except (sqlite3.OperationalError, OSError) as error:
            raise RunError("error.cannot_write", path=path, cause=error) from error
        except sqlite3.DatabaseError as error:
            raise RunError("jobs.store_unreadable", path=path) from error

    def _begin(self) -> None:
        # One that is there already may have been made when others could still read it.
        for end in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{end}").chmod(0o600)
        self._base.isolation_level = None
        self._base.execute("PRAGMA busy_timeout = 20000")
        self._base.execute("PRAGMA synchronous = FULL")
        self._base.execute("PRAGMA foreign_keys = ON")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._base.close()

    # What the routes ask.

    def add(
        self, owner: str, kind: Kind, spec: Mapping[str, Any], asks: Sequence[Mapping[str, Any]]
    ) -> Job:
        """Queue a job of these asks, and return it.

        Raises:
            RunError: the disk is full, or the file cannot be written.
        """
        job = f"job-{uuid.uuid4().hex}"
        # json, which writes every character in ASCII: half of one is no text to SQLite.
        with self._change() as base:
            base.execute(
                "INSERT INTO job (id, owner, kind, spec, total, state, created, attempts, deaths,"
                " cancel) VALUES (?, ?, ?, ?, ?, 'queued', ?, 0, 0, 0)",
                (job, owner, kind, json.dumps(spec), len(asks), time.time()),
            )
            base.executemany(
                "INSERT INTO item VALUES (?, ?, ?)",
                ((job, place, json.dumps(ask)) for place, ask in enumerate(asks)),
            )
        found = self.get(job)
        assert found is not None
        return found

    def get(self, job: str) -> Job | None:
        """Return a job, if there is one of that id."""
        return next(iter(self._jobs("WHERE id = ?", job)), None)

    def newest(self, owner: str, most: int) -> list[Job]:
        """Return the owner's last jobs, the newest first."""
        return self._jobs("WHERE owner = ? ORDER BY created DESC LIMIT ?", owner, most)

    def unfinished(self, owner: str) -> int:
        """Return how many of the owner's jobs wait or run."""
        query = "SELECT count(*) FROM job WHERE state IN ('queued', 'running') AND owner = ?"
        (number,) = self._ask(query, owner)[0]
        return int(number)

    def results(self, job: str) -> Iterator[str]:
        """Yield the result lines that there are, in the order of the asks."""
        place, page = -1, [(0, "")]
        while page:
            page = self._ask(
                "SELECT place, line FROM result WHERE job = ? AND place > ? ORDER BY place LIMIT ?",
                job,
                place,
                _PAGE,
            )
            yield from (line for _, line in page)
            place = page[-1][0] if page else place

    def cancel(self, job: str) -> bool:
        """End a job that waits, or tell its worker to; False where it has ended already."""
        with self._change() as base:
            found = base.execute(
                "UPDATE job SET cancel = 1,"
                " ended = CASE state WHEN 'queued' THEN ? END,"
                " state = CASE state WHEN 'queued' THEN 'cancelled' ELSE state END"
                " WHERE id = ? AND state IN ('queued', 'running') RETURNING id",
                (time.time(), job),
            ).fetchall()
        return bool(found)

    def retry(self, job: str) -> bool:
        """Queue again what failed or was cancelled; answers that are there stay.

        False where it waits or runs, or where nothing of it is left to do.
        """
        with self._change() as base:
            found = base.execute(
                "UPDATE job SET state = 'queued', cancel = 0, deaths = 0, announced = NULL,"
                " ended = NULL, reason = NULL, summary = NULL WHERE id = ? AND"
                " (state IN ('failed', 'cancelled') OR (state = 'done' AND EXISTS"
                " (SELECT 1 FROM result WHERE job = id AND failed))) RETURNING id",
                (job,),
            ).fetchall()
            if found:
                base.execute("DELETE FROM result WHERE job = ? AND failed", (job,))
        return bool(found)

    def delete(self, job: str) -> None:
        """Forget a job and its results; a worker that runs it stops at its next answer."""
        self._forget("id = ?", job)

    # What the workers ask.

    def claim(self, runner: str) -> Job | None:
        """Take the job whose turn it is, to run it; None where there is none.

        A ``runner`` (a server, or all of Celery's workers) has one of each owner's at a time.
        Next is the owner who had none yet, or not for the longest time; of its jobs the oldest.
        """
        with self._change() as base:
            found = base.execute(
                "UPDATE job SET state = 'running', runner = ?1, worker = ?2, heartbeat = ?3,"
                " started = coalesce(started, ?3), attempts = attempts + 1, deaths = deaths + 1"
                f" WHERE id = (SELECT id FROM job LEFT JOIN turn USING (owner) WHERE {_NEXT}"
                " ORDER BY turn.place, created, job.rowid LIMIT 1) RETURNING id, owner",
                (runner, uuid.uuid4().hex, time.time()),
            ).fetchall()
            base.executemany(
                "REPLACE INTO turn SELECT ?, coalesce(max(place), 0) + 1 FROM turn",
                [(owner,) for _, owner in found],
            )
        return self.get(found[0][0]) if found else None

    def asks(self, job: Job, left: bool = False) -> list[tuple[int, dict[str, Any]]]:
        """Return the job's asks, or those without a result, with their places from 0 on."""
        found = self._ask(
            "SELECT place, ask FROM item WHERE job = ?1 AND NOT (?2 AND EXISTS"
            " (SELECT 1 FROM result WHERE job = ?1 AND place = item.place)) ORDER BY place",
            job.id,
            left,
        )
        return [(place, json.loads(ask)) for place, ask in found]

    def beat(self, job: Job) -> bool:
        """Tell that the worker lives; False where it is to stop: cancelled, or not its job."""
        with self._change() as base:
            return _goes_on(base, job)

    def put(self, job: Job, place: int, line: str, failed: bool = False) -> bool:
        """Write a result, unless there is one or it is no longer the worker's job; see `beat`.

        Raises:
            RunError: the disk is full, or the file cannot be written.
        """
        with self._change() as base:
            base.execute(
                "INSERT OR IGNORE INTO result SELECT ?, ?, ?, ? WHERE EXISTS"
                f" (SELECT 1 FROM job WHERE {_HELD})",
                (job.id, place, line, failed, job.id, job.worker),
            )
            # It got on: whatever killed earlier workers, it was not this job.
            base.execute(f"UPDATE job SET deaths = 0 WHERE {_HELD}", (job.id, job.worker))
            return _goes_on(base, job)

    def end(
        self,
        job: Job,
        why: WeitiaoError | None = None,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Settle a job: done, or failed for a reason; nothing where it is not the worker's."""
        reason = json.dumps([why.key, why.values], default=str) if why else None
        with self._change() as base:
            base.execute(
                "UPDATE job SET state = ?, ended = ?, reason = ?, summary = ?, worker = NULL"
                f" WHERE {_HELD}",
                (
                    "failed" if why else "done",
                    time.time(),
                    reason,
                    json.dumps(summary) if summary else None,
                    job.id,
                    job.worker,
                ),
            )

    def release(self, job: Job) -> None:
        """Queue a job again that its worker leaves for no fault of the job's."""
        with self._change() as base:
            base.execute(
                "UPDATE job SET state = 'queued', worker = NULL, announced = NULL, deaths = 0"
                f" WHERE {_HELD}",
                (job.id, job.worker),
            )

    # What is done from time to time.

    def requeue(self, stale_seconds: float, max_attempts: int, why: WeitiaoError) -> list[str]:
        """Queue jobs again whose worker was not heard of for so long; return their ids.

        One of which ``max_attempts`` workers died, one after another, has failed, for ``why``;
        one that was to be cancelled is.
        """
        now = time.time()
        with self._change() as base:
            found = base.execute(
                "UPDATE job SET worker = NULL, announced = NULL,"
                " state = CASE WHEN cancel THEN 'cancelled' WHEN deaths >= ?1 THEN 'failed'"
                " ELSE 'queued' END,"
                " ended = CASE WHEN cancel OR deaths >= ?1 THEN ?2 END,"
                " reason = CASE WHEN NOT cancel AND deaths >= ?1 THEN ?3 END"
                " WHERE state = 'running' AND heartbeat < ?4 RETURNING id",
                (max_attempts, now, json.dumps([why.key, why.values]), now - stale_seconds),
            ).fetchall()
        return [job for (job,) in found]

    def announce(self, runner: str, again_seconds: float) -> list[str]:
        """Return the jobs that could be claimed now, without those returned a short time ago.

        Of each owner it is the oldest: with the others nobody could begin.
        """
        now = time.time()
        with self._change() as base:
            found = base.execute(
                "UPDATE job SET announced = ?2 WHERE id IN (SELECT id FROM"
                f" (SELECT id, announced, min(created) FROM job WHERE {_NEXT} GROUP BY owner)"
                " WHERE announced IS NULL OR announced < ?3) RETURNING id",
                (runner, now, now - again_seconds),
            ).fetchall()
        return [job for (job,) in found]

    def unannounce(self, jobs: Sequence[str]) -> None:
        """Take back that workers were told."""
        with self._change() as base:
            base.executemany("UPDATE job SET announced = NULL WHERE id = ?", ((j,) for j in jobs))

    def purge(self, days: float) -> None:
        """Delete what ended so many days ago."""
        self._forget("ended < ?", time.time() - days * 86_400)

    def _forget(self, which: str, value: object) -> None:
        with self._change() as base:
            gone = base.execute(f"DELETE FROM job WHERE {which}", (value,)).rowcount
        if gone:
            # From the log beside the file, too; where that fails, SQLite does it by and by.
            with suppress(sqlite3.Error):
                self._ask("PRAGMA wal_checkpoint(TRUNCATE)")

    def _jobs(self, rest: str, *values: object) -> list[Job]:
        return [_job(row) for row in self._ask(f"SELECT {_COLUMNS} FROM job {rest}", *values)]

    def _ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._base.execute(query, values)) as found:
            return found.fetchall()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """All that is done within is on the disk afterwards, or nothing of it."""
        try:
            with self._lock, self._base:
                self._base.execute("BEGIN IMMEDIATE")
                yield self._base
        except sqlite3.Error as error:
            raise RunError("error.cannot_write", path=self.path, cause=error) from error


def _goes_on(base: sqlite3.Connection, job: Job) -> bool:
    """Note that the worker was heard of, and settle a job that is to be cancelled."""
    found = base.execute(
        "UPDATE job SET heartbeat = ?1, ended = CASE WHEN cancel THEN ?1 END,"
        " state = CASE WHEN cancel THEN 'cancelled' ELSE state END"
        " WHERE id = ?2 AND worker = ?3 AND state = 'running' RETURNING state",
        (time.time(), job.id, job.worker),
    ).fetchall()
    return found == [("running",)]


def _job(row: Sequence[Any]) -> Job:
    values = dict(zip(Job.__slots__, row, strict=True))
    values["spec"] = json.loads(values["spec"])
    values["reason"] = tuple(json.loads(values["reason"])) if values["reason"] else None
    values["summary"] = json.loads(values["summary"]) if values["summary"] else None
    return Job(**values)

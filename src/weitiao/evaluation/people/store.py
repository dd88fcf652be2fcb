"""The file of votes: SQLite, each vote on the disk before the next row shows."""

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from weitiao.errors import RunError

Better = Literal["one", "tie", "other"]
Level = Literal["correct", "helpful", "suitable"]
LEVELS: tuple[Level, ...] = get_args(Level)

Marks = tuple[bool | None, bool | None, bool | None]
"""Whether an answer reaches each of :data:`LEVELS`; None where nobody said."""

UNMARKED: Marks = (None, None, None)
IN_USE_SECONDS = 90
"""A page that is open is heard of every 20 s, and in a hidden tab every 60 s."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE vote (
    row TEXT NOT NULL,
    reviewer TEXT NOT NULL,
    better TEXT NOT NULL CHECK (better IN ('one', 'tie', 'other')),
    one TEXT NOT NULL,
    other TEXT NOT NULL,
    comment TEXT NOT NULL,
    final INTEGER NOT NULL,
    time REAL NOT NULL,
    PRIMARY KEY (row, reviewer, final)
);
CREATE TABLE session (reviewer TEXT PRIMARY KEY, id TEXT NOT NULL, seen REAL NOT NULL);
CREATE TABLE draw (seed TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one person says about one row. ``final``: it settles what others disagree about.

    ``one`` and ``other`` say which levels of the rubric the two answers reach.
    """

    row: str
    reviewer: str
    better: Better
    one: Marks = UNMARKED
    other: Marks = UNMARKED
    comment: str = ""
    final: bool = False
    time: float = 0.0


class Store:
    """The votes of one run, and which page has which reviewer. Threads may share it."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it.

        Raises:
            RunError: it cannot be written, or another version wrote it.
        """
        self.path = path
        self._lock = threading.Lock()
        try:
            self._base = sqlite3.connect(
                path, timeout=10, isolation_level=None, check_same_thread=False
            )
            try:
                self._begin()
            except BaseException:
                self._base.close()
                raise
        except sqlite3.OperationalError as error:
            raise RunError("error.cannot_write", path=path, cause=error) from error
        except sqlite3.DatabaseError as error:
            raise RunError("error.people_store", path=path) from error

    def _begin(self) -> None:
        (tables,) = self._ask("SELECT count(*) FROM sqlite_master")[0]
        if self._version() != _VERSION and (self._version() or tables):
            raise RunError("error.people_store", path=self.path)
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute("PRAGMA synchronous = FULL")
        with self._base:
            # Two that begin at the same moment: the second waits here and then finds the tables.
            self._base.execute("BEGIN IMMEDIATE")
            if not self._version():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._base.execute(statement)
                self._base.execute("INSERT INTO draw VALUES (?)", (secrets.token_hex(8),))
                self._base.execute(f"PRAGMA user_version = {_VERSION}")
        (self.seed,) = self._ask("SELECT seed FROM draw")[0]

    def _version(self) -> int:
        return int(self._ask("PRAGMA user_version")[0][0])

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def votes(self) -> list[Vote]:
        """Return all votes, the earliest first."""
        found = self._ask("SELECT * FROM vote ORDER BY time")
        return [
            Vote(row, who, better, _marks(one), _marks(other), comment, bool(final), when)
            for row, who, better, one, other, comment, final, when in found
        ]

    def put(self, vote: Vote) -> None:
        """Write a vote in place of the reviewer's earlier one; a row has one final vote at most.

        Raises:
            RunError: the disk is full, or the file cannot be written.
        """
        row, who, better, one, other, comment, final, _ = astuple(vote)
        values = (row, who, better, json.dumps(one), json.dumps(other), comment, final, time.time())
        delete = ("DELETE FROM vote WHERE row = ? AND final", (row,)) if final else None
        self._tell(delete, ("INSERT OR REPLACE INTO vote VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values))

    def enter(self, reviewer: str, session: str, *, take_over: bool = False) -> bool:
        """Give ``reviewer`` to a page; return False where another one has the name now."""
        now = time.time()
        free = "excluded.id = id OR seen < ? OR ?"
        self._tell(
            ("DELETE FROM session WHERE id = ? AND reviewer != ?", (session, reviewer)),
            (
                "INSERT INTO session VALUES (?, ?, ?) ON CONFLICT (reviewer) DO UPDATE "
                f"SET id = excluded.id, seen = excluded.seen WHERE {free}",
                (reviewer, session, now, now - IN_USE_SECONDS, take_over),
            ),
        )
        return self.reviewer_of(session) == reviewer

    def reviewer_of(self, session: str) -> str | None:
        """Return whose page this is, and note that it was heard of; None where it is nobody's."""
        self._tell(("UPDATE session SET seen = ? WHERE id = ?", (time.time(), session)))
        found = self._ask("SELECT reviewer FROM session WHERE id = ?", (session,))
        return found[0][0] if found else None

    def leave(self, sessions: Iterable[str]) -> None:
        """Make the names of these pages free."""
        self._tell(*(("DELETE FROM session WHERE id = ?", (session,)) for session in sessions))

    def _ask(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, closing(self._base.execute(query, values)) as found:
            return found.fetchall()

    def _tell(self, *changes: tuple[str, tuple[object, ...]] | None) -> None:
        try:
            with self._lock, self._base:
                self._base.execute("BEGIN IMMEDIATE")
                for change in filter(None, changes):
                    self._base.execute(*change)
        except sqlite3.Error as error:
            raise RunError("error.cannot_write", path=self.path, cause=error) from error


def _marks(text: str) -> Marks:
    correct, helpful, suitable = json.loads(text)
    return correct, helpful, suitable

"""The log of requests, and what people say of the answers: one SQLite file."""

import json
import random
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from weitiao.serving.hooks import Answered
from weitiao.serving.keeping import KeepOptions
from weitiao.serving.tables import Background, Base, Tables

Thumb = Literal["up", "down"]

_VERSION = 3
_SCHEMA = (
    "CREATE TABLE request (id TEXT PRIMARY KEY, request_id TEXT NOT NULL, time REAL NOT NULL,"
    " seconds REAL NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL, question TEXT, answers TEXT,"
    " finishes TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,"
    " owner TEXT NOT NULL DEFAULT '', system TEXT)",
    "CREATE INDEX request_by_time ON request (time)",
    "CREATE INDEX request_by_request_id ON request (request_id)",
    "CREATE TABLE feedback (number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " request TEXT NOT NULL REFERENCES request (id), time REAL NOT NULL, thumb TEXT,"
    " correction TEXT, comment TEXT, messages TEXT, answer TEXT)",
    "CREATE INDEX feedback_by_request ON feedback (request)",
)
_CHANGES = {
    1: ("ALTER TABLE request ADD COLUMN owner TEXT NOT NULL DEFAULT ''",),
    2: ("ALTER TABLE request ADD COLUMN system TEXT",),
}
_DAY = 86400
_RECENT = 10_000
"""Requests that are not written down and can still get feedback."""

_FEEDBACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody says of an answer.

    ``messages`` and ``answer``: what was asked and answered, where the asker tells it. The model's
    own system prompt need not be told.
    """

    thumb: Thumb | None = None
    correction: str | None = None
    comment: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    answer: str | None = None

    @property
    def says(self) -> bool:
        """Whether it says anything; else it takes back what was said before."""
        return bool(self.thumb or self.correction or self.comment)


def tables(path: Path) -> Tables:
    """Return the tables of the file at ``path``."""
    return Tables(path, _SCHEMA, _VERSION, _CHANGES)


class RequestLog:
    """A :class:`~weitiao.serving.hooks.Recorder` that takes feedback, too."""

    def __init__(self, path: Path, options: KeepOptions) -> None:
        """Begin or go on; requests that are too old are deleted now and every hour."""
        self._options = options
        self._recent: OrderedDict[str, Answered] = OrderedDict()
        """Used by the file's thread alone."""
        self._file = Background(tables(path), self._tidy)

    def record(self, answered: Answered) -> None:
        """Write a request down, or remember it for a while where it is none of the sample."""
        sampled = self._options.log != "off" and random.random() < self._options.log_sample
        if self._options.log != "full" or not sampled:
            answered = replace(answered, question=None, answers=())
        self._file.tell(lambda base: _insert(base, answered) if sampled else self._hold(answered))

    async def add(self, request: str, feedback: Feedback, owner: str = "") -> int | None:
        """Keep feedback and return its number; 0 for an unknown request, None if it failed.

        ``request`` is the id of an answer or of a request; of several with the same, the last.
        ``owner``: the digest of the key that says it. Requests of other keys are unknown to it;
        those of which no key is known are everybody's.
        """

        def write(base: Base) -> int:
            id_ = self._find(base, request, owner)
            if id_ is None:
                return 0
            said = feedback
            messages = None if said.messages is None else _json(said.messages)
            values = (id_, time.time(), said.thumb, said.correction, said.comment, messages)
            columns = "request, time, thumb, correction, comment, messages, answer"
            added = base.execute(
                f"INSERT INTO feedback ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*values, said.answer),
            )
            return int(added.lastrowid or 0)

        return await self._file.ask(write, _FEEDBACK_SECONDS)

    def close(self) -> None:
        """Write what is waiting."""
        self._file.close()

    def _hold(self, answered: Answered) -> None:
        self._recent[answered.id] = answered
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def _find(self, base: Base, request: str, owner: str) -> str | None:
        """Return the id of a request that is written down, now at the latest."""
        for answered in reversed(self._recent.values()):
            theirs = not owner or answered.owner in (owner, "")
            if theirs and request in (answered.id, answered.request_id):
                _insert(base, answered)
                return answered.id
        found = base.execute(
            "SELECT id FROM request WHERE (id = :id OR request_id = :id)"
            " AND (:owner = '' OR owner IN (:owner, '')) ORDER BY rowid DESC LIMIT 1",
            {"id": request, "owner": owner},
        ).fetchone()
        return None if found is None else str(found[0])

    def _tidy(self, base: Base) -> None:
        base.execute(
            "DELETE FROM request WHERE time < ? AND id NOT IN (SELECT request FROM feedback)",
            (time.time() - self._options.log_days * _DAY,),
        )


def _insert(base: Base, answered: Answered) -> None:
    one = answered
    base.execute(
        "INSERT OR IGNORE INTO request VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            one.id,
            one.request_id,
            one.time,
            one.seconds,
            one.route,
            one.model,
            None if one.question is None else _json(one.question),
            _json(one.answers) if one.answers else None,
            _json(one.finishes),
            one.prompt_tokens,
            one.completion_tokens,
            one.owner,
            one.system,
        ),
    )


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)

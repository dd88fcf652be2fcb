"""Feedback as people read it, and as rows to train on; and the deletion of what was kept."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from weitiao.errors import DataError, RunError
from weitiao.records.files import write_atomic
from weitiao.serving.request_log import Feedback, tables
from weitiao.serving.tables import Base, is_unreadable

Form = Literal["answers", "preferences"]
FORMS: tuple[Form, ...] = get_args(Form)

_ROLES = {"developer": "system"}
_MOST_VALUES = 500
"""Ids in one statement."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One feedback. ``time``: seconds since 1970; ``request``: the answer's id.

    The feedback's ``messages`` and ``answer`` are those of the log, and what the asker told only
    where the log holds none, with the model's own system prompt if it was asked with that; of
    several logged answers, the one that the asker told. Else None.
    ``cut``: the answer, or any of those it may be, did not come to its own end.
    """

    request: str
    time: float
    model: str
    feedback: Feedback
    cut: bool


@dataclass(frozen=True, slots=True)
class Exported:
    """``rows`` were written, and the others left out.

    ``unknown``: nobody kept what was asked or said; ``cut``: the answer that was liked did not
    come to its own end; ``same``: the correction is the very answer, and nothing is preferred.
    """

    rows: int
    unknown: int
    cut: int
    same: int


@dataclass(frozen=True, slots=True)
class Removed:
    """How many requests were deleted, and how many feedbacks on them."""

    requests: int
    feedbacks: int


def feedbacks(path: Path) -> list[Entry]:
    """Return what counts, the last feedback on each answer if it says anything, oldest first.

    Raises:
        RunError: there is no such file, or it cannot be read.
    """
    columns = (
        "f.request, f.time, f.thumb, f.correction, f.comment, f.messages, f.answer,"
        " r.model, r.route, r.question, r.answers, r.finishes, r.system"
    )
    joined = "feedback f JOIN request r ON r.id = f.request ORDER BY f.number"
    with _opened(path) as base:
        last = _last(_entry(*row) for row in base.execute(f"SELECT {columns} FROM {joined}"))
    return [entry for entry in last if entry.feedback.says]


def export_feedback(path: Path, out: Path, form: Form) -> Exported:
    """Write what was learnt from feedback to ``out``, a JSON object a line; no file without rows.

    ``answers``: ``messages``, a conversation that ends with the correction, or with the answer
    that got a thumb up. ``preferences``: ``prompt``, ``chosen`` and ``rejected``, each a list of
    messages, of the answers that were corrected. To an answer that was cut nothing is learnt from
    a thumb up: whoever is trained on it stops in mid-sentence.

    Raises:
        DataError: ``out`` is there already.
        RunError: there is no file at ``path``, it cannot be read, or ``out`` cannot be written.
    """
    if out.exists():
        raise DataError("error.exists", path=out)
    lines, unknown, cut, same = [], 0, 0, 0
    for entry in feedbacks(path):
        said = entry.feedback
        if not (said.correction or (form == "answers" and said.thumb == "up")):
            continue
        row = _row(said, form)
        if entry.cut and not said.correction:
            cut += 1
        elif row is None:
            unknown += 1
        elif not row:
            same += 1
        else:
            lines.append(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    if lines:
        write_atomic(out, b"".join(lines))
    return Exported(len(lines), unknown, cut, same)


def delete_requests(
    path: Path, ids: Sequence[str] | None = None, before: float | None = None
) -> Removed:
    """Delete requests and the feedback on them, from the disk too: by id, by time, or all.

    ``ids``: those of answers or of requests; ``before``: seconds since 1970.

    Raises:
        RunError: there is no such file, or it cannot be written.
    """
    conditions: list[tuple[str, Sequence[object]]] = [("TRUE", ())]
    if before is not None:
        conditions = [("time < ?", (before,))]
    elif ids is not None:
        blocks = [ids[i : i + _MOST_VALUES] for i in range(0, len(ids), _MOST_VALUES)]
        marks = [", ".join("?" * len(block)) for block in blocks]
        conditions = [
            (f"id IN ({mark}) OR request_id IN ({mark})", [*block, *block])
            for mark, block in zip(marks, blocks, strict=True)
        ]
    requests = said = 0
    with _opened(path) as base:
        for condition, values in conditions:
            which = f"SELECT id FROM request WHERE {condition}"
            found = base.execute(f"DELETE FROM feedback WHERE request IN ({which})", values)
            said += found.rowcount
            requests += base.execute(f"DELETE FROM request WHERE {condition}", values).rowcount
        base.commit()
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Removed(requests, said)


@contextmanager
def _opened(path: Path) -> Iterator[Base]:
    if not path.is_file():
        raise RunError("error.feedback_missing", path=path)
    try:
        base = tables(path).open()
        try:
            yield base
        finally:
            base.close()
    except (sqlite3.Error, OSError) as error:
        if is_unreadable(error):
            raise RunError("error.feedback_store", path=path) from error
        raise RunError("error.cannot_write", path=path, cause=error) from error


def _entry(
    request: str,
    time: float,
    thumb: Any,
    correction: str | None,
    comment: str | None,
    told: str | None,
    answer: str | None,
    model: str,
    route: str,
    question: str | None,
    answers: str | None,
    finishes: str,
    system: str | None,
) -> Entry:
    messages = _messages(json.loads(question or told or "null"), route)
    if messages and system and all(turn["role"] != "system" for turn in messages):
        messages = ({"role": "system", "content": system}, *messages)
    given: list[str] = json.loads(answers or "[]")
    ends: list[str | None] = json.loads(finishes)
    if len(given) == 1:
        answer = given[0]
    elif given:
        place = next((i for i, one in enumerate(given) if one.strip() == answer), None)
        answer = None if place is None else given[place]
        ends = ends if place is None else ends[place : place + 1]
    said = Feedback(thumb, correction, comment, messages, answer)
    return Entry(request, time, model, said, any(end != "stop" for end in ends))


def _messages(question: Any, route: str) -> tuple[dict[str, Any], ...] | None:
    """Return a question as a conversation; None for a text that was to be gone on with."""
    if isinstance(question, str) and route == "/generate":
        return ({"role": "user", "content": question},)
    if not isinstance(question, list) or not all(isinstance(turn, dict) for turn in question):
        return None
    return tuple(_message(turn) for turn in question)


def _message(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn.get("content") or ""
    if not isinstance(content, str):
        content = "".join(part["text"] for part in content)
    return turn | {"role": _ROLES.get(turn["role"], turn["role"]), "content": content}


def _last(entries: Iterable[Entry]) -> list[Entry]:
    """Return the last of each answer; what was asked and answered may have been told before."""
    last: dict[str, Entry] = {}
    for entry in entries:
        earlier, said = last.pop(entry.request, entry), entry.feedback
        before = earlier.feedback
        messages, answer = said.messages or before.messages, said.answer or before.answer
        said, cut = replace(said, messages=messages, answer=answer), entry.cut
        if not entry.feedback.answer:
            cut = earlier.cut
        last[entry.request] = replace(entry, feedback=said, cut=cut)
    return list(last.values())


def _row(said: Feedback, form: Form) -> dict[str, Any] | None:
    """Return a row; None where what it needs is unknown, an empty one where nothing is preferred.

    ``said`` has a correction, or for ``answers`` a thumb up.
    """
    good = said.correction or said.answer
    if not said.messages or not good:
        return None
    prompt, chosen = list(said.messages), [{"role": "assistant", "content": good}]
    if form == "answers":
        return {"messages": prompt + chosen}
    if not said.answer:
        return None
    if said.answer.strip() == good:
        return {}
    rejected = [{"role": "assistant", "content": said.answer}]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}

"""Votes as rows to train on: which answer was preferred, or the preferred answer alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import orjson

from weitiao.errors import DataError
from weitiao.evaluation.people.results import outcome, reached, votes_by_row
from weitiao.evaluation.people.rows import Match, Row
from weitiao.evaluation.people.store import Vote
from weitiao.records.files import write_atomic

Form = Literal["preferences", "answers"]
FORMS: tuple[Form, ...] = get_args(Form)


@dataclass(frozen=True, slots=True)
class Exported:
    """How many rows were written; ``ties`` and ``wrong`` (the better answer is wrong too, or
    empty) were left out."""

    rows: int
    ties: int
    wrong: int


def export_votes(match: Match, votes: Sequence[Vote], form: Form, out: Path) -> Exported:
    """Write the rows that have a winner to ``out``, a JSON object a line; no file without rows.

    ``preferences``: ``prompt``, ``chosen`` and ``rejected``, each a list of messages, as trl reads
    them. ``answers``: ``messages``, a conversation that ends with the better answer.

    Raises:
        DataError: ``out`` is there already.
        RunError: it cannot be written.
    """
    if out.exists():
        raise DataError("error.exists", path=out)
    rows = {row.id: row for row in match.rows}
    lines, ties, wrong = [], 0, 0
    for row, of in votes_by_row(match, votes).items():
        better = outcome(of)
        if better == "tie":
            ties += 1
            continue
        best = 0 if better == "one" else 1
        correct = reached(of, "correct")
        if not rows[row].answers[best].strip() or (correct and correct[best] <= 0.5):
            wrong += 1
        else:
            lines.append(_line(rows[row], best, form))
    if lines:
        write_atomic(out, b"".join(lines))
    return Exported(len(lines), ties, wrong)


def _line(row: Row, best: int, form: Form) -> bytes:
    prompt = [{"role": role, "content": content} for role, content in row.prompt]
    chosen, rejected = (
        [{"role": "assistant", "content": row.answers[side]}] for side in (best, 1 - best)
    )
    written: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if form == "answers":
        written = {"messages": prompt + chosen}
    return orjson.dumps(written, option=orjson.OPT_APPEND_NEWLINE)

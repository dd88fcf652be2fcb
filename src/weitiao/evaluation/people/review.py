"""What the page may ask: whose turn it is, a row without names, a vote, the result at the end.

Which answer is A is drawn for each reviewer and row; a request's answer never says whose it is.
"""

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from weitiao.errors import RunError
from weitiao.evaluation.people.present import facts, headline
from weitiao.evaluation.people.results import count_votes, differ, votes_by_row
from weitiao.evaluation.people.rows import Match, Row
from weitiao.evaluation.people.store import UNMARKED, Better, Marks, Store, Vote
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.words import LANGUAGES

Shown = Literal["a", "tie", "b"]

LONGEST_NAME, LONGEST_COMMENT = 60, 4000
_HEAD = 120


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the page; which fields count depends on what it asks.

    ``session`` tells this page from others; ``final``: about settling what reviewers judged
    differently; ``a`` and ``b`` are the marks of the answers as they are shown.
    """

    session: Annotated[str, Field(min_length=16, max_length=64)]
    name: Annotated[str, Field(max_length=LONGEST_NAME)] = ""
    take_over: bool = False
    final: bool = False
    row: Annotated[str, Field(max_length=64)] = ""
    better: Shown = "tie"
    a: Marks = UNMARKED
    b: Marks = UNMARKED
    comment: Annotated[str, Field(max_length=LONGEST_COMMENT)] = ""


class Review:
    """The rows, the votes so far, and the requests that pages make."""

    def __init__(self, match: Match, store: Store, options: EvaluateOptions) -> None:
        self.match, self.store, self.options = match, store, options
        self.rows = {row.id: row for row in match.rows}
        self.sessions: set[str] = set()

    def join(self, asked: Asked) -> dict[str, Any]:
        """Give a page its reviewer's name, as it will be written.

        Raises:
            RunError: there is no name, or another page has it now.
        """
        name = " ".join(unicodedata.normalize("NFC", asked.name).split())
        if not name or not name.isprintable():
            raise RunError("error.people_no_name")
        if not self.store.enter(name, asked.session, take_over=asked.take_over):
            raise RunError("error.people_same_name", name=name)
        self.sessions.add(asked.session)
        return {"name": name}

    def beat(self, asked: Asked) -> dict[str, Any]:
        """Keep the name while the page is open."""
        return {"name": self._reviewer(asked)}

    def list(self, asked: Asked) -> dict[str, Any]:
        """Return the rows to go through: all, or those that reviewers judged differently."""
        reviewer = self._reviewer(asked)
        by_row = votes_by_row(self.match, self.store.votes())
        if asked.final:
            chosen = [self.rows[row] for row, votes in by_row.items() if differ(votes)]
        else:
            chosen = list(self.match.rows)
        found = []
        for row in chosen:
            own = _own(by_row.get(row.id, ()), reviewer, final=asked.final)
            found.append({"id": row.id, "head": row.question[:_HEAD], "done": own is not None})
        return {"rows": found}

    def row(self, asked: Asked) -> dict[str, Any]:
        """Return a row with its two answers, and what this reviewer said of it before.

        Who settles a row also sees what the others said.
        """
        reviewer, row = self._reviewer(asked), self._row(asked)
        swapped = self._swapped(reviewer, row.id)
        votes = votes_by_row(self.match, self.store.votes()).get(row.id, [])
        own = _own(votes, reviewer, final=asked.final)
        others = [vote for vote in votes if asked.final and not vote.final]
        return {
            "prompt": row.prompt,
            "reference": row.reference,
            "answers": _turned(*row.answers, swapped),
            "own": _seen(own, swapped) if own else None,
            "said": [_seen(vote, swapped) for vote in others],
        }

    def vote(self, asked: Asked) -> dict[str, Any]:
        """Write down a vote."""
        reviewer, row = self._reviewer(asked), self._row(asked)
        swapped = self._swapped(reviewer, row.id)
        sides: dict[Shown, Better] = {"a": "one", "tie": "tie", "b": "other"}
        turned: dict[Shown, Better] = {"a": "other", "tie": "tie", "b": "one"}
        one, other = _turned(asked.a, asked.b, swapped)
        self.store.put(
            Vote(
                row.id,
                reviewer,
                (turned if swapped else sides)[asked.better],
                one,
                other,
                asked.comment.strip(),
                asked.final,
            )
        )
        return {}

    def results(self, asked: Asked) -> dict[str, Any]:
        """Return what came out so far, to one who has nothing left to judge.

        Raises:
            RunError: rows are left.
        """
        reviewer = self._reviewer(asked)
        votes = self.store.votes()
        by_row = votes_by_row(self.match, votes)
        own = [row for row, of in by_row.items() if _own(of, reviewer)]
        settled = any(_own(of, reviewer, final=True) for of in by_row.values())
        open_rows = sum(differ(of) and not any(v.final for v in of) for of in by_row.values())
        found = count_votes(self.match, votes, self.options)
        if found is None or (len(own) < len(self.rows) and (open_rows or not settled)):
            raise RunError("error.people_rows_left")
        said: dict[str, Any] = {
            tongue: {"headline": headline(found, tongue), "facts": facts(found, tongue)}
            for tongue in LANGUAGES
        }
        return {**said, "open": open_rows}

    def _reviewer(self, asked: Asked) -> str:
        reviewer = self.store.reviewer_of(asked.session)
        if reviewer is None:
            raise RunError("error.people_elsewhere")
        return reviewer

    def _row(self, asked: Asked) -> Row:
        if asked.row not in self.rows:
            raise RunError("error.people_no_row")
        return self.rows[asked.row]

    def _swapped(self, reviewer: str, row: str) -> bool:
        drawn = hashlib.sha256(f"{self.store.seed}\0{reviewer}\0{row}".encode()).digest()
        return bool(drawn[0] & 1)


def _own(votes: Sequence[Vote], reviewer: str, *, final: bool = False) -> Vote | None:
    """Return the reviewer's vote; a row that is settled is settled for everybody."""
    mine = (v for v in votes if v.final == final and (final or v.reviewer == reviewer))
    return next(mine, None)


def _turned(one: Any, other: Any, swapped: bool) -> tuple[Any, Any]:
    return (other, one) if swapped else (one, other)


def _seen(vote: Vote, swapped: bool) -> dict[str, Any]:
    """Return a vote as it looks beside the answers as they are shown."""
    better = {"one": "b" if swapped else "a", "other": "a" if swapped else "b", "tie": "tie"}
    a, b = _turned(vote.one, vote.other, swapped)
    return {
        "reviewer": vote.reviewer,
        "better": better[vote.better],
        "a": a,
        "b": b,
        "comment": vote.comment,
    }

"""The file of decisions: beside the data, one JSON object a line, only ever added to."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from weitiao.errors import DataError, RunError
from weitiao.records.files import write_error
from weitiao.records.options import ReviewOptions
from weitiao.records.record import Origin, Record
from weitiao.records.review.edits import Edit

Verdict = Literal["accept", "edit", "reject"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

ENDING = ".review.jsonl"
"""How the names of files of decisions end; they are no data."""

_NO_ORIGIN = {"file": "", "line": 0}
_END_OF_TIME = 3e10
# No clock of a computer goes beyond it, and not every system can say the date.


@dataclass(frozen=True, slots=True)
class Vote:
    """What one reviewer decided about one row.

    ``row``: the ``Record.id`` of the row as it was read; ``edited``: what it shall say, for
    an edit; ``time``: seconds since the epoch.
    """

    row: str
    reviewer: str
    verdict: Verdict
    time: float
    edited: Edit | None = None
    comment: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the line of the file."""
        line: dict[str, Any] = {
            "row": self.row,
            "reviewer": self.reviewer,
            "verdict": self.verdict,
        }
        if isinstance(self.edited, str):
            line["edited"] = self.edited
        elif self.edited is not None:
            line["edited"] = Record(Origin("", 0), self.edited).to_json()["messages"]
        if self.comment:
            line["comment"] = self.comment
        return {**line, "time": round(self.time, 3)}

    @staticmethod
    def from_json(line: Mapping[str, Any]) -> "Vote":
        """Return the vote that :meth:`to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, OverflowError: it is none.
        """
        verdict, edited, time = line["verdict"], line.get("edited"), float(line["time"])
        if verdict not in VERDICTS or (verdict == "edit") != bool(edited):
            raise ValueError(verdict)
        if not 0 <= time < _END_OF_TIME:
            raise ValueError(time)
        if isinstance(edited, list):
            edited = Record.from_json({"origin": _NO_ORIGIN, "messages": edited}).messages
        texts = [line["row"], line["reviewer"], line.get("comment", "")]
        texts += [m.content for m in edited] if isinstance(edited, tuple) else [edited or ""]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(texts)
        return Vote(line["row"], line["reviewer"], verdict, time, edited, line.get("comment", ""))


class Votes(Mapping[str, tuple[Vote, ...]]):
    """``Record.id`` → the votes on that row: each reviewer's last, the latest at the end.

    ``broken`` counts lines that are no vote, such as one that a killed program left half
    written; they stay in the file. Several processes may add to one file at a time: each
    sees the others' votes after :meth:`refresh`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = 0
        self._by_row: dict[str, tuple[Vote, ...]] = {}
        self._read = 0
        self.refresh()

    def __getitem__(self, row: str) -> tuple[Vote, ...]:
        return self._by_row[row]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_row)

    def __len__(self) -> int:
        return len(self._by_row)

    def of(self, row: str, reviewer: str) -> Vote | None:
        """Return the reviewer's vote on ``row``."""
        return next((vote for vote in self.get(row, ()) if vote.reviewer == reviewer), None)

    def refresh(self) -> None:
        """Read what was added since the last time; no file is a file without votes.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            cause = error.strerror or str(error)
            raise DataError("error.file_unreadable", path=self.path, cause=cause) from error
        *whole, rest = lines
        for line in whole:
            self._read += len(line) + 1
            self.broken += not self._take(line) and bool(line.strip())
        # A line without an end may be half of one: it counts if it can be read, and is read
        # again next time.
        self._take(rest)

    def _take(self, line: bytes) -> bool:
        try:
            vote = Vote.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return False
        others = (other for other in self.get(vote.row, ()) if other.reviewer != vote.reviewer)
        self._by_row[vote.row] = (*others, vote)
        return True

    def add(self, *votes: Vote) -> None:
        """Write votes to the file, on the disk when this returns, and take them in.

        Raises:
            RunError: the disk is full, or the file cannot be written.
        """
        if votes:
            _append(self.path, b"".join(_line(vote) for vote in votes))
            self.refresh()

    def newer(self, votes: Iterable[Vote]) -> list[Vote]:
        """Return those of ``votes`` that are later than what is known of row and reviewer."""
        known = ((vote, self.of(vote.row, vote.reviewer)) for vote in votes)
        # The file's times are rounded.
        return [vote for vote, old in known if old is None or round(vote.time, 3) > old.time]


def votes_path(data: Path) -> Path:
    """Return the place of the decisions on the file or folder ``data``: beside it."""
    return data.with_name((data.name if data.is_dir() else data.stem) + ENDING)


def load_votes(path: Path) -> Votes:
    """Return the votes of a file; none where there is no file.

    Raises:
        DataError: the file cannot be read, or it holds lines and no vote.
    """
    votes = Votes(path)
    if votes.broken and not votes:
        raise DataError("error.review_no_votes", path=path)
    return votes


def find_votes(data: Path, options: ReviewOptions) -> Votes:
    """Return the votes on ``data``: of the file that the options name, or of that beside it.

    Raises:
        DataError: the file that was named is not there, or it holds no votes.
    """
    if options.file is None:
        return load_votes(votes_path(data))
    path = Path(options.file)
    if not path.exists():
        raise DataError("error.review_missing_file", path=path)
    return load_votes(path)


def _line(vote: Vote) -> bytes:
    line = vote.to_json()
    try:
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair can only be written escaped
        return json.dumps(line).encode() + b"\n"


def _append(path: Path, lines: bytes) -> None:
    """Add whole lines in one write, so that those of several processes do not mix."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                # After a line that a killed program left half written, begin a new one.
                lines = lines if file.read(1) == b"\n" else b"\n" + lines
            written = file.write(lines)
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error
    if written != len(lines):
        raise RunError("error.disk_full", path=path)

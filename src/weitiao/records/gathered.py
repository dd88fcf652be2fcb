"""All rows that came through their stage, on disk, and the few numbers kept of each."""

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson

from weitiao.records.findings import EXAMPLES, Findings
from weitiao.records.kept import Kept
from weitiao.records.record import Origin, Reason
from weitiao.records.report import Place, Rejection
from weitiao.records.spool import Spool, dumps
from weitiao.records.stage import Done, Rejected, Turned

_EXAMPLE_LENGTH = 160


class Gathered:
    """Usable rows in ``kept`` and the others in ``rejected``, as they come.

    Of each usable row stay, in arrays of one item a row: its file and line, the keys of its
    group, its tokens; and an entry in the index of duplicates. All in all about 250 bytes.
    """

    def __init__(self, folder: Path, *, reject_duplicates: bool) -> None:
        self.kept, self.rejected = Spool(folder / "kept"), Spool(folder / "rejected")
        self.findings = Findings()
        self.reasons: Counter[str] = Counter()
        self.rejections: dict[str, list[Rejection]] = {}
        self.files: list[str] = []
        self.sources: list[int] = []
        self.file, self.line = array("i"), array("q")
        self.read, self.group = array("Q"), array("Q")
        self.samples, self.tokens, self.scored = array("q"), array("q"), array("q")
        self.shortened, self.votes = array("q"), array("q")
        self.value, self.time = array("i"), array("i")
        self.names: dict[str, int] = {"": 0}
        self.parents: dict[int, str] = {}
        # Rows are numbered as they come, repeats too; a number is smaller than an Origin.
        self._seen: dict[bytes, int] = {}
        self._usable = 0
        self._repeats = array("q")
        self._reject_duplicates = reject_duplicates

    @property
    def rows(self) -> int:
        """Rows read so far, usable or not."""
        return len(self.kept) + len(self.rejected)

    def origin(self, row: int) -> Origin:
        """Return where usable row ``row`` stood."""
        return Origin(self.files[self.file[row]], self.line[row])

    def begin_file(self, name: str, source: int) -> None:
        """All rows from here on stood in ``name``, of the task (0) or an entry of ``mix``."""
        self.files.append(name)
        self.sources.append(source)

    def add(self, done: Done) -> None:
        """Take in a block of rows of the file begun last."""
        self.findings.add(done.findings)
        turned_away, kept = list(done.rejected), done.kept
        if self._reject_duplicates and (again := self._said_again(kept)):
            self._keep(kept.at([row for row in range(len(kept)) if row not in again]))
            for row, first in again.items():
                origin = self.origin(first - bisect_left(self._repeats, first))
                reason = Reason("duplicate", {"file": origin.file, "line": origin.line})
                line = _refusal(kept.json[row], Origin(self.files[-1], kept.line[row]), reason)
                turned_away.append((kept.line[row], reason.name, line))
        else:
            self._keep(kept)
        self._reject(sorted(turned_away))

    def _said_again(self, rows: Kept) -> dict[int, int]:
        """Return row of the block → the row that said the same, as numbered with repeats."""
        begin, said = self._usable, rows.said
        self._usable += len(said)
        firsts = list(map(self._seen.setdefault, said, range(begin, self._usable)))
        again = {i: first for i, first in enumerate(firsts) if first != begin + i}
        self._repeats.extend(begin + i for i in again)
        return again

    def refuse(self, row: int, reason: Reason) -> None:
        """Reject usable row ``row`` for what other rows or people say of it."""
        origin = self.origin(row)
        line = _refusal(self.kept.line(row), origin, reason)
        self._reject([(origin.line, reason.name, line)])

    def _reject(self, rows: Sequence[Turned]) -> None:
        for _, name, line in rows:
            self.reasons[name] += 1
            examples = self.rejections.setdefault(name, [])
            if len(examples) < EXAMPLES:
                examples.append(_example(line))
        self.rejected.extend([line for _, _, line in rows])

    def close(self) -> None:
        """Close the files; no row can be read any more."""
        self.kept.close()
        self.rejected.close()

    def _keep(self, rows: Kept) -> None:
        number, names = len(self.kept), self.names
        self.kept.extend(rows.json)
        self.file.extend(array("i", [len(self.files) - 1]) * len(rows))
        self.read.frombytes(np.frombuffer(b"".join(rows.read), ">u8")[::2].astype("u8").tobytes())
        for column in ("line", "group", "samples", "tokens", "scored", "shortened", "votes"):
            getattr(self, column).extend(getattr(rows, column))
        for column in ("value", "time"):
            given = [names.setdefault(value, len(names)) for value in getattr(rows, column)]
            getattr(self, column).extend(array("i", given or bytes(4 * len(rows))))
        if any(rows.parent):
            self.parents |= {number + i: of for i, of in enumerate(rows.parent) if of}


def _refusal(record: bytes, origin: Origin, reason: Reason) -> bytes:
    """Return the line of ``rejected.jsonl`` of a row that stands as a record."""
    return dumps(Rejected(origin, orjson.Fragment(record), reason).to_json())


def _example(line: bytes) -> Rejection:
    rejected = Rejected.from_json(orjson.loads(line))
    return Rejection(
        place=Place(
            file=rejected.origin.file, line=rejected.origin.line, text=_beginning(rejected.row)
        ),
        reason=rejected.reason.name,
        values=rejected.reason.values,
    )


def _beginning(row: object) -> str:
    """Return the beginning of what a row says, whatever form it has."""
    if isinstance(row, dict):
        turns = row.get("messages")
        if isinstance(turns, list) and all(isinstance(turn, dict) for turn in turns):
            row = " \u2192 ".join(str(turn.get("content", "")) for turn in turns)
        else:
            row = " \u2192 ".join(str(value) for value in row.values())
    return str(row)[:_EXAMPLE_LENGTH]

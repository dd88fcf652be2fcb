"""All rows that came through their stage, on disk, and the few numbers kept of each."""

from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson

from weitiao.records.findings import EXAMPLES, Findings
from weitiao.records.record import Origin, Reason
from weitiao.records.report import Place, Rejection
from weitiao.records.spool import Spool, dumps
from weitiao.records.stage import Done, Kept, Rejected

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
        self.samples, self.tokens, self.scored = array("i"), array("q"), array("q")
        self.shortened = array("b")
        self.votes = array("i")
        self.value, self.time = array("i"), array("i")
        self.names: dict[str, int] = {}
        self.parents: dict[int, str] = {}
        self._seen: dict[bytes, int] = {}
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
        turned_away = list(done.rejected)
        fresh: list[Kept] = []
        number = len(self.kept)
        for row in done.kept:
            # The row before it is looked up by number: 8 bytes rather than an Origin.
            first = self._seen.setdefault(row.said, number)
            if first == number or not self._reject_duplicates:
                fresh.append(row)
                number += 1
                continue
            if first < len(self.kept):
                origin = self.origin(first)
            else:
                origin = Origin(self.files[-1], fresh[first - len(self.kept)].line)
            reason = Reason("duplicate", {"file": origin.file, "line": origin.line})
            line = _refusal(row.json, Origin(self.files[-1], row.line), reason)
            turned_away.append((row.line, reason.name, line))
        self._keep(fresh)
        for _, name, line in sorted(turned_away):
            self._reject(name, line)

    def refuse(self, row: int, reason: Reason) -> None:
        """Reject usable row ``row`` for what other rows or people say of it."""
        self._reject(reason.name, _refusal(self.kept.line(row), self.origin(row), reason))

    def _reject(self, name: str, line: bytes) -> None:
        self.reasons[name] += 1
        examples = self.rejections.setdefault(name, [])
        if len(examples) < EXAMPLES:
            examples.append(_example(line))
        self.rejected.append(line)

    def close(self) -> None:
        """Close the files; no row can be read any more."""
        self.kept.close()
        self.rejected.close()

    def _keep(self, rows: Sequence[Kept]) -> None:
        number = len(self.kept)
        self.kept.extend([row.json for row in rows])
        self.file.extend([len(self.files) - 1] * len(rows))
        self.line.extend([row.line for row in rows])
        self.read.extend([int.from_bytes(row.read[:8], "big") for row in rows])
        self.group.extend([row.group for row in rows])
        self.samples.extend([row.samples for row in rows])
        self.tokens.extend([row.tokens for row in rows])
        self.scored.extend([row.scored for row in rows])
        self.shortened.extend([row.shortened for row in rows])
        self.votes.extend([row.votes for row in rows])
        names = self.names
        self.value.extend([names.setdefault(row.value, len(names)) for row in rows])
        self.time.extend([names.setdefault(row.time, len(names)) for row in rows])
        self.parents |= {number + i: row.parent for i, row in enumerate(rows) if row.parent}


def _refusal(record: bytes, origin: Origin, reason: Reason) -> bytes:
    """Return the line of ``rejected.jsonl`` of a row that stands as a record."""
    line = dumps(Rejected(origin, None, reason).to_json())
    # The record is JSON already: it takes the place of the empty row.
    return line.replace(b'"row":null', b'"row":' + record, 1)


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

"""The stage: from data files to kept and rejected rows, a split, and a report of it all.

Rows stream through; what is kept of them in memory are numbers (:mod:`gathered`). Large
files are worked on by several processes, with the same result.
"""

import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import orjson

from weitiao.errors import DataError
from weitiao.events import EventLog
from weitiao.records.describe import describe
from weitiao.records.files import open_atomic, write_atomic
from weitiao.records.gathered import Gathered
from weitiao.records.options import DataOptions
from weitiao.records.processes import in_order, rarely_collecting
from weitiao.records.reading import find_files, unread_files
from weitiao.records.record import Reason, Record
from weitiao.records.render import ChatFormat, Sample
from weitiao.records.report import DataReport, FileReport, Note
from weitiao.records.review import Votes, find_votes
from weitiao.records.settle import Settled, parts_of, settle
from weitiao.records.source import Source, open_source
from weitiao.records.spool import Spool, Stored
from weitiao.records.stage import Block, Done, Rejected, Stage

_BLOCK_ROWS = 2000
_SECONDS_BETWEEN_EVENTS = 0.2
_BYTES_FOR_PROCESSES = 24 << 20
"""A smaller file is done before other processes have begun."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What the data hold: ``split`` gives part → indices of ``records``.

    The rows stand on disk, in a folder of their own, and are read as they are asked for.
    """

    records: Sequence[Record]
    rejected: Sequence[Rejected]
    split: Mapping[str, Sequence[int]]
    report: DataReport


def check(path: Path, options: DataOptions, chat: ChatFormat | None, events: EventLog) -> Checked:
    """Read and check the file or folder at ``path``, and write nothing there.

    Without ``chat`` no tokens are counted, and nothing is rejected for a model's sake.

    Raises:
        DataError: the data cannot be read, or no row of it can be used.
    """
    folder = TemporaryDirectory(prefix="weitiao-")
    gathered, settled, report = _read(path, options, chat, events, Path(folder.name))
    used = settled.used
    place = np.full(len(settled.part), -1, dtype=np.int64)
    place[used] = np.arange(len(used))
    records = Stored(gathered.kept, used, Record.from_json, folder)
    rejected = Stored(gathered.rejected, range(len(gathered.rejected)), Rejected.from_json, folder)
    weakref.finalize(records, gathered.close)
    parts = {name: place[rows].tolist() for name, rows in parts_of(settled)}
    return Checked(records, rejected, parts, report)


def prepare(
    path: Path, out_dir: Path, options: DataOptions, chat: ChatFormat, events: EventLog
) -> DataReport:
    """Check ``path`` and write kept, rejected, train, val, test (jsonl) and report.json.

    Raises:
        DataError: the data cannot be read, or no row of it can be used.
        RunError: ``out_dir`` cannot be written.
    """
    with TemporaryDirectory(prefix="weitiao-") as folder:
        gathered, settled, report = _read(path, options, chat, events, Path(folder))
        _write_lines(out_dir / "kept.jsonl", gathered.kept, settled.used)
        _write_lines(out_dir / "rejected.jsonl", gathered.rejected, range(len(gathered.rejected)))
        for part, rows in parts_of(settled):
            _write_lines(out_dir / f"{part}.jsonl", gathered.kept, rows)
        gathered.close()
    write_atomic(out_dir / "report.json", report.model_dump_json(indent=2) + "\n")
    return report


def load_records(path: Path) -> list[Record]:
    """Return the records of a file that :func:`prepare` wrote."""
    with path.open("rb") as lines:
        return [Record.from_json(orjson.loads(line)) for line in lines]


def load_samples(records: Sequence[Record], chat: ChatFormat, options: DataOptions) -> list[Sample]:
    """Return the samples of records that were kept; ``Sample.row`` counts from 0.

    Raises:
        DataError: a record cannot be rendered, as with another model than it was checked for.
    """
    samples: list[Sample] = []
    for start in range(0, len(records), _BLOCK_ROWS):
        block = records[start : start + _BLOCK_ROWS]
        outcomes = chat.batch(
            block,
            start,
            max_tokens=options.max_tokens,
            too_long=options.too_long,
            score_turns=options.score_turns,
            reasoning=options.reasoning,
        )
        for record, outcome in zip(block, outcomes, strict=True):
            if isinstance(outcome, Reason):
                raise DataError(
                    "error.row_unusable",
                    file=record.origin.file,
                    line=record.origin.line,
                    reason=outcome.sentence(),
                )
            samples += outcome
    return samples


def _read(
    path: Path, options: DataOptions, chat: ChatFormat | None, events: EventLog, folder: Path
) -> tuple[Gathered, Settled, DataReport]:
    gathered = Gathered(folder, reject_duplicates=options.duplicates == "reject")
    votes = find_votes(path, options.review)
    reader = _Reader(options, chat, votes, gathered, events)
    reader.notes += _notes_on(path, votes)
    files = [reader.read(file, 0) for file in find_files(path)]
    for source, name in enumerate(options.mix, start=1):
        files += [reader.read(file, source) for file in find_files(Path(name).expanduser())]
    if not len(gathered.kept):
        raise _nothing_kept(path, gathered)
    reader.notes += _missing_columns(path, options, gathered)
    settled = settle(gathered, options)
    for row, reason in sorted(settled.refused.items()):
        gathered.refuse(row, reason)
    if not len(settled.used):
        raise _nothing_kept(path, gathered)
    report = describe(files, gathered, settled, options, reader.notes, votes)
    events.emit("records.done", **report.model_dump(mode="json"))
    return gathered, settled, report


class _Reader:
    """Reads file after file into ``gathered``, and tells how far it is."""

    def __init__(
        self,
        options: DataOptions,
        chat: ChatFormat | None,
        votes: Votes,
        gathered: Gathered,
        events: EventLog,
    ) -> None:
        self.notes: list[Note] = []
        self._options, self._gathered, self._events = options, gathered, events
        self._arguments = (options, chat, votes)
        self._stage = Stage(*self._arguments)
        self._told = 0.0

    def read(self, path: Path, place: int) -> FileReport:
        """Read one file to its end; ``place`` is 0 for the task, else its place in ``mix``."""
        gathered, options = self._gathered, self._options
        if place:  # what was said of the user's own file need not hold for another
            options = options.model_copy(update={"encoding": None, "columns": None})
        source = open_source(path, options)
        self.notes += source.notes
        report = source.report
        self._events.emit("records.file", path=str(path), **report.model_dump(mode="json"))
        gathered.begin_file(path.name, place)
        rows_before, kept_before = gathered.rows, len(gathered.kept)
        with rarely_collecting():
            for done in self._results(path, source):
                gathered.add(done)
                self._tell()
        if gathered.rows == rows_before:
            raise DataError("error.no_rows", path=path)
        counted = {
            "rows": gathered.rows - rows_before,
            "kept": len(gathered.kept) - kept_before,
        }
        return report.model_copy(update=counted)

    def _results(self, path: Path, source: Source) -> Iterator[Done]:
        processes = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        if processes > 1 and path.stat().st_size >= _BYTES_FOR_PROCESSES:
            return in_order(Stage, self._arguments, _blocks(source, apart=True), processes - 1)
        return map(self._stage, _blocks(source))

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= _SECONDS_BETWEEN_EVENTS:
            self._told = now
            rows, kept = self._gathered.rows, len(self._gathered.kept)
            self._events.emit("records.progress", rows=rows, kept=kept)


def _missing_columns(path: Path, options: DataOptions, gathered: Gathered) -> list[Note]:
    """Raise where a column is not there by which rows would be left out; tell of another."""
    columns = list(gathered.findings.categories)
    for column in (options.balance.by, options.similar.time_column):
        if column is not None and column not in columns:
            near = ", ".join(columns) or "-"
            raise DataError("error.no_metadata", file=path.name, column=column, columns=near)
    if options.group_by is None or options.group_by in columns:
        return []
    return [Note(name="no_group_column", values={"column": options.group_by})]


def _notes_on(path: Path, votes: Votes) -> list[Note]:
    """Return what is beside the rows and is not used."""
    notes = []
    if unread := unread_files(path):
        notes.append(Note(name="unread_files", values={"files": ", ".join(unread)}))
    if votes.broken:
        values = {"file": votes.path.name, "count": votes.broken}
        notes.append(Note(name="review_broken", values=values))
    return notes


def _blocks(source: Source, *, apart: bool = False) -> Iterator[Block]:
    """Yield the file's rows in blocks; ``apart``: not yet read, where that can be."""
    if apart and source.stretches is not None:
        for stretch in source.stretches:
            yield Block(stretch, source.shape, source.encoding)
        return
    while rows := list(islice(source.rows, _BLOCK_ROWS)):
        yield Block(rows, source.shape, source.encoding)


def _nothing_kept(path: Path, gathered: Gathered) -> DataError:
    name, count = gathered.reasons.most_common(1)[0]
    example = gathered.rejections[name][0]
    reason = Reason(example.reason, example.values)
    return DataError(
        "error.nothing_kept",
        path=path,
        rows=len(gathered.rejected),
        count=count,
        file=example.place.file,
        line=example.place.line,
        reason=reason.sentence(),
        hint=reason.hint(),
    )


def _write_lines(path: Path, lines: Spool, rows: Iterable[int]) -> None:
    with open_atomic(path) as out:
        for row in rows:
            out.write(lines.line(int(row)) + b"\n")

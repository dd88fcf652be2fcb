"""The stage: from a data file to kept and rejected rows, a split, and a report of it all."""

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from weitiao.errors import DataError
from weitiao.events import EventLog
from weitiao.records import checks
from weitiao.records.files import open_atomic, write_atomic
from weitiao.records.options import DataOptions
from weitiao.records.reading.files import KINDS, FileRead, RawRow, find_files, read_file
from weitiao.records.record import Origin, Reason, Record
from weitiao.records.render import ChatFormat, Sample
from weitiao.records.report import DataReport, FileReport, Note, quantiles
from weitiao.records.shaping.shapes import Shape, detect_shape, to_record
from weitiao.records.split import PARTS, split

_ROWS_FOR_SHAPE = 200
_SECONDS_BETWEEN_EVENTS = 0.2


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not used: as it was (its text, if it could not be parsed), and why."""

    origin: Origin
    row: Any
    reason: Reason

    def to_json(self) -> dict[str, Any]:
        """Return the line of ``rejected.jsonl``."""
        return {
            "row": self.row,
            "file": self.origin.file,
            "line": self.origin.line,
            "reason": self.reason.name,
            "values": dict(self.reason.values),
            "hint": self.reason.hint("en"),
        }


@dataclass(frozen=True, slots=True)
class Checked:
    """What a data file holds: ``split`` gives part → indices of ``records``."""

    records: tuple[Record, ...]
    rejected: tuple[Rejected, ...]
    split: Mapping[str, Sequence[int]]
    report: DataReport


@dataclass(slots=True)
class _Tally:
    """What is gathered while the rows go by."""

    context: checks.Context
    events: EventLog
    records: list[Record] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    scored: int = 0
    samples: int = 0
    shortened: int = 0
    unanswered: int = 0
    rows: int = 0
    told: float = 0.0


def check(path: Path, options: DataOptions, chat: ChatFormat, events: EventLog) -> Checked:
    """Read and check the file or folder at ``path``, and write nothing.

    Raises:
        DataError: the data cannot be read, or no row of it can be used.
    """
    tally = _Tally(checks.Context(chat, options), events)
    files, notes = [], []
    for file in find_files(path):
        read = read_file(file, options.encoding)
        files.append(_check_file(read, options, tally))
        if KINDS[file.suffix.lower()] != read.kind:
            notes.append(Note(name="read_as", values={"file": file.name, "kind": read.kind}))
    if tally.unanswered:
        notes.append(Note(name="unanswered", values={"count": tally.unanswered}))
    reasons = Counter(rejected.reason.name for rejected in tally.rejected)
    if not tally.records:
        raise _nothing_kept(path, tally.rejected, reasons)
    parts = split(tally.records, options.split, options.seed, options.group_by)
    if any(ratio > 0 and not parts[part] for part, ratio in zip(PARTS, options.split, strict=True)):
        notes.append(Note(name="few_groups"))
    report = DataReport(
        files=tuple(files),
        rows=tally.rows,
        kept=len(tally.records),
        rejected=len(tally.rejected),
        reasons=dict(reasons.most_common()),
        shortened=tally.shortened,
        samples=tally.samples,
        tokens=sum(tally.tokens),
        scored_tokens=tally.scored,
        lengths=quantiles(tally.tokens),
        split={part: len(indices) for part, indices in parts.items()},
        notes=tuple(notes),
    )
    assert report.kept + report.rejected == report.rows == sum(f.rows for f in files)
    events.emit("records.done", **report.model_dump(mode="json"))
    return Checked(tuple(tally.records), tuple(tally.rejected), parts, report)


def prepare(
    path: Path, out_dir: Path, options: DataOptions, chat: ChatFormat, events: EventLog
) -> DataReport:
    """Check ``path`` and write kept, rejected, train, val, test (jsonl) and report.json.

    Raises:
        DataError: the data cannot be read, or no row of it can be used.
        RunError: ``out_dir`` cannot be written.
    """
    checked = check(path, options, chat, events)
    _write_rows(out_dir / "kept.jsonl", (record.to_json() for record in checked.records))
    _write_rows(out_dir / "rejected.jsonl", (row.to_json() for row in checked.rejected))
    for part, indices in checked.split.items():
        _write_rows(out_dir / f"{part}.jsonl", (checked.records[i].to_json() for i in indices))
    write_atomic(out_dir / "report.json", checked.report.model_dump_json(indent=2) + "\n")
    return checked.report


def load_records(path: Path) -> list[Record]:
    """Return the records of a file that :func:`prepare` wrote."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        return [Record.from_json(json.loads(line)) for line in lines]


def load_samples(records: Iterable[Record], chat: ChatFormat, options: DataOptions) -> list[Sample]:
    """Return the samples of records that were kept; ``Sample.row`` counts from 0.

    Raises:
        DataError: a record cannot be rendered, as with another model than it was checked for.
    """
    samples: list[Sample] = []
    for row, record in enumerate(records):
        found = _samples(record, row, chat, options)
        if isinstance(found, Reason):
            raise DataError(
                "error.row_unusable",
                file=record.origin.file,
                line=record.origin.line,
                reason=found.sentence(),
            )
        samples += found
    return samples


def _samples(
    record: Record, row: int, chat: ChatFormat, options: DataOptions
) -> list[Sample] | Reason:
    return chat.samples(
        record,
        row,
        max_tokens=options.max_tokens,
        too_long=options.too_long,
        score_turns=options.score_turns,
    )


def _check_file(read: FileRead, options: DataOptions, tally: _Tally) -> FileReport:
    rows = itertools.islice(read.rows, options.limit)
    first: list[RawRow] = []
    readable: list[Mapping[str, Any]] = []
    for row in rows:
        first.append(row)
        if row.data is not None:
            readable.append(row.data)
        if len(readable) == _ROWS_FOR_SHAPE:
            break
    if not first:
        raise DataError("error.no_rows", path=read.path)
    # Without one readable row there is nothing to have a shape: each is rejected as it is.
    name, columns = read.path.name, cast("Mapping[str, str] | None", options.columns)
    shape = detect_shape(readable, columns, name) if readable else Shape("unknown", {})
    kept_before, rows_before = len(tally.records), tally.rows
    report = FileReport(
        file=name,
        format=read.kind,
        encoding=read.encoding.name,
        how=read.encoding.how,
        shape=shape.name,
        columns=shape.columns,
        rows=0,
        kept=0,
    )
    tally.events.emit("records.file", path=str(read.path), **report.model_dump(mode="json"))
    for row in itertools.chain(first, rows):
        _check_row(row, shape, tally)
    return report.model_copy(
        update={
            "rows": tally.rows - rows_before,
            "kept": len(tally.records) - kept_before,
        }
    )


def _check_row(row: RawRow, shape: Shape, tally: _Tally) -> None:
    tally.rows += 1
    found = _record(row, shape, tally)
    if isinstance(found, Reason):
        as_it_was = row.raw if row.data is None else row.data
        tally.rejected.append(Rejected(row.origin, as_it_was, found))
    else:
        tally.records.append(found)
    now = time.monotonic()
    if now - tally.told >= _SECONDS_BETWEEN_EVENTS:
        tally.told = now
        tally.events.emit("records.progress", rows=tally.rows, kept=len(tally.records))


def _record(row: RawRow, shape: Shape, tally: _Tally) -> Record | Reason:
    """Return the record, counted and ready to be learnt, or the reason against it."""
    if row.problem is not None or row.data is None:
        return row.problem or Reason("not_an_object")
    options, chat = tally.context.options, tally.context.chat
    record = to_record(row.data, shape, row.origin)
    if isinstance(record, Reason):
        return record
    said = checks.without_unanswered(record)
    ready = checks.with_system(said, options.system)
    if reason := checks.first_reason(ready, tally.context):
        return reason
    samples = _samples(ready, 0, chat, options)
    if isinstance(samples, Reason):
        return samples
    tally.context.seen.setdefault(ready.fingerprint(), row.origin)
    tally.tokens.append(sum(len(sample.ids) for sample in samples))
    tally.scored += sum(int(sample.scored.sum()) for sample in samples)
    tally.samples += len(samples)
    tally.shortened += any(sample.shortened for sample in samples)
    tally.unanswered += len(said.messages) < len(record.messages)
    return ready


def _nothing_kept(path: Path, rejected: Sequence[Rejected], reasons: Counter[str]) -> DataError:
    most = reasons.most_common(1)[0][0]
    example = next(row for row in rejected if row.reason.name == most)
    return DataError(
        "error.nothing_kept",
        path=path,
        rows=len(rejected),
        count=reasons[most],
        file=example.origin.file,
        line=example.origin.line,
        reason=example.reason.sentence(),
        hint=example.reason.hint(),
    )


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with open_atomic(path) as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")

"""A data file opened: its rows, and what is told of how they are read."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import cast

from weitiao.records.options import DataOptions
from weitiao.records.reading import KINDS, RawRow, Stretch, read_file
from weitiao.records.record import Reason, Record
from weitiao.records.report import FileReport, Note
from weitiao.records.shaping import Entry, Shape, detect_shape, reader_of, registry_entry

_ROWS_FOR_SHAPE = 200


@dataclass(frozen=True, slots=True)
class Source:
    """``rows`` are read as they are asked for; ``report`` has no counts yet.

    ``stretches``: the same rows, to be read elsewhere, where the file allows it.
    """

    shape: Shape
    encoding: str
    rows: Iterator[RawRow]
    report: FileReport
    notes: tuple[Note, ...]
    stretches: Iterator[Stretch] | None = None


def open_source(path: Path, options: DataOptions) -> Source:
    """Open a data file and find its shape by its first rows.

    Raises:
        DataError: it cannot be read, or it is not clear what its columns are.
    """
    opened = read_file(path, options.encoding, passage_chars=options.passage_chars)
    notes = [Note(name=name, values=values) for name, values in opened.notes]
    if KINDS.get(path.suffix.lower()) != opened.kind:
        notes.append(Note(name="read_as", values={"file": path.name, "kind": opened.kind}))
    entry = registry_entry(opened.path)
    limits = [n for n in (options.limit, entry.num_samples if entry else None) if n is not None]
    limited = islice(opened.rows, min(limits, default=None))
    shape, rows = _shape_of(limited, path.name, options, entry)
    report = FileReport(
        file=path.name,
        format=opened.kind,
        encoding=opened.encoding.name,
        how=opened.encoding.how,
        shape=shape.name,
        columns=shape.columns,
        rows=0,
        kept=0,
        entry=shape.entry,
    )
    stretches = None if limits else opened.stretches
    return Source(shape, opened.encoding.name, rows, report, tuple(notes), stretches)


def _shape_of(
    rows: Iterator[RawRow], name: str, options: DataOptions, entry: Entry | None
) -> tuple[Shape, Iterator[RawRow]]:
    columns = cast("Mapping[str, str] | None", options.columns)
    first = list(islice(rows, _ROWS_FOR_SHAPE))
    readable = [row.data for row in first if row.data is not None]
    while first and not readable and (more := list(islice(rows, _ROWS_FOR_SHAPE))):
        first += more
        readable = [row.data for row in more if row.data is not None]
    # Without one readable row there is nothing to have a shape: each is rejected as it is.
    shape = detect_shape(readable, columns, name, entry) if readable else Shape("unknown", {})
    return shape, chain(first, rows)


def as_read(
    paths: Iterable[Path],
    options: DataOptions,
    refused: Callable[[RawRow, str, Reason], None],
    told: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Record]:
    """Yield all rows of the files as records, with nothing cleaned, checked or left out.

    ``refused`` is given each row that cannot be read, with its file's encoding and the
    reason; ``told`` how each file is read.

    Raises:
        DataError: a file cannot be read.
    """
    for path in paths:
        source = open_source(path, options)
        told(source.report.sentence())
        for note in source.notes:
            told(note.sentence())
        read = reader_of(source.shape)
        for row in source.rows:
            found = row.problem if row.data is None else read(row.data, row.origin)
            if isinstance(found, Record):
                yield found
            else:
                refused(row, source.encoding, found or Reason("not_an_object"))

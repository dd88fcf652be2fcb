"""Records into a file of another tool, so that reading it gives the same records.

Each row is read back before it is written, and compared: what a format cannot hold is found
out, not guessed, and the row is refused rather than written without it.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from weitiao.errors import DataError
from weitiao.records.files import open_atomic
from weitiao.records.record import Reason, Record
from weitiao.records.shaping.columns import KNOWN
from weitiao.records.shaping.formats import (
    SHAPES,
    difference,
    registry_fields,
    row_of,
    unheld,
)
from weitiao.records.shaping.formats import (
    Format as Format,
)
from weitiao.records.shaping.registry import add_entry, check_registry
from weitiao.records.shaping.rows import Reader, reader_of
from weitiao.records.shaping.turns import UnfitError

ENDINGS = (".jsonl", ".json", ".csv", ".tsv")
"""The endings of files that are written; tables hold alpaca alone."""

_TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Written:
    """``rows`` stand in the file; each of ``refused`` does not, with the reason.

    Where no row could be written there is no file.
    """

    rows: int
    refused: tuple[tuple[Record, Reason], ...]


@dataclass(slots=True)
class _Tally:
    refused: list[tuple[Record, Reason]]
    rows: int = 0
    tools: bool = False
    turns: bool = False


def write(records: Iterable[Record], path: Path, form: Format) -> Written:
    """Write the records to ``path`` in a format of another tool, as they come.

    ``path`` ends in .jsonl or .json, or for alpaca in .csv or .tsv. For llamafactory, an
    entry is added to the ``dataset_info.json`` beside it.

    Raises:
        DataError: ``path`` exists or has another ending, or the registry is in the way.
        RunError: it cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError("error.convert_ending", path=path, endings=" ".join(ENDINGS))
    if ending in _TABLES and form != "alpaca":
        raise DataError("error.convert_table", path=path, format=form)
    if path.exists():
        raise DataError("error.exists", path=path)
    if form == "llamafactory":
        check_registry(path)
    tally = _Tally([])
    if ending in _TABLES:
        lines = _table(iter(records), _TABLES[ending], tally)
    else:
        lines = _lines(records, form, tally)
    first = next(lines, None)
    if first is None:
        return Written(0, tuple(tally.refused))
    start, between, end = ("[\n", ",\n", "\n]\n") if ending == ".json" else ("", "\n", "\n")
    with open_atomic(path) as out:
        out.write((start + first).encode())
        for line in lines:
            out.write((between + line).encode())
        out.write(end.encode())
    if form == "llamafactory":
        add_entry(path, registry_fields(tally.tools, passages=not tally.turns))
    return Written(tally.rows, tuple(tally.refused))


def _lines(records: Iterable[Record], form: Format, tally: _Tally) -> Iterator[str]:
    """Yield each record's row as JSON without line breaks."""
    read = reader_of(SHAPES[form])
    for record in records:
        usual, aside = (partial(_line, record, form, aside, read) for aside in (False, True))
        line = _tried(record, tally, (usual, aside))
        if line is not None:
            yield line


def _tried(record: Record, tally: _Tally, attempts: Sequence[Callable[[], str]]) -> str | None:
    """Return the line of the first attempt that succeeds; None if the record is refused."""
    refused: Reason | None = None
    for attempt in attempts:
        try:
            line = attempt()
        except UnfitError as unfit:
            refused = refused or unfit.reason
            continue
        tally.rows += 1
        tally.tools |= bool(record.tools)
        tally.turns |= record.text is None
        return line
    assert refused is not None
    tally.refused.append((record, refused))
    return None


def _line(record: Record, form: Format, aside: bool, read: Reader) -> str:
    """Return the row as JSON that reads as the same record.

    Raises:
        UnfitError: it does not, or it is no JSON.
    """
    row = row_of(record, form, aside)
    line = _json(row, form)
    _compare(record, read(json.loads(line), record.origin), form)
    return line


def _json(row: Mapping[str, Any], form: Format) -> str:
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        line.encode()
    except (TypeError, ValueError, RecursionError):
        raise unheld(form, _unwritable(row)) from None
    return line


def _unwritable(row: Mapping[str, Any]) -> str:
    """Return the first field that is no JSON: a date, not a number, half of a character."""
    for name, value in row.items():
        try:
            json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            return name.encode(errors="replace").decode()
    return ""


def _compare(record: Record, again: Record | Reason, form: Format) -> None:
    if again != record:
        raise unheld(form, difference(record, again))


def _table(records: Iterator[Record], delimiter: str, tally: _Tally) -> Iterator[str]:
    """Yield the header and rows of a table.

    Its columns of metadata are those of the first record; a row with others is refused, for
    a table cannot tell a field that is empty from one that is missing.
    """
    first = next(records, None)
    if first is None:
        return
    csv.field_size_limit(2**31 - 1)
    metadata = [name for name in first.metadata if _is_header(name)]
    header = ["instruction", "input", "output", "system", *metadata]
    read = reader_of(SHAPES["alpaca"])
    started = False
    for record in chain((first,), records):
        line = _tried(record, tally, (partial(_cells, record, header, delimiter, read),))
        if line is not None:
            if not started:
                # Excel takes a table without this mark for one in the system's old encoding.
                yield "\ufeff" + _joined(header, delimiter)
                started = True
            yield line


def _is_header(name: str) -> bool:
    plain = name == name.strip() and name and not set(name) & set(',;\t"\r\n\ufeff')
    return bool(plain) and name.lower() not in KNOWN


def _cells(record: Record, header: list[str], delimiter: str, read: Reader) -> str:
    row = row_of(record, "alpaca", aside=False)
    _json(row, "alpaca")
    for name, value in row.items():
        if name not in header:
            raise unheld("alpaca", _place(name))
        # Readers of tables, ours among them, take these two for marks of the file.
        if not isinstance(value, str) or "\0" in value or "\ufeff" in value:
            raise unheld("alpaca", _place(name))
    missing = [name for name in header if name not in row and name != "system"]
    if missing:
        raise unheld("alpaca", f"metadata.{missing[0]}")
    line = _joined([row.get(name, "") for name in header], delimiter)
    cells = next(csv.reader(io.StringIO(line, newline="\n"), delimiter=delimiter))
    _compare(record, read(dict(zip(header, cells, strict=True)), record.origin), "alpaca")
    return line


def _place(column: str) -> str:
    """Return the record's field that stands in a column of alpaca's."""
    if column in ("tools", "metadata"):
        return column
    said = column in ("instruction", "output", "system", "history")
    return "messages" if said else f"metadata.{column}"


def _joined(cells: list[str], delimiter: str) -> str:
    out = io.StringIO(newline="")
    # The writer quotes the line ends that it uses itself; both kinds are content here.
    csv.writer(out, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n")

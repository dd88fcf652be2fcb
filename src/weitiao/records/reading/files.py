"""Rows out of json, jsonl and csv files, each with the line it stood on.

A row that cannot be read is still a row: it comes with the reason and its raw text, and
the file goes on after it.
"""

import csv
import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from weitiao.errors import DataError
from weitiao.records.reading.encoding import Encoding, detect, given
from weitiao.records.record import Origin, Reason

Kind = Literal["json", "jsonl", "csv"]

KINDS: dict[str, Kind] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
"""The file name endings that are read."""

CONVERSATION_COLUMNS = ("conversations", "conversation", "messages")
"""Columns that hold a list of turns."""

_REGISTRY = "dataset_info.json"
_SAMPLE_BYTES = 1 << 20
# Undecodable bytes come as these characters (PEP 383), so that one of them spoils only its row.
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_DECODER = json.JSONDecoder(strict=False)
_BLANK = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it stood: its columns in ``data``, or a ``problem`` and the ``raw`` text."""

    origin: Origin
    data: dict[str, Any] | None = None
    problem: Reason | None = None
    raw: str = ""


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file opened for reading: ``kind`` is what it holds, whatever its name ends in."""

    path: Path
    kind: Kind
    encoding: Encoding
    rows: Iterator[RawRow]


def find_files(path: Path) -> list[Path]:
    """Return the data files at ``path``: itself, or those in the folder, sorted by name.

    Raises:
        DataError: nothing is there, or nothing that can be read.
    """
    endings = " ".join(KINDS)
    if path.is_dir():
        files = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in KINDS
            and not file.name.startswith(".")
            and file.name != _REGISTRY  # LLaMA-Factory's list of data sets, no rows
        )
        if not files:
            raise DataError("error.folder_without_data", path=path, endings=endings)
        return files
    if not path.exists():
        near = _near_names(path)
        if near:
            raise DataError("error.file_missing_near", path=path, near=", ".join(near))
        raise DataError("error.file_missing", path=path)
    if path.suffix.lower() not in KINDS:
        raise DataError("error.file_ending", path=path, endings=endings)
    return [path]


def read_file(path: Path, encoding: str | None = None) -> FileRead:
    """Open one data file; its rows are read as they are asked for.

    Raises:
        DataError: the file is empty or cannot be opened, or the encoding is unknown.
    """
    try:
        beginning, telling = _samples(path)
    except OSError as error:
        raise DataError(
            "error.file_unreadable", path=path, cause=error.strerror or str(error)
        ) from error
    if not beginning.strip():
        raise DataError("error.file_empty", path=path)
    found = given(encoding) if encoding else detect(telling)
    head = beginning.decode(found.name, errors="replace").removeprefix("\ufeff")
    kind = KINDS[path.suffix.lower()]
    if kind != "csv":
        kind = _json_kind(head, kind)
    read = {"json": _json_rows, "jsonl": _jsonl_rows, "csv": _csv_rows}[kind]
    return FileRead(path, kind, found, read(path, found.name))


def _near_names(path: Path) -> list[str]:
    try:
        names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in KINDS]
    except OSError:
        return []
    return difflib.get_close_matches(path.name, names, n=3)


def _samples(path: Path) -> tuple[bytes, bytes]:
    """Return the beginning of the file, and its first stretch that is not plain ASCII."""
    with path.open("rb") as file:
        beginning = telling = _whole_lines(file.read(_SAMPLE_BYTES))
        while telling.isascii() and (more := file.read(_SAMPLE_BYTES)):
            telling = _whole_lines(more)
    return beginning, telling


def _whole_lines(data: bytes) -> bytes:
    return data if len(data) < _SAMPLE_BYTES else data[: data.rfind(b"\n") + 1] or data


def _json_kind(head: str, named: Kind) -> Kind:
    """Tell one JSON document from one JSON object a line, whatever the file is called."""
    lines = [line for line in head.split("\n") if line.strip()][:20]
    objects = sum(isinstance(_value_of(line), dict) for line in lines)
    if objects * 2 > len(lines) > 1:
        return "jsonl"
    return "json" if lines[0].lstrip().startswith("[") or lines[0].strip() == "{" else named


def _value_of(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return None


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Yield lines ended by ``\\n`` alone: U+2028 and its like are content."""
    errors = "replace" if encoding.startswith("utf-16") else "surrogateescape"
    with path.open(encoding=encoding, errors=errors, newline="\n") as file:
        for i, line in enumerate(file):
            yield line.removeprefix("\ufeff") if i == 0 else line


def _jsonl_rows(path: Path, encoding: str) -> Iterator[RawRow]:
    for number, line in enumerate(_lines(path, encoding), start=1):
        if not line.strip():
            continue
        origin = Origin(path.name, number)
        try:
            value = json.loads(line.rstrip("\r\n"), strict=False)
        except (ValueError, RecursionError) as error:
            column = getattr(error, "colno", 1)
            yield _broken(origin, line, Reason("broken_json", {"column": column}))
        else:
            yield _row(origin, value, line)


def _row(origin: Origin, value: Any, raw: str) -> RawRow:
    """Return a JSON value as a row, or as a broken one."""
    if _ESCAPED_BYTE.search(raw) or ("\\ud" in raw.lower() and not _is_text(value)):
        return _broken(origin, raw, Reason("broken_encoding"))
    if not isinstance(value, dict):
        return _broken(origin, raw, Reason("not_an_object"))
    return RawRow(origin, value)


def _is_text(value: Any) -> bool:
    """Tell whether all of ``value`` can be written as UTF-8: a lone half of a pair cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _broken(origin: Origin, raw: str, problem: Reason) -> RawRow:
    if _ESCAPED_BYTE.search(raw):
        problem = Reason("broken_encoding")
    shown = _ESCAPED_BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", raw)
    return RawRow(origin, None, problem, shown.rstrip("\r\n"))


def _json_rows(path: Path, encoding: str) -> Iterator[RawRow]:
    text = "".join(_lines(path, encoding))
    try:
        start = _skip(text, 0)
        if not text.startswith("[", start):
            value, end = _DECODER.raw_decode(text, start)
            if _skip(text, end) != len(text):
                raise json.JSONDecodeError("more than one value", text, _skip(text, end))
            start, rows = _rows_inside(text, start, value)
            if rows is not None:
                for number, row in enumerate(rows, start=1):
                    yield _row(Origin(path.name, number), row, json.dumps(row))
                return
        yield from _array_rows(path, text, start)
    except (json.JSONDecodeError, RecursionError) as error:
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        raise DataError("error.json_broken", path=path, line=line, column=column) from error


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _array_rows(path: Path, text: str, start: int) -> Iterator[RawRow]:
    """Yield the items of the array at ``start``, each with the line it begins on."""
    line, counted = 1, 0
    at = _skip(text, start + 1)
    while not text.startswith("]", at):
        value, end = _DECODER.raw_decode(text, at)
        line, counted = line + text.count("\n", counted, at), at
        yield _row(Origin(path.name, line), value, text[at:end])
        at = _skip(text, end)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif not text.startswith("]", at):
            raise json.JSONDecodeError("a comma is missing", text, at)


def _rows_inside(text: str, start: int, value: Any) -> tuple[int, list[Any] | None]:
    """Return where in a JSON object the array of rows begins, or the rows themselves.

    The object may hold one array of objects (``{"data": [...]}``), be a table of columns
    (``{"ask": [...], "answer": [...]}``; a row's line is then its number), or be one row.
    """
    if not isinstance(value, dict):
        return start, [value]
    lists = {k: v for k, v in value.items() if isinstance(v, list)}
    tables = [
        k
        for k, v in lists.items()
        if v and all(isinstance(item, dict) for item in v) and k not in CONVERSATION_COLUMNS
    ]
    if len(tables) == 1:
        name = re.escape(json.dumps(tables[0], ensure_ascii=False))
        for match in re.finditer(name + r"\s*:\s*(?=\[)", text):
            if _DECODER.raw_decode(text, match.end())[0] == value[tables[0]]:
                return match.end(), None
        return start, value[tables[0]]
    sizes = {len(v) for v in lists.values()}
    if (
        lists.keys() == value.keys()
        and len(sizes) == 1
        and not set(CONVERSATION_COLUMNS) & set(value)
    ):
        return start, [
            dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)
        ]
    return start, [value]


def _csv_rows(path: Path, encoding: str) -> Iterator[RawRow]:
    csv.field_size_limit(2**31 - 1)
    lines = _Lines(_lines(path, encoding))
    header_line = lines.peek()
    delimiter = max(",;\t", key=header_line.count)
    header = _header(next(csv.reader(lines, delimiter=delimiter), []))
    lines.start_row()
    reader = csv.reader(lines, delimiter=delimiter)
    while (cells := next(reader, None)) is not None:
        raw, first = "".join(lines.row), lines.first
        if raw.count('"') % 2 and len(lines.row) > 1 and lines.at_end():
            # A quote that never closes has swallowed the rest: give up its line alone.
            lines.push_back(lines.row[1:])
            raw, cells = lines.row[0], []
            reader = csv.reader(lines, delimiter=delimiter)
        lines.start_row()
        if raw.strip():
            yield _csv_row(Origin(path.name, first), header, cells, raw)


def _csv_row(origin: Origin, header: list[str], cells: list[str], raw: str) -> RawRow:
    if _ESCAPED_BYTE.search(raw):
        return _broken(origin, raw, Reason("broken_encoding"))
    if len(cells) != len(header):
        values = {"found": len(cells), "expected": len(header)}
        return _broken(origin, raw, Reason("ragged_row", values))
    return RawRow(origin, dict(zip(header, cells, strict=True)))


def _header(cells: list[str]) -> list[str]:
    """Return column names: a nameless or repeated one gets its number."""
    names: list[str] = []
    for number, cell in enumerate(cells, start=1):
        name = cell.strip() or f"column_{number}"
        names.append(name if name not in names else f"{name}_{number}")
    return names


class _Lines:
    """Lines for ``csv.reader`` that remember which of them make up the row being read."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._waiting: list[str] = []
        self._lines = lines
        self._number = 0
        self.row: list[str] = []

    @property
    def first(self) -> int:
        """The line, from 1, on which the row begins."""
        return self._number - len(self.row) + 1

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._waiting.pop() if self._waiting else next(self._lines)
        self._number += 1
        self.row.append(line)
        return line

    def start_row(self) -> None:
        self.row = []

    def peek(self) -> str:
        line = next(self._lines, "")
        self._waiting.append(line)
        return line

    def at_end(self) -> bool:
        if not self._waiting and (line := next(self._lines, None)) is not None:
            self._waiting.append(line)
        return not self._waiting

    def push_back(self, lines: list[str]) -> None:
        self._waiting.extend(reversed(lines))
        self._number -= len(lines)
        self.row = self.row[: len(self.row) - len(lines)]

"""CSV and TSV: a header, and a row to each line or, between quotation marks, to several."""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from weitiao.records.reading.encoding import Coding
from weitiao.records.reading.lines import BLOCK, lines_of
from weitiao.records.reading.rows import RawRow, column_names
from weitiao.records.record import Reason

_DELIMITERS = ",;\t|"
_BETWEEN_MARKS = re.compile(r'"[^"]*"')

_LONGEST_ROW = 1 << 24
"""Bytes of a row of several lines, after which its quotation mark counts as never closed."""
_LEAST_LIMIT = 1 << 16

_LINES_LOOKED_AT = 1000
_LINES_BEHIND = 50


def csv_rows(path: Path, coding: Coding) -> Iterator[RawRow]:
    """Yield a row for each row that is not blank, its cells as text.

    Where quotation marks do not match, only what they spoil is given up.
    """
    csv.field_size_limit(2**31 - 1)
    with path.open("rb", buffering=BLOCK) as file:
        lines = _Lines(file, coding)
        delimiter, header = _header(lines)
        name, width, reader = path.name, len(header), _reader(lines, delimiter)
        trusted = True
        while True:
            lines.next_row()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                _give_up(lines, delimiter, width)
                reader, trusted = _reader(lines, delimiter), False
                yield lines.broken_row(name, "broken_quotes")
                continue
            if len(cells) < 2 and _is_blank(cells, lines):
                continue
            if len(cells) != width:
                yield lines.broken_row(name, "ragged_row", found=len(cells), expected=width)
            elif lines.broken or not (trusted or lines.is_row(delimiter, width)):
                # After a broken row it may be the rest of it, with the mark that closes it.
                yield lines.broken_row(name, "broken_quotes")
            else:
                trusted = True
                yield RawRow(name, lines.number, dict(zip(header, cells, strict=True)))


class _Lines:
    """Lines for a CSV reader, which keep those of the row being read as they stood.

    ``row``: its lines; ``number``: that of the first; ``broken``: they hold undecodable bytes.
    """

    def __init__(self, file: BinaryIO, coding: Coding) -> None:
        self._coding = coding
        self._coming = _physical_lines(file, coding)
        self._again: list[bytes] = []
        self.row: list[bytes] = []
        self.number = 1
        self.broken = False
        self._limit = _LONGEST_ROW

    def feed(self) -> Iterator[str]:
        """Yield the lines as text, until the file ends or the row has grown too long."""
        codec, row, size = self._coding.codec, self.row, 0
        while True:
            size = 0 if not row else size
            if size > self._limit:
                return
            raw = self._again.pop() if self._again else next(self._coming, None)
            if raw is None:
                return
            row.append(raw)
            size += len(raw)
            try:
                text = raw.decode(codec)
            except UnicodeDecodeError:
                self.broken = True
                text = raw.decode(codec, "replace")
            # A mark in the middle: files were put together.
            yield text.removeprefix("\ufeff") if len(row) == 1 else text

    def next_row(self) -> None:
        self.number += len(self.row)
        self.row.clear()
        self.broken = False

    def read_last_again(self) -> None:
        self._again.append(self.row.pop())
        self.next_row()

    def keep(self, count: int) -> None:
        """Take only so many lines for the row; the others are read again."""
        self._again.extend(reversed(self.row[count:]))
        del self.row[count:]
        self.broken = any(map(self.is_broken, self.row))

    def lower_limit(self) -> None:
        """Let the next row that never ends cost half of what this one did."""
        if sum(map(len, self.row)) > _LEAST_LIMIT:
            self._limit = max(self._limit // 2, _LEAST_LIMIT)

    def text(self, line: bytes) -> str:
        return line.decode(self._coding.codec, "replace").removeprefix("\ufeff")

    def is_broken(self, line: bytes) -> bool:
        try:
            line.decode(self._coding.codec)
        except UnicodeDecodeError:
            return True
        return False

    def is_row(self, delimiter: str, width: int) -> bool:
        """Tell whether the lines read as one row: its marks are a cell's own, or doubled."""
        return _is_row(list(map(self.text, self.row)), delimiter, width)

    def broken_row(self, file: str, problem: str, **values: int) -> RawRow:
        """Return the row as it stood."""
        reason = Reason("broken_encoding") if self.broken else Reason(problem, values)
        raw = self._coding.without_end(b"".join(self.row))
        return RawRow(file, self.number, None, reason, raw)


def _physical_lines(file: BinaryIO, coding: Coding) -> Iterator[bytes]:
    """Yield lines that end as a spreadsheet may end them, with carriage returns too."""
    if not coding.extends_ascii:
        yield from lines_of(file, coding.newline)
        return
    for line in lines_of(file, coding.newline):
        if line.find(b"\r", 0, -2) >= 0:
            yield from line.splitlines(keepends=True)
        else:
            yield line


def _reader(lines: _Lines, delimiter: str) -> Iterator[list[str]]:
    # Strict: by default the text after a closing mark is glued to the cell, and the mark lost.
    return csv.reader(lines.feed(), delimiter=delimiter, strict=True)


def _header(lines: _Lines) -> tuple[str, list[str]]:
    """Return the delimiter and the names of the columns; the header may span lines."""
    first = next((text for text in lines.feed() if text.strip()), "")
    bare = _BETWEEN_MARKS.sub("", first)
    delimiter = max(_DELIMITERS, key=bare.count)
    lines.read_last_again()
    try:
        cells = next(_reader(lines, delimiter), [])
    except csv.Error:
        cells = next(csv.reader([first], delimiter=delimiter), [])
        lines.keep(1)
    return delimiter, column_names(cells)


def _give_up(lines: _Lines, delimiter: str, width: int) -> None:
    """Decide which lines a row with unmatched quotation marks takes along.

    It ends where a line is a row of its own and so are most of those behind it.
    """
    lines.lower_limit()
    after = lines.row[1 : 1 + _LINES_LOOKED_AT]
    rows = (_is_row([lines.text(line)], delimiter, width) for line in after)
    known: list[bool] = []
    for i in range(len(after)):
        known += islice(rows, i + _LINES_BEHIND - len(known))
        behind = known[i:]
        if known[i] and 2 * sum(behind) >= len(behind):
            lines.keep(1 + i)
            return


def _is_row(lines: list[str], delimiter: str, width: int) -> bool:
    try:
        cells = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
    except csv.Error:
        return False
    inside = sum(cell.count('"') for cell in cells)
    marks = sum(line.count('"') for line in lines)
    return len(cells) == width and (not inside or marks >= 2 * inside + 2)


def _is_blank(cells: list[str], lines: _Lines) -> bool:
    return not "".join(cells).strip() and not any(b'"' in line for line in lines.row)

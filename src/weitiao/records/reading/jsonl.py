"""One JSON object a line."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from weitiao.records.reading.encoding import Coding
from weitiao.records.reading.lines import BLOCK, lines_of
from weitiao.records.reading.rows import RawRow
from weitiao.records.reading.values import is_plain, is_whole, parse_object
from weitiao.records.record import Reason

STRETCH = 1 << 20
"""Bytes of the stretches into which a file is parted: a few thousand rows."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Whole lines of a file: ``size`` bytes from ``begin`` on, the first being line ``line``."""

    path: Path
    coding: Coding
    begin: int
    size: int
    line: int

    def rows(self) -> Iterator[RawRow]:
        """Yield a row for each line that is not blank."""
        return _rows(BytesIO(self._read()), self.path.name, self.line, self.coding)

    def objects(self) -> tuple[list[Any], list[bytes]] | None:
        """Return each line's value and the lines, if all of them can be read quickly.

        A value may not be all that stands there, as with equal keys: see :func:`is_plain`,
        and :meth:`row` for the careful way.
        """
        if self.coding.codec != "utf-8":
            return None
        lines = self._read().removesuffix(b"\n").split(b"\n")
        try:
            return list(map(orjson.loads, lines)), lines
        except orjson.JSONDecodeError:
            return None

    def row(self, place: int, line: bytes) -> RawRow | None:
        """Return the row of ``line``, which stands at ``place`` in the stretch; None if blank."""
        number = self.line + place
        return next(_rows(BytesIO(line), self.path.name, number, self.coding), None)

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.begin)
            return file.read(self.size)


def jsonl_stretches(path: Path, coding: Coding) -> Iterator[Stretch]:
    """Part a file whose lines end in a line feed into stretches of about ``STRETCH`` bytes."""
    begin, line = 0, 1
    with path.open("rb", buffering=BLOCK) as file:
        while block := file.read(STRETCH) + file.readline():
            yield Stretch(path, coding, begin, len(block), line)
            begin += len(block)
            line += block.count(b"\n")


def jsonl_rows(path: Path, coding: Coding) -> Iterator[RawRow]:
    """Yield a row for each line that is not blank."""
    with path.open("rb", buffering=BLOCK) as file:
        yield from _rows(file, path.name, 1, coding)


def _rows(file: BinaryIO, name: str, first: int, coding: Coding) -> Iterator[RawRow]:
    utf8, loads = coding.codec == "utf-8", orjson.loads
    for number, line in enumerate(lines_of(file, coding.newline), start=first):
        source = line if utf8 else _as_utf8(line, coding.codec)
        try:
            value = loads(source)
        except orjson.JSONDecodeError:
            value = None
        # What is plain is nearly all there is, and this way it costs next to nothing.
        if type(value) is dict and (is_plain(value, source) or is_whole(value, source)):
            yield RawRow(name, number, value)
        elif (found := _read_carefully(line, coding)) is None:
            continue
        elif isinstance(found, Reason):
            yield RawRow(name, number, None, found, coding.without_end(line))
        else:
            yield RawRow(name, number, found)


def _as_utf8(line: bytes, codec: str) -> bytes:
    try:
        return line.decode(codec).encode()
    except UnicodeError:
        return b""


def _read_carefully(line: bytes, coding: Coding) -> dict[str, Any] | Reason | None:
    """Return a line's object or what is wrong with it; None for a blank line."""
    try:
        # A mark in the middle: files were put together.
        text = line.decode(coding.codec).removeprefix("\ufeff").rstrip("\r\n")
        text.encode()
    except UnicodeError:
        return Reason("broken_encoding")
    return parse_object(text) if text.strip() else None

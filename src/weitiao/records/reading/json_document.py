"""One JSON document: an array of rows, an object around one, or a table of columns.

Where the text is broken, reading goes on at the next item that can be read.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from weitiao.errors import DataError
from weitiao.records.reading.encoding import Coding
from weitiao.records.reading.lines import blocks_of
from weitiao.records.reading.rows import CONVERSATION_COLUMNS, RawRow
from weitiao.records.reading.values import LENIENT, LONE_SURROGATE, parse_item
from weitiao.records.reading.window import SEPARATORS, BrokenError, Window
from weitiao.records.record import Reason

_ARRAYS_OF_A_ROW = (*CONVERSATION_COLUMNS, "tools", "history")
"""Columns whose arrays of objects belong to one row."""

_LONGEST_ITEM = 1 << 27
"""Characters after which an item counts as never closed; the next one may have half as many."""
_LEAST_LIMIT = 1 << 20

_UNREADABLE = 1 << 24
"""Bytes without one row that can be read, after which the broken ones are handed on."""

_ITEMS_LOOKED_AT = 50
_TRIED = 64
"""Searching for the next item costs at most as much as reading the text this often."""

_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = rf"(?:{_STRING}|[\w.+-]++|\{{[^{{}}\[\]]*+\}})"
_TABLE = re.compile(
    rf"\{{\s*+(?:{_STRING}\s*+:\s*+{_FLAT}\s*+,\s*+)*+({_STRING})\s*+:\s*+(?=\[\s*+\{{)", re.DOTALL
)
"""An object up to the first of its arrays of objects, before which only short things stand."""
_NEXT_KEY = re.compile(rf"\s*+,\s*+{_STRING}\s*+:\s*+", re.DOTALL)
_ARRAY_OF_OBJECTS = re.compile(r"\[\s*+(?=\{)")
_ITEM = re.compile(r"[,\n\r\]}]\s*+(?=\{)")
_TOKEN = re.compile(rf"{_STRING}|[\[\]{{}}]", re.DOTALL)
_BEHIND_ITEM = re.compile(r"\s*+(?:[,\]}]|(\Z))")


def json_rows(path: Path, coding: Coding) -> Iterator[RawRow]:
    """Yield the rows of a document, each with the line it begins on; a table's with its number.

    An array is read piece by piece, also one inside an object (``{"data": [...]}``); any
    other object is read whole.

    Raises:
        DataError: nothing of it can be read.
    """
    with path.open("rb") as file:
        window = Window(blocks_of(file, coding), coding.line_end)
        rows = _Document(path.name, window, coding).rows()
        unread: list[RawRow] = []
        size = 0
        for row in rows:
            unread.append(row)
            size += len(row.raw)
            if row.problem is None or row.problem.name != "broken_item" or size > _UNREADABLE:
                yield from unread
                yield from rows
                return
        if unread and unread[0].problem:
            raise DataError("error.json_broken", path=path, **unread[0].problem.values)


class _Document:
    """A document being read: ``_keys`` are those of the first good item."""

    def __init__(self, name: str, window: Window, coding: Coding) -> None:
        self._name = name
        self._window = window
        self._coding = coding
        self._keys: set[str] = set()
        self._longest = _LONGEST_ITEM

    def rows(self) -> Iterator[RawRow]:
        """Yield the rows of the value, or of the values one behind the other."""
        window = self._window
        while first := window.skip():
            if first == "[":
                window.at += 1
                yield from self._items()
            elif first == "{" and (table := self._table()) is not None:
                window.at = table
                yield from self._tables()
            elif first in ",]}":  # left over where something was broken
                window.at += 1
            else:
                yield from self._whole()

    def _items(self) -> Iterator[RawRow]:
        """Yield the items up to the array's end; a comma too many or too few does no harm."""
        window = self._window
        while (first := window.skip(SEPARATORS)) not in ("", "]"):
            line = window.line()
            try:
                value, text = window.value(self._longest)
            except BrokenError as error:
                yield self._broken(line, error.reason)
            else:
                yield self._row(line, parse_item(value, text), text)
        window.at += len(first)

    def _row(self, line: int, found: dict[str, Any] | Reason, text: str) -> RawRow:
        if isinstance(found, Reason):
            return RawRow(self._name, line, None, found, self._coding.raw(text))
        self._keys = self._keys or set(found)
        return RawRow(self._name, line, found)

    def _table(self) -> int | None:
        """Return where the first array of rows inside the object begins."""
        match = self._window.match(_TABLE)
        return match.end() if match and match[1][1:-1] not in _ARRAYS_OF_A_ROW else None

    def _tables(self) -> Iterator[RawRow]:
        """Yield the rows of all arrays of objects in an object; what else it says is no row."""
        window = self._window
        while True:
            if window.match(_ARRAY_OF_OBJECTS):
                window.at += 1
                yield from self._items()
            else:
                line = window.line()
                try:
                    window.value()
                except BrokenError as error:
                    yield self._broken(line, error.reason)
            if not (match := window.match(_NEXT_KEY)):
                break
            window.at = match.end()
        if window.skip() == "}":
            window.at += 1

    def _whole(self) -> Iterator[RawRow]:
        """Yield the rows of one value that is taken in whole."""
        line = self._window.line()
        try:
            value, text = self._window.value()
        except BrokenError as error:
            yield self._broken(line, error.reason)
            return
        found = parse_item(value, text)
        if isinstance(found, Reason) or (rows := _rows_inside(found)) is None:
            yield self._row(line, found, text)
            return
        for number, row in enumerate(rows, start=1):
            yield self._row(number, row, "")

    def _broken(self, line: int, reason: Reason) -> RawRow:
        """Return what is broken at the window's place as a row, and go on behind it."""
        window = self._window
        if len(window.text) - window.at > self._longest:
            self._longest = max(self._longest // 2, _LEAST_LIMIT)
        while (end := self._end_of_broken()) is None:
            if len(window.text) - window.at > self._longest or not window.more():
                end = len(window.text)
                break
        text = window.text[window.at : end].rstrip()
        if end < len(window.text):  # the comma belongs to the items on both sides
            text = text.removesuffix(",").rstrip()
        window.at = end
        if LONE_SURROGATE.search(text):
            reason = Reason("broken_encoding")
        return RawRow(self._name, line, None, reason, self._coding.raw(text))

    def _end_of_broken(self) -> int | None:
        """Return where the broken item ends; None where more of the text is needed to tell.

        The next object with one of the items' keys is an item; any other may well be a part
        of the broken one.
        """
        window = self._window
        self._keys = self._keys or self._likely_keys()
        begin, spent = window.at + 1, 0
        while match := _ITEM.search(window.text, begin):
            begin = match.end()
            try:
                value, end = LENIENT.raw_decode(window.text, begin)
            except (ValueError, RecursionError) as error:
                if window.is_cut(error):
                    return None
                spent += getattr(error, "pos", _LEAST_LIMIT)
            else:
                if self._keys & value.keys():
                    return begin
                spent += end - begin
            if spent > _TRIED * len(window.text):
                return len(window.text)
        return self._balanced()

    def _likely_keys(self) -> set[str]:
        """Return the keys of those objects ahead that make up most of the text.

        Items are read whole and so count more than what is left of the broken one.
        """
        window, weights = self._window, Counter[frozenset[str]]()
        begin = window.at + 1
        for _ in range(_ITEMS_LOOKED_AT):
            if not (match := _ITEM.search(window.text, begin)):
                break
            begin = match.end()
            with suppress(ValueError, RecursionError):
                value, end = LENIENT.raw_decode(window.text, begin)
                weights[frozenset(value)] += end - begin
                begin = end
        return set(weights.most_common(1)[0][0]) if weights else set()

    def _balanced(self) -> int | None:
        """Return where the brackets of the broken item close, if an item can end there."""
        window, open_brackets = self._window, ""
        if window.text[window.at : window.at + 1] not in ("{", "["):
            return None
        for token in _TOKEN.finditer(window.text, window.at):
            if token[0] in ("{", "["):
                open_brackets += token[0]
            elif token[0] in ("}", "]"):
                if open_brackets[-1:] + token[0] not in ("{}", "[]"):
                    return None
                open_brackets = open_brackets[:-1]
                if not open_brackets:
                    behind = _BEHIND_ITEM.match(window.text, token.end())
                    sure = behind and (behind[1] is None or window.ended)
                    return token.end() if sure else None
        return None


def _rows_inside(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows inside an object; None if the object is a row itself.

    It may hold arrays of objects, or be a table of columns (``{"ask": [...], "answer":
    [...]}``), whose cells may be numbered, as pandas writes them (``{"ask": {"0": ...}}``).
    """
    tables = [
        item
        for name, item in value.items()
        if name not in _ARRAYS_OF_A_ROW
        and isinstance(item, list)
        and item
        and all(isinstance(row, dict) for row in item)
    ]
    if tables:
        return [row for table in tables for row in table]
    if set(CONVERSATION_COLUMNS) & set(value):
        return None
    columns = [_cells(item) for item in value.values()]
    first = columns[0] if columns else None
    if first is None or any(c is None or c.keys() != first.keys() for c in columns):
        return None
    return [{name: c[i] for name, c in zip(value, columns, strict=True) if c} for i in first]


def _cells(column: Any) -> dict[Any, Any] | None:
    """Return number → cell of a table's column; None if it is none."""
    if isinstance(column, list):
        return dict(enumerate(column))
    numbered = isinstance(column, dict) and all(key.isdecimal() for key in column)
    return column if numbered and column else None

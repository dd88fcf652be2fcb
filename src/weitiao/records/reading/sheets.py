"""Spreadsheets: xlsx, xls, xlsb and ods, each sheet a table with a header."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weitiao.errors import DataError
from weitiao.records.reading.rows import RawRow, column_names

Notes = tuple[tuple[str, dict[str, Any]], ...]


def open_sheets(path: Path, kind: str) -> tuple[Iterator[RawRow], Notes]:
    """Return the rows of all sheets, and notes on which were read and which hold no table.

    A row's line is its number in the sheet; where several sheets are read, its file is
    ``name#sheet``. The header is the first row with more than one cell, as a title over it
    has one, or the first row where none has more. Rows without a cell are no rows.

    Raises:
        DataError: the file cannot be opened, or no sheet holds a row under a header.
    """
    from python_calamine import CalamineWorkbook

    try:
        with path.open("rb") as file:
            book = CalamineWorkbook.from_filelike(file)
            sheets = {name: _Sheet(book.get_sheet_by_name(name)) for name in book.sheet_names}
    except BaseException as error:  # what the parser, in Rust, fails with is no Exception always
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        raise DataError("error.file_damaged", path=path, kind=kind, cause=str(error)) from error
    tables = [name for name, sheet in sheets.items() if sheet.has_rows]
    if not tables:
        raise DataError("error.sheets_empty", path=path)
    notes: Notes = ()
    if len(sheets) > 1:
        notes += (("sheets_read", {"file": path.name, "sheets": ", ".join(tables)}),)
    if empty := [name for name in sheets if name not in tables]:
        notes += (("sheets_empty", {"file": path.name, "sheets": ", ".join(empty)}),)
    return _rows(path.name, {name: sheets[name] for name in tables}), notes


class _Sheet:
    """A sheet's cells, and where its header is."""

    def __init__(self, sheet: Any) -> None:
        # iter_rows gives the empty rows above the first cell too, and no empty columns.
        self._sheet = sheet
        filled = [
            (number, sum(_text(cell) != "" for cell in row))
            for number, row in enumerate(sheet.iter_rows(), start=1)
        ]
        used = [(number, cells) for number, cells in filled if cells]
        heads = [number for number, cells in used if cells > 1] or [number for number, _ in used]
        self._header = heads[0] if heads else 0
        self.has_rows = bool(used) and used[-1][0] > self._header

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows with their numbers. A column without a name and cells is none."""
        names: list[str] = []
        named: list[bool] = []
        for number, cells in enumerate(self._sheet.iter_rows(), start=1):
            texts = [_text(cell) for cell in cells]
            if number == self._header:
                names, named = column_names(texts), [bool(text.strip()) for text in texts]
            elif number > self._header and any(texts):
                cells_of_row = zip(names, named, texts, strict=True)
                yield number, {name: text for name, own, text in cells_of_row if own or text}


def _rows(file: str, sheets: dict[str, _Sheet]) -> Iterator[RawRow]:
    for sheet_name, sheet in sheets.items():
        name = file if len(sheets) == 1 else f"{file}#{sheet_name}"
        for number, data in sheet.rows():
            yield RawRow(name, number, data)


def _text(cell: Any) -> str:
    """Return a cell as a person sees it: whole numbers without a point, dates as ISO 8601."""
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float):
        return f"{cell:.0f}" if cell.is_integer() else repr(cell)
    if isinstance(cell, datetime.datetime):
        return cell.isoformat(" ")
    return cell if isinstance(cell, str) else str(cell)

"""What a file holds: by its name, and, where that is wrong, by its content."""

import csv
import io
import json
import re
import zipfile
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from weitiao.errors import DataError

Kind = Literal["json", "jsonl", "csv", "xlsx", "xls", "ods", "parquet", "txt", "md", "docx", "pdf"]

KINDS: dict[str, Kind] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".xlsb": "xlsx",
    ".xls": "xls",
    ".ods": "ods",
    ".parquet": "parquet",
    ".txt": "txt",
    ".md": "md",
    ".markdown": "md",
    ".docx": "docx",
    ".pdf": "pdf",
}
"""The file name endings that are read."""

DOCUMENTS: tuple[Kind, ...] = ("txt", "md", "docx", "pdf")
"""Kinds that hold running text and no rows."""

_ZIP, _OLE, _PARQUET, _PDF = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"PAR1", b"%PDF-"
_COMPRESSED = (
    b"\x1f\x8b",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
    b"\xfd7zXZ",
    b"BZh",
    b"\x28\xb5\x2f\xfd",
)
_PDF_WITHIN = 1024
"""A PDF's mark may stand anywhere in its first bytes."""

_MEMBERS: dict[str, Kind] = {
    "xl/workbook.xml": "xlsx",
    "xl/workbook.bin": "xlsx",
    "word/document.xml": "docx",
}
_LINES_LOOKED_AT = 20
_JSON_BEGINS = re.compile(r'\[\s*[{\[\]"]|\{\s*["}]')


def binary_kind(path: Path, beginning: bytes) -> Kind | None:
    """Return what a file holds that is no text; None for text.

    Raises:
        DataError: an archive, or a damaged file.
    """
    if beginning.startswith(_ZIP):
        return _kind_of_zip(path)
    if beginning.startswith(_OLE):
        return "xls"
    if beginning.startswith(_PARQUET):
        return "parquet"
    if _PDF in beginning[:_PDF_WITHIN]:
        return "pdf"
    if beginning.startswith(_COMPRESSED):
        raise DataError("error.file_compressed", path=path)
    return None


def text_kind(path: Path, head: str) -> Kind:
    """Return how the rows stand in a text file that begins with ``head``.

    Raises:
        DataError: it is named as something that is no text, and looks like no table either.
    """
    named = KINDS.get(path.suffix.lower(), "txt")
    if named in ("txt", "md"):
        return named
    filled = (line for line in io.StringIO(head, newline="\n") if line.strip())
    lines = list(islice(filled, _LINES_LOOKED_AT)) or [""]
    objects = sum(isinstance(_value_of(line), dict) for line in lines)
    if objects * 2 > len(lines) and (len(lines) > 1 or named == "jsonl"):
        return "jsonl"
    if _JSON_BEGINS.match(head.lstrip()) and named != "jsonl":
        return "json"
    if lines[0].lstrip().startswith("[") or lines[0].strip() == "{":
        return "csv" if named == "csv" else "json"
    if named == "csv" or (not lines[0].lstrip().startswith("{") and _is_table(lines)):
        return "csv"
    if named in ("json", "jsonl"):
        return named
    raise DataError("error.file_content", path=path, kind=named)


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            media = archive.read("mimetype")[:100] if "mimetype" in names else b""
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        kind = KINDS.get(path.suffix.lower(), "zip")
        raise DataError("error.file_damaged", path=path, kind=kind, cause=str(error)) from error
    if media.startswith(b"application/vnd.oasis.opendocument.spreadsheet"):
        return "ods"
    for member, kind in _MEMBERS.items():
        if member in names:
            return kind
    raise DataError("error.file_compressed", path=path)


def _value_of(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _is_table(lines: list[str]) -> bool:
    """Tell whether lines are rows of as many cells as the first, whatever the delimiter."""
    for delimiter in ",\t;|":
        with suppress(csv.Error):
            # The last row may go on behind the lines that are looked at.
            *rows, _ = [len(cells) for cells in csv.reader(lines, delimiter=delimiter)] or [0]
            if len(lines) > 1 and rows and rows[0] > 1 and len(set(rows)) == 1:
                return True
    return False

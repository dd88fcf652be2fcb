"""The files a user names, and the rows of each: found, recognised and opened.

A row that cannot be read is still a row: it comes with the reason and its bytes, and the
file goes on after it.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from weitiao.errors import DataError
from weitiao.records.reading.encoding import Coding, Encoding, coding_of, detect, given
from weitiao.records.reading.json_document import json_rows
from weitiao.records.reading.jsonl import Stretch, jsonl_rows, jsonl_stretches
from weitiao.records.reading.kinds import DOCUMENTS, KINDS, Kind, binary_kind, text_kind
from weitiao.records.reading.parquet import parquet_rows
from weitiao.records.reading.passages import open_docx, open_pdf, text_passages
from weitiao.records.reading.rows import RawRow
from weitiao.records.reading.sheets import Notes, open_sheets
from weitiao.records.reading.tables import csv_rows

_REGISTRY = "dataset_info.json"
_REVIEW, _REJECTED = ".review.jsonl", ".rejected.jsonl"
_SAMPLE_BYTES = 1 << 20
_ROW_READERS: dict[str, Callable[[Path, Coding], Iterator[RawRow]]] = {
    "json": json_rows,
    "jsonl": jsonl_rows,
    "csv": csv_rows,
}


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file opened for reading: ``kind`` is what it holds, whatever its name ends in.

    ``notes``: (name, values) of what the user should know, as keys ``note.*``. A file of
    lines comes in ``stretches`` too, so that several processes can share it.
    """

    path: Path
    kind: Kind
    encoding: Encoding
    rows: Iterator[RawRow]
    notes: Notes = ()
    stretches: Iterator[Stretch] | None = None


def find_files(path: Path) -> list[Path]:
    """Return the data files at ``path``: itself, or those in the folder, sorted by name.

    Of a folder, documents are taken only where nothing else is in it: beside data, a text
    is a description of it. :func:`unread_files` names what is left out.

    Raises:
        DataError: nothing is there, or nothing that can be read.
    """
    endings = " ".join(KINDS)
    if path.is_dir():
        files = [entry for entry in _entries(path) if _is_data(entry)]
        if not files:
            raise DataError("error.folder_without_data", path=path, endings=endings)
        rows = [file for file in files if KINDS[file.suffix.lower()] not in DOCUMENTS]
        return rows or files
    if not path.exists():
        near = _near_names(path)
        if near:
            raise DataError("error.file_missing_near", path=path, near=", ".join(near))
        raise DataError("error.file_missing", path=path)
    if path.suffix.lower() not in KINDS:
        raise DataError("error.file_ending", path=path, endings=endings)
    return [path]


def unread_files(path: Path) -> list[str]:
    """Return the names of what else is in the folder ``path`` and is not read.

    Folders end in a slash. Hidden files, LLaMA-Factory's registry and decisions of a review
    are not among them, and beside a single file there is nothing.

    Raises:
        DataError: as :func:`find_files`.
    """
    if not path.is_dir():
        return []
    read = set(find_files(path))
    return [
        f"{entry.name}/" if entry.is_dir() else entry.name
        for entry in _entries(path)
        if entry not in read and entry.name != _REGISTRY and not entry.name.endswith(_REVIEW)
    ]


def read_file(path: Path, encoding: str | None = None, *, passage_chars: int = 1200) -> FileRead:
    """Open one data file; its rows are read as they are asked for.

    A row's line is the line it begins on, in a spreadsheet its row, in a parquet file or a
    table of JSON columns its number, in a docx its paragraph, and in a pdf its page.
    ``passage_chars`` is the longest passage of a document; a passage is a row of ``text``
    and its number, ``passage``.

    Raises:
        DataError: the file is empty or cannot be opened, or the encoding is unknown. While
            reading: nothing of it can be read, or the disk fails.
    """
    try:
        beginning, telling = _samples(path)
        if not beginning.strip():
            raise DataError("error.file_empty", path=path)
        if (binary := binary_kind(path, beginning)) is not None:
            return _read_binary(path, binary, passage_chars)
    except OSError as error:
        raise _unreadable(path, error) from error
    found = given(encoding) if encoding else detect(telling)
    coding = coding_of(found.name, beginning)
    head = beginning.decode(coding.codec, "replace").removeprefix("\ufeff")
    kind = text_kind(path, head.replace("\r", "\n") if coding.line_end == "\r" else head)
    if kind in _ROW_READERS:
        rows = _ROW_READERS[kind](path, coding)
    else:
        rows = text_passages(path, coding, kind, passage_chars)
    by_lines = kind == "jsonl" and coding.newline == b"\n"
    stretches = jsonl_stretches(path, coding) if by_lines else None
    return FileRead(path, kind, found, _guarded(path, rows), stretches=stretches)


def _read_binary(path: Path, kind: Kind, passage_chars: int) -> FileRead:
    notes: Notes = ()
    if kind == "parquet":
        rows = parquet_rows(path)
    elif kind == "docx":
        rows = open_docx(path, passage_chars)
    elif kind == "pdf":
        rows, notes = open_pdf(path, passage_chars)
    else:
        rows, notes = open_sheets(path, kind)
    return FileRead(path, kind, Encoding("utf-8", "binary"), _guarded(path, rows), notes)


def _guarded(path: Path, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    try:
        yield from rows
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError("error.file_unreadable", path=path, cause=error.strerror or str(error))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_data(entry: Path) -> bool:
    ours = entry.name == _REGISTRY or entry.name.endswith((_REVIEW, _REJECTED))
    # Excel keeps such a file beside each one that is open in it.
    lock = entry.name.startswith("~$")
    return entry.suffix.lower() in KINDS and not ours and not lock and entry.is_file()


def _near_names(path: Path) -> list[str]:
    try:
        names = [file.name for file in path.parent.iterdir() if file.suffix.lower() in KINDS]
    except OSError:
        return []
    return difflib.get_close_matches(path.name, names, n=3)


def _samples(path: Path) -> tuple[bytes, bytes]:
    """Return the beginning of the file, and its first stretch that is not plain ASCII."""
    with path.open("rb") as file:
        beginning = telling = file.read(_SAMPLE_BYTES)
        while telling.isascii() and (more := file.read(_SAMPLE_BYTES)):
            telling = more
    return beginning, telling

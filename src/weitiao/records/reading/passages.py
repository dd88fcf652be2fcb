"""Documents, split into passages at the ends of paragraphs, sentences and words.

Passages put together are the document again, except for the white space at their ends.
"""

import io
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from weitiao.errors import DataError
from weitiao.records.reading.encoding import Coding
from weitiao.records.reading.lines import blocks_of
from weitiao.records.reading.rows import RawRow
from weitiao.records.reading.sheets import Notes
from weitiao.records.reading.values import LONE_SURROGATE
from weitiao.records.record import Reason

_PASSAGES_AT_ONCE = 3
"""Passages' worth of text that is split at a time: in a text without a place to split at, the
splitter's time grows with the square of it."""

_SENTENCE_ENDS = tuple("。！？…；：.!?;:”」』）)")
_FULL_LINE = 0.8
_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


def text_passages(path: Path, coding: Coding, kind: str, size: int) -> Iterator[RawRow]:
    """Yield the passages of a txt or md file with the lines they begin on; ends of lines as LF."""
    with path.open("rb") as file:
        newlines = io.IncrementalNewlineDecoder(None, translate=True)
        blocks = (newlines.decode(block) for block in blocks_of(file, coding))
        line, passage_number = 1, 0
        for _, passage in _split(blocks, kind, size):
            text = passage.strip()
            if text:
                passage_number += 1
                begin = line + passage[: passage.index(text)].count("\n")
                yield _row(path.name, begin, passage_number, text, coding)
            line += passage.count("\n")


def open_docx(path: Path, size: int) -> Iterator[RawRow]:
    """Return the passages of a Word document with the paragraphs they begin in.

    A row of a table is one paragraph. Headers, footnotes and text boxes are not read.

    Raises:
        DataError: it cannot be opened, or holds no text.
    """
    paragraphs = _opened(path, "docx", _paragraphs)
    if not any(text.strip() for text in paragraphs):
        raise DataError("error.document_empty", path=path)
    return _placed(path.name, [f"{text}\n" for text in paragraphs], size)


def open_pdf(path: Path, size: int) -> tuple[Iterator[RawRow], Notes]:
    """Return the passages of a PDF with the pages they begin on, and a note on empty pages.

    Lines that fill the page's width are joined into paragraphs.

    Raises:
        DataError: it cannot be opened, or holds no text, as after scanning.
    """
    pages = _opened(path, "pdf", _pages)
    empty = sum(not page.strip() for page in pages)
    if empty == len(pages):
        raise DataError("error.pdf_scanned", path=path)
    values = {"file": path.name, "count": empty, "pages": len(pages)}
    notes: Notes = (("pages_without_text", values),) if empty else ()
    return _placed(path.name, [f"{_paragraphed(page)}\n" for page in pages], size), notes


def _opened(path: Path, kind: str, read: Callable[[Path], list[str]]) -> list[str]:
    try:
        return read(path)
    except Exception as error:  # whatever a parser of foreign formats fails with
        cause = str(error).split("\n")[0] or type(error).__name__
        raise DataError("error.file_damaged", path=path, kind=kind, cause=cause) from error


def _paragraphs(path: Path) -> list[str]:
    import docx
    from docx.table import Table

    found: list[str] = []
    with path.open("rb") as file:
        for block in docx.Document(file).iter_inner_content():
            if isinstance(block, Table):
                # A merged cell comes once for each column it covers.
                rows = [
                    list({cell._tc: cell.text for cell in row.cells}.values()) for row in block.rows
                ]
                found += ["\t".join(row) for row in rows]
            else:
                found.append(block.text)
    return found


def _pages(path: Path) -> list[str]:
    import pypdfium2

    found: list[str] = []
    document = pypdfium2.PdfDocument(path)
    try:
        for page in document:
            text = page.get_textpage().get_text_range()
            # The marks of a hyphen at a line's end, which belongs to the line and not the word.
            text = re.sub("[\ufffe\x02]\\s*", "", text.replace("\r\n", "\n"))
            found.append(LONE_SURROGATE.sub("\ufffd", text))
    finally:
        document.close()
    return found


def _paragraphed(page: str) -> str:
    """Join the lines of a page that end where the line was full and not the sentence."""
    lines = page.split("\n")
    full = _FULL_LINE * max(map(len, lines))
    out: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        out.append(line)
        wraps = len(line) >= full and not line.rstrip().endswith(_SENTENCE_ENDS)
        if not wraps or not following.strip():
            out.append("\n")
        elif not (_WIDE.match(line[-1:]) or _WIDE.match(following)):
            out.append(" ")
    return "".join(out)[:-1]


def _placed(name: str, parts: list[str], size: int) -> Iterator[RawRow]:
    """Yield the passages of ``parts`` put together, each with the part it begins in, from 1."""
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part))
    number = 0
    for offset, passage in _split(iter(parts), "txt", size):
        if text := passage.strip():
            number += 1
            place = bisect_right(starts, offset + passage.index(text))
            yield _row(name, place, number, text, None)


def _row(name: str, line: int, number: int, text: str, coding: Coding | None) -> RawRow:
    if coding and LONE_SURROGATE.search(text):
        return RawRow(name, line, None, Reason("broken_encoding"), coding.raw(text))
    return RawRow(name, line, {"text": text, "passage": number})


def _split(pieces: Iterator[str], kind: str, size: int) -> Iterator[tuple[int, str]]:
    """Yield passages of at most ``size`` characters that together are the text, with offsets."""
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    splitter: Any = (MarkdownSplitter if kind == "md" else TextSplitter)(size, trim=False)

    def split(text: str) -> list[tuple[int, int]]:
        # Lone surrogates cannot pass into the splitter, which is in Rust.
        chunks = splitter.chunk_indices(LONE_SURROGATE.sub("\ufffd", text))
        return [(at, len(chunk)) for at, chunk in chunks]

    window = _PASSAGES_AT_ONCE * size
    waiting, offset = "", 0
    for piece in pieces:
        waiting, begin = waiting + piece, 0
        while len(waiting) - begin >= window:
            # The last passage of a stretch may be cut short by its end: it is split again.
            *chunks, (rest, _) = split(waiting[begin : begin + window])
            for at, length in chunks:
                yield offset + begin + at, waiting[begin + at : begin + at + length]
            begin += rest
        waiting, offset = waiting[begin:], offset + begin
    for at, length in split(waiting):
        yield offset + at, waiting[at : at + length]

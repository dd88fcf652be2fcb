"""A file's bytes in pieces: lines, or blocks of text."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from weitiao.records.reading.encoding import Coding

BLOCK = 1 << 18
"""Bytes that are read at a time."""


def lines_of(file: BinaryIO, newline: bytes) -> Iterator[bytes]:
    """Return the lines with their ends. U+2028 and its like are content and end no line."""
    return iter(file) if newline == b"\n" else _split(file, newline)


def _split(file: BinaryIO, newline: bytes) -> Iterator[bytes]:
    line: list[bytes] = []
    while block := file.read(BLOCK):
        *pieces, rest = block.split(newline)
        for piece in pieces:
            line.append(piece + newline)
            # In UTF-16 the same bytes stand also across two characters.
            if sum(map(len, line)) % len(newline) == 0:
                yield b"".join(line)
                line.clear()
        if rest:
            line.append(rest)
    if line:
        yield b"".join(line)


def blocks_of(file: BinaryIO, coding: Coding) -> Iterator[str]:
    """Yield the text, a block at a time; undecodable bytes come as lone surrogates."""
    decoder = codecs.getincrementaldecoder(coding.codec)(coding.errors)
    while block := file.read(BLOCK):
        yield decoder.decode(block)
    try:
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError:  # half a unit of UTF-16 at the end has no surrogate of its own
        yield "\udcff"

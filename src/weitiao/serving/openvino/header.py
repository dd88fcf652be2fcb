"""What stands before the weights in a GGUF file.

The reader of the package gguf makes arrays of each token: 13 s for a vocabulary of 152 thousand.
"""

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)


@dataclass(frozen=True, slots=True)
class Header:
    """``fields``: name → value, arrays left out; ``types``: tensor → GGUF's name of its type."""

    fields: dict[str, Any]
    types: dict[str, str]


def read_header(file: Path) -> Header:
    """Return what ``file`` says of its model.

    Raises:
        ValueError: it is no GGUF file, or not all of it is there.
    """
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return _read(data)
    except (struct.error, KeyError, TypeError, ArithmeticError) as error:
        raise ValueError(str(file)) from error


def _read(data: mmap.mmap) -> Header:
    from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType

    cursor = _Cursor(data)
    magic, version, tensors, fields = cursor.take("4sIQQ")
    if magic != b"GGUF" or version not in _VERSIONS:
        raise ValueError(f"GGUF {version}")
    found = {cursor.string(): cursor.value(*cursor.take("I")) for _ in range(fields)}
    types, end = {}, 0
    for _ in range(tensors):
        name = cursor.string()
        (dimensions,) = cursor.take("I")
        *shape, kind, begin = cursor.take(f"{dimensions}QIQ")
        types[name] = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[types[name]]
        end = max(end, begin + prod(shape) // block * size)
    alignment = found.get("general.alignment", GGUF_DEFAULT_ALIGNMENT)
    if cursor.at + -cursor.at % alignment + end > len(data):
        raise ValueError("truncated")
    return Header(found, {name: kind.name for name, kind in types.items()})


class _Cursor:
    """Reads one thing after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self.at, self._data = 0, data

    def take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{layout}", self._data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return found

    def string(self) -> str:
        (size,) = self.take("Q")
        return str(self.take(f"{size}s")[0], "utf-8")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._skip(*self.take("IQ"))
        return self.take(_SCALARS[kind])[0]

    def _skip(self, kind: int, entries: int) -> None:
        if kind == _STRING:
            length, data, at = struct.Struct("<Q").unpack_from, self._data, self.at
            for _ in range(entries):
                at += 8 + length(data, at)[0]
            self.at = at
        elif kind == _ARRAY:
            for _ in range(entries):
                self._skip(*self.take("IQ"))
        else:
            self.at += entries * struct.calcsize(_SCALARS[kind])

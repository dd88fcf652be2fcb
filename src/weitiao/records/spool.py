"""Lists that stand on disk: lines of JSON and where each one ends."""

import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
import orjson

Item = TypeVar("Item")
Rows = Sequence[int] | npt.NDArray[np.int64]

_BLOCK = 1 << 20


def dumps(value: Any) -> bytes:
    """Return ``value`` as JSON in UTF-8; what JSON has no form for is written as text."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # whole numbers beyond 64 bits, halves of surrogate pairs
        return json.dumps(value, default=str).encode()


class Spool:
    """Lines in a file of its own, eight bytes of memory each."""

    def __init__(self, path: Path) -> None:
        self._out = path.open("wb", buffering=_BLOCK)
        self._in = path.open("rb")
        self._ends = array("q", [0])
        self._flushed = True

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, line: bytes) -> None:
        """Add ``line``, which holds no line break."""
        self.extend([line])

    def extend(self, lines: Sequence[bytes]) -> None:
        """Add lines, none of which holds a line break."""
        if lines:
            self._out.write(b"\n".join(lines) + b"\n")
            sizes = np.fromiter(map(len, lines), dtype=np.int64, count=len(lines))
            self._ends.frombytes((np.cumsum(sizes + 1) + self._ends[-1]).tobytes())
            self._flushed = False

    def line(self, i: int) -> bytes:
        """Return line ``i`` without its line break."""
        self._flush()
        start, end = self._ends[i], self._ends[i + 1]
        self._in.seek(start)
        return self._in.read(end - start - 1)

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        self._out.close()
        self._in.close()

    def _flush(self) -> None:
        if not self._flushed:
            self._out.flush()
            self._flushed = True


class Stored(Sequence[Item], Generic[Item]):
    """Some lines of a spool, each made an item when it is asked for."""

    def __init__(
        self, spool: Spool, rows: Rows, make: Callable[[Any], Item], owner: object = None
    ) -> None:
        self._spool, self._rows, self._make = spool, rows, make
        self._owner = owner  # keeps the folder of the spool alive

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, i: int) -> Item: ...
    @overload
    def __getitem__(self, i: slice) -> "Stored[Item]": ...
    def __getitem__(self, i: int | slice) -> "Item | Stored[Item]":
        if isinstance(i, slice):
            return Stored(self._spool, self._rows[i], self._make, self._owner)
        return self._make(orjson.loads(self._spool.line(int(self._rows[i]))))

    def __iter__(self) -> Iterator[Item]:
        for row in self._rows:
            yield self._make(orjson.loads(self._spool.line(int(row))))

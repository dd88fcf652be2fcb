"""A row as it stood in its file, before anybody knows what its columns mean."""

from typing import Any, NamedTuple

from weitiao.records.record import Origin, Reason

CONVERSATION_COLUMNS = ("conversations", "conversation", "messages")
"""Columns that hold a list of turns."""


class RawRow(NamedTuple):
    """A row's columns in ``data``, or a ``problem`` and its bytes in ``raw``.

    ``line``, from 1, is where the row begins; see :func:`~weitiao.records.reading.files.read_file`
    for what counts as a line in files that have none. ``raw`` of a row that was read is empty.
    A named tuple, because millions of them are made.
    """

    file: str
    line: int
    data: dict[str, Any] | None = None
    problem: Reason | None = None
    raw: bytes = b""

    @property
    def origin(self) -> Origin:
        """Where the row stood."""
        return Origin(self.file, self.line)


def readable(raw: bytes, encoding: str) -> str:
    r"""Return ``raw`` as text to look at: bytes that are no text in ``encoding`` as ``\xNN``."""
    return raw.decode(encoding, "backslashreplace")


def column_names(cells: list[str]) -> list[str]:
    """Return the names of columns by their header: a nameless or repeated one gets its number."""
    names: list[str] = []
    for number, cell in enumerate(cells, start=1):
        name = wanted = cell.strip() or f"column_{number}"
        while name in names:
            name = f"{name}_{number}" if name != wanted else f"{wanted}_{number}"
        names.append(name)
    return names

"""From any file that can be read to the file of another tool, nothing cleaned and nothing lost."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from weitiao.errors import DataError
from weitiao.records.files import open_atomic
from weitiao.records.options import DataOptions
from weitiao.records.reading import RawRow, find_files
from weitiao.records.record import Reason
from weitiao.records.shaping import Format, write
from weitiao.records.source import as_read
from weitiao.records.spool import dumps
from weitiao.records.stage import Rejected, rejected_line


@dataclass(frozen=True, slots=True)
class Converted:
    """``rows`` stand in the new file; ``rejected`` do not, and stand in ``aside`` with reasons.

    ``told``: how the files were read, in words.
    """

    rows: int
    rejected: int
    aside: Path | None
    told: tuple[str, ...]


def convert(path: Path, out: Path, form: Format, options: DataOptions) -> Converted:
    """Write all rows of the file or folder at ``path`` to ``out``, as another tool reads them.

    Rows that cannot be read, or that the other format cannot hold, go to
    ``*.rejected.jsonl`` beside ``out``, as they were and with the reason.

    Raises:
        DataError: the data cannot be read, or one of the two files is there already.
        RunError: a file cannot be written.
    """
    aside = out.with_name(f"{out.stem}.rejected.jsonl")
    if aside.exists():
        raise DataError("error.exists", path=aside)
    told: list[str] = []
    with ExitStack() as files:
        lines: list[IO[bytes]] = []
        rejected = 0

        def put_aside(line: bytes) -> None:
            nonlocal rejected
            rejected += 1
            if not lines:
                lines.append(files.enter_context(open_atomic(aside)))
            lines[0].write(line + b"\n")

        def refused(row: RawRow, encoding: str, reason: Reason) -> None:
            put_aside(rejected_line(row, encoding, reason))

        records = as_read(find_files(path), options, refused, told.append)
        written = write(records, out, form)
        for record, reason in written.refused:
            put_aside(dumps(Rejected(record.origin, record.to_json(), reason).to_json()))
    return Converted(written.rows, rejected, aside if rejected else None, tuple(told))

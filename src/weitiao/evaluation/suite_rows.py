"""The rows that a suite brings along."""

from pathlib import Path

from weitiao.errors import DataError
from weitiao.records.options import DataOptions
from weitiao.records.reading import find_files
from weitiao.records.record import Origin, Reason, Record
from weitiao.records.source import as_read


def suite_records(rows: Path, options: DataOptions) -> list[Record]:
    """Read a suite's rows; each must have a reference answer, and none is left out.

    Raises:
        DataError: the file cannot be read, has no row, or a row cannot be read or has no
            reference; the first such row is named.
    """
    unread: list[tuple[Origin, Reason]] = []
    records = [
        *as_read(find_files(rows), options, lambda row, _, why: unread.append((row.origin, why)))
    ]
    if unread:
        origin, why = unread[0]
        raise DataError(
            "error.suite_row_unread",
            file=origin.file,
            line=origin.line,
            why=why.sentence(),
            count=len(unread),
        )
    without = [record.origin for record in records if not record.answer.strip()]
    if without:
        raise DataError(
            "error.suite_no_reference",
            file=without[0].file,
            line=without[0].line,
            count=len(without),
        )
    if not records:
        raise DataError("error.suite_no_rows", path=rows)
    return records

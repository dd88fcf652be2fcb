"""Parquet files, a batch of rows at a time."""

import base64
import datetime
import decimal
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weitiao.errors import DataError
from weitiao.records.reading.rows import RawRow, column_names
from weitiao.records.record import Reason

_BATCH = 1000


def parquet_rows(path: Path) -> Iterator[RawRow]:
    """Yield the rows, with their numbers as lines; a block that is damaged is one row.

    What JSON does not know becomes text: dates as ISO 8601, bytes as UTF-8 or else base64.

    Raises:
        DataError: the file is damaged, or the extra ``parquet`` is not installed.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError("error.parquet_extra", path=path) from error
    try:
        file = ParquetFile(path)
        names = column_names(list(file.schema_arrow.names))
        groups = file.metadata.num_row_groups
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            "error.file_damaged", path=path, kind="parquet", cause=str(error).split("\n")[0]
        ) from error
    return _rows(path.name, file, names, groups)


def _rows(name: str, file: Any, names: list[str], groups: int) -> Iterator[RawRow]:
    import pyarrow

    done = 0
    with file:
        for group in range(groups):
            number = done
            try:
                for batch in file.iter_batches(batch_size=_BATCH, row_groups=[group]):
                    for row in batch.rename_columns(names).to_pylist():
                        number += 1
                        yield RawRow(name, number, {key: _plain(row[key]) for key in row})
            except (pyarrow.ArrowException, OSError, ValueError):
                lost = done + file.metadata.row_group(group).num_rows - number
                yield RawRow(name, number + 1, None, Reason("broken_block", {"rows": lost}))
            done += file.metadata.row_group(group).num_rows


def _plain(value: Any) -> Any:
    """Return ``value`` in what JSON knows."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return (
        float(value) if isinstance(value, decimal.Decimal) and value == float(value) else str(value)
    )

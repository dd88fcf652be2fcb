"""What kind each held-out row is of, as a column of the data says it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weitiao.records.record import Record

COLUMNS = (
    "category", "类别", "分类", "type", "类型", "intent", "意图", "label", "标签",
    "topic", "主题", "domain", "领域", "task", "任务", "source", "来源",
)  # fmt: skip
"""Where categories are looked for, in this order; case does not count."""

FEWEST_ROWS, MOST_VALUES = 5, 30


@dataclass(frozen=True, slots=True)
class Groups:
    """``of_row``: row → its category; a row of a rare one, or of none, is missing.

    ``column``: where it stands; empty where the reference answers, labels, are the categories.
    """

    column: str
    of_row: Mapping[int, str]


def group(records: Sequence[Record], rows: Sequence[int]) -> Groups | None:
    """Group ``records[i]`` for each i of ``rows`` by the first column that divides them.

    It has at most :data:`MOST_VALUES` values, and half of the rows or more are of two or more
    categories with at least :data:`FEWEST_ROWS` rows each. None where there is no such column.
    """
    names = {row: {name.casefold(): name for name in records[row].metadata} for row in rows}
    for column in (*COLUMNS, ""):
        values = {row: _value(records[row], names[row].get(column, column)) for row in rows}
        counts = Counter(value for value in values.values() if value)
        common = {value for value, count in counts.items() if count >= FEWEST_ROWS}
        of_row = {row: value for row, value in values.items() if value in common}
        if len(common) > 1 and len(counts) <= MOST_VALUES and 2 * len(of_row) >= len(rows):
            return Groups(column, of_row)
    return None


def _value(record: Record, column: str) -> str:
    value = record.metadata.get(column) if column else record.answer
    return value.strip() if isinstance(value, str) else ""

import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from weitiao.errors import DataError
from weitiao.records.reading import read_file


def book(folder: Path, sheets: dict[str, list[list[Any]]]) -> Path:
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
    path = folder / "a.xlsx"
    made.save(path)
    return path


def test_cells_are_what_a_person_sees(tmp_path):
    cells = [
        "007",
        7,
        1.5,
        True,
        datetime.datetime(2024, 1, 2, 3, 4),
        datetime.date(2024, 1, 2),
        "",
        1e15,
    ]
    path = book(tmp_path, {"s": [["id", "n", "x", "b", "t", "d", "e", "big"], cells]})
    read = read_file(path)
    (row,) = read.rows
    assert list(row.data.values()) == [
        "007", "7", "1.5", "TRUE", "2024-01-02 03:04:00", "2024-01-02", "", "1000000000000000",
    ]  # fmt: skip
    assert (read.kind, read.encoding.how, read.notes) == ("xlsx", "binary", ())


def test_a_title_above_the_header_and_gaps(tmp_path):
    rows = [["客服问答表"], [], ["问题", "答案", None, "备注"], ["一", "二"], [], ["三", "四", "x"]]
    found = list(read_file(book(tmp_path, {"s": rows})).rows)
    assert [(row.line, row.data) for row in found] == [
        (4, {"问题": "一", "答案": "二", "备注": ""}),
        (6, {"问题": "三", "答案": "四", "column_3": "x", "备注": ""}),
    ]


def test_every_sheet_with_a_table_is_read_and_told(tmp_path):
    table = [["ask", "answer"], ["a", "b"]]
    path = book(tmp_path, {"一": table, "空": [], "头": [["ask", "answer"]], "二": table})
    read = read_file(path)
    assert [(row.file, row.line) for row in read.rows] == [("a.xlsx#一", 2), ("a.xlsx#二", 2)]
    assert read.notes == (
        ("sheets_read", {"file": "a.xlsx", "sheets": "一, 二"}),
        ("sheets_empty", {"file": "a.xlsx", "sheets": "空, 头"}),
    )


def test_a_book_without_a_table_is_told(tmp_path):
    with pytest.raises(DataError, match="header"):
        read_file(book(tmp_path, {"s": [["ask", "answer"]]}))

import datetime
import decimal
import sys

import pytest

from weitiao.errors import DataError
from weitiao.records.reading import read_file

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def test_rows_of_all_types_come_as_json_knows_them(tmp_path):
    row = {
        "ask": "问",
        "talk": [{"role": "user", "content": "一"}],
        "day": datetime.date(2024, 1, 2),
        "price": decimal.Decimal("1.50"),
        "blob": b"\xff",
        "text": b"abc",
        "score": float("nan"),
        "none": None,
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([row] * 2500), path, row_group_size=1100)
    read = read_file(path)
    found = list(read.rows)
    assert [r.line for r in found] == list(range(1, 2501))
    assert found[-1].data == {
        **row, "day": "2024-01-02", "price": 1.5, "blob": "/w==", "text": "abc", "score": None,
    }  # fmt: skip
    assert read.kind == "parquet"


def test_two_columns_of_one_name_are_both_kept(tmp_path):
    table = pyarrow.table([["a"], ["b"]], names=["x", "x"])
    parquet.write_table(table, tmp_path / "a.parquet")
    assert next(read_file(tmp_path / "a.parquet").rows).data == {"x": "a", "x_2": "b"}


def test_a_damaged_block_costs_its_own_rows(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"ask": [f"问题 {i} " * 5 for i in range(3000)]})
    parquet.write_table(table, path, row_group_size=1000, compression="zstd", use_dictionary=False)
    column = parquet.ParquetFile(path).metadata.row_group(1).column(0)
    begin, size = column.data_page_offset, column.total_compressed_size
    data = bytearray(path.read_bytes())
    data[begin : begin + size] = b"\xff" * size
    path.write_bytes(data)
    found = list(read_file(path).rows)
    (bad,) = [row for row in found if row.problem]
    assert (bad.problem.name, bad.line) == ("broken_block", 1001)
    assert len(found) - 1 + bad.problem.values["rows"] == 3000
    assert found[-1].line == 3000


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    parquet.write_table(pyarrow.table({"x": ["a"]}), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'weitiao\[parquet\]'"):
        read_file(tmp_path / "a.parquet")

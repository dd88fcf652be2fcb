import csv
import io
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.records.reading import RawRow, read_file, tables


def rows_of(folder: Path, content: str | bytes, name: str = "a.csv") -> list[RawRow]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_file(path).rows)


def cells_of(found: list[RawRow]) -> list[list[str] | None]:
    return [row.data and list(row.data.values()) for row in found]


def test_text_after_a_closing_mark_is_told_and_not_glued(tmp_path):
    found = rows_of(tmp_path, 'ask,answer\na,b\n"他说"你好"。",c\nd,e\n')
    assert cells_of(found) == [["a", "b"], None, ["d", "e"]]
    assert found[1].problem.name == "broken_quotes"
    assert found[1].raw.decode() == '"他说"你好"。",c'


def test_an_open_mark_before_rows_in_marks_costs_its_row(tmp_path):
    found = rows_of(tmp_path, 'ask,answer\n"a","b\n"c","d ""e"""\n"f","g"\n')
    assert cells_of(found) == [None, ["c", 'd "e"'], ["f", "g"]]


def test_the_lines_of_a_cell_stay_together_when_it_is_broken(tmp_path):
    text = '"one\ntwo he said "hi""\nthree",b'
    found = rows_of(tmp_path, f'ask,answer\n{text}\nc,d\n5" pipe,e\n')
    assert [row.data for row in found if row.data] == [
        {"ask": "c", "answer": "d"},
        {"ask": '5" pipe', "answer": "e"},
    ]
    assert b"\n".join(row.raw for row in found if row.problem).decode() == text


def test_rows_behind_a_broken_cell_of_many_lines_are_kept(tmp_path):
    prose = ["he said, or so, again,"] * 60
    prose[9] = "well, yes"  # by itself it could be a row
    text = "\n".join(['"one', *prose, "end"])
    found = rows_of(tmp_path, f"ask,answer\n{text}\n" + "c,d\n" * 9)
    assert [row.data for row in found if row.data] == [{"ask": "c", "answer": "d"}] * 9
    assert [row.raw.decode() for row in found if row.problem] == [text]


def test_a_file_cut_within_a_long_cell_has_one_row_that_is_broken(tmp_path):
    found = rows_of(tmp_path, 'ask,answer\na,b\n"one\ntwo\nthree')
    assert [(row.line, row.raw) for row in found if row.problem] == [(3, b'"one\ntwo\nthree')]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "gb18030", "big5"])
def test_all_ends_of_lines(tmp_path, end, codec):
    content = end.join(["ask,answer", "銀行，卡", '"a', 'b",c', "電話,今天"])
    content = content.replace("銀行，卡", "銀行,卡")
    found = rows_of(tmp_path, content.encode(codec))
    assert cells_of(found) == [["銀行", "卡"], [f"a{end}b", "c"], ["電話", "今天"]]
    assert [row.line for row in found] == [2, 3, 5]


def test_other_ends_of_lines_within_one_file(tmp_path):
    found = rows_of(tmp_path, 'ask,answer\na,b\rc,d\r\n"e\rf",g\n')
    assert cells_of(found) == [["a", "b"], ["c", "d"], ["e\rf", "g"]]


def test_blank_lines_marks_and_zeros(tmp_path):
    found = rows_of(tmp_path, '\n \n\ufeffask,answer\n\n  \na,b\0\n\ufeff"c,d",e\n,\n')
    assert cells_of(found) == [["a", "b\0"], ["c,d", "e"], ["", ""]]
    assert [row.line for row in found] == [6, 7, 8]


def test_a_single_column(tmp_path):
    assert cells_of(rows_of(tmp_path, 'text\na\n\n""\nb\n')) == [["a"], [""], ["b"]]


def test_headers_over_lines_and_broken_ones(tmp_path):
    assert rows_of(tmp_path, '"my\nask",answer\na,b\n')[0].data == {"my\nask": "a", "answer": "b"}
    assert rows_of(tmp_path, 'ask,"answer\na,b\n')[0].data == {"ask": "a", "answer": "b"}
    assert rows_of(tmp_path, "a,a_3,a\n1,2,3\n")[0].data == {"a": "1", "a_3": "2", "a_3_3": "3"}
    assert rows_of(tmp_path, '"a;b","c"\n1,2\n')[0].data == {"a;b": "1", "c": "2"}


def test_a_bad_byte_costs_its_row(tmp_path):
    found = rows_of(tmp_path, "ask,answer\n好,的\n".encode() * 3 + b"\xff\xfe,x\ny,z\n")
    bad = [row for row in found if row.problem]
    assert [(row.line, row.raw, row.problem.name) for row in bad] == [
        (7, b"\xff\xfe,x", "broken_encoding")
    ]


def test_open_marks_neither_hang_nor_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_LONGEST_ROW", 1 << 16)
    monkeypatch.setattr(tables, "_LEAST_LIMIT", 1 << 12)
    # Each of these lines leaves a mark open, read alone or within marks.
    content = "ask,answer\n" + 'ab","d\nx,y\n' * 400 + "x,y\n" * 50_000
    begun = time.monotonic()
    tracemalloc.start()
    path = tmp_path / "a.csv"
    path.write_text(content)
    del content
    kept = sum(row.data is not None for row in read_file(path).rows)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    assert kept == 50_400
    assert time.monotonic() - begun < 20


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), max_size=8), st.sampled_from([",", ";", "\t"]))
def test_what_a_writer_wrote_comes_back(tmp_path_factory, pairs, delimiter):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["ask", "answer"])
    writer.writerows(pairs)
    found = rows_of(tmp_path_factory.getbasetemp(), out.getvalue())
    assert cells_of(found) == [list(pair) for pair in pairs]

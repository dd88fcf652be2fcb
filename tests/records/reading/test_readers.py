import json
from pathlib import Path
from typing import Any

import pytest

from weitiao.errors import DataError
from weitiao.records.reading import RawRow, find_files, read_file, readable, unread_files

ROWS = [{"ask": f"问题 {i}", "answer": f"回答\n{i}"} for i in range(3)]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path, encoding: str | None = None) -> list[RawRow]:
    return list(read_file(path, encoding).rows)


def lines(found: list[RawRow]) -> list[int]:
    return [row.origin.line for row in found]


def dump(value: Any, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **more)


@pytest.mark.parametrize(
    ("content", "at"),
    [
        (dump(ROWS), [1, 1, 1]),
        (dump(ROWS, indent=1), [2, 6, 10]),
        (dump({"version": 1, "data": ROWS}, indent=1), [4, 8, 12]),
        (dump({"data": ROWS}), [1, 1, 1]),
        (dump({c: [row[c] for row in ROWS] for c in ROWS[0]}), [1, 2, 3]),
        ("[\n" + ",\n".join(map(dump, ROWS)) + ",\n]\n", [2, 3, 4]),
        ("\n".join(map(dump, ROWS)), [1, 2, 3]),
        ("\ufeff\n" + "\r\n\r\n".join(map(dump, ROWS)), [2, 4, 6]),
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
def test_json_in_every_form_whatever_its_name(tmp_path, content, at, name, codec):
    found = rows(write(tmp_path, name, content.encode(codec)))
    if name == "a.jsonl" and content.startswith("{") and "\n" not in content:
        return  # one line of a .jsonl is one row
    assert [row.data for row in found] == ROWS
    assert lines(found) == at


def test_a_single_object_is_one_row(tmp_path):
    row = {"messages": [{"role": "user", "content": "一"}, {"role": "assistant", "content": "二"}]}
    for indent in (None, 1):
        (found,) = rows(write(tmp_path, "a.json", dump(row, indent=indent)))
        assert found.data == row


def test_what_the_file_holds_is_told(tmp_path):
    assert read_file(write(tmp_path, "a.json", "\n".join(map(dump, ROWS)))).kind == "jsonl"
    assert read_file(write(tmp_path, "b.jsonl", dump(ROWS))).kind == "json"


def test_jsonl_goes_on_after_a_bad_line_and_splits_on_line_feeds_alone(tmp_path):
    good = dump({"ask": "a\u2028b\u0085c\x0bd\re", "answer": "\t"}).replace("\\t", "\t")
    good = good.replace(", ", ",\r")  # a blank to JSON, and no end of line
    content = "\n".join([good, '{"ask": "cut', "[1]", '{"a" "b"}', "", good])
    found = rows(write(tmp_path, "a.jsonl", content))
    assert lines(found) == [1, 2, 3, 4, 6]
    assert found[0].data == found[4].data == {"ask": "a\u2028b\u0085c\x0bd\re", "answer": "\t"}
    problems = [row.problem.name for row in found if row.problem]
    assert problems == ["broken_json", "not_an_object", "broken_json"]
    assert found[3].problem.values == {"column": 6}
    assert found[1].raw == b'{"ask": "cut'
    assert found[0].raw == b""


def test_a_line_in_another_encoding_spoils_itself_alone(tmp_path):
    text = dump({"ask": "银行卡丢了怎么办？", "answer": "请马上挂失。"})
    content = [text.encode()] * 9 + [text.encode("gbk")] + [text.encode()]
    found = rows(write(tmp_path, "a.jsonl", b"\n".join(content)))
    assert [row.problem.name for row in found if row.problem] == ["broken_encoding"]
    assert found[9].problem is not None
    assert found[9].raw == text.encode("gbk")
    assert "\\xd2\\xf8" in readable(found[9].raw, "utf-8")
    # The same in a file of GBK.
    content = [text.encode("gbk")] * 9 + [b'{"ask": "\xff\xff", "answer": "b"}']
    found = rows(write(tmp_path, "b.jsonl", b"\n".join(content)))
    assert [row.origin.line for row in found if row.problem] == [10]


def test_half_a_surrogate_pair_is_broken_encoding(tmp_path):
    content = '{"ask": "\\ud83d", "answer": "b"}\n{"ask": "\\ud83d\\ude00", "answer": "b"}\n'
    found = rows(write(tmp_path, "a.jsonl", content))
    assert found[0].problem.name == "broken_encoding"
    assert found[1].data == {"ask": "😀", "answer": "b"}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_cells_are_text_and_lines_are_true(tmp_path, end):
    content = end.join(
        ["ask,answer,id", '"one\ntwo, ""three""",b,007', "", "c,d,1e5", "e,f", "g,h,2,3", "i,,"]
    )
    found = rows(write(tmp_path, "a.csv", content + end))
    assert lines(found) == [2, 5, 6, 7, 8]
    assert found[0].data == {"ask": 'one\ntwo, "three"', "answer": "b", "id": "007"}
    assert found[1].data == {"ask": "c", "answer": "d", "id": "1e5"}
    assert [row.problem.name for row in found if row.problem] == ["ragged_row"] * 2
    assert found[2].problem.values == {"found": 2, "expected": 3}
    assert found[4].data == {"ask": "i", "answer": "", "id": ""}


def test_a_quote_that_never_closes_costs_one_row(tmp_path):
    content = 'ask,answer\na,b\n"open,d\n' + "".join(f"q{i},a{i}\n" for i in range(50))
    found = rows(write(tmp_path, "a.csv", content))
    assert lines(found) == list(range(2, 54))
    assert [row.origin.line for row in found if row.problem] == [3]
    assert found[2].data == {"ask": "q0", "answer": "a0"}


def test_csv_of_semicolons_tabs_bom_and_odd_headers(tmp_path):
    assert rows(write(tmp_path, "a.csv", "\ufeff问题;答案\n一,二;三\n"))[0].data == {
        "问题": "一,二",
        "答案": "三",
    }
    assert rows(write(tmp_path, "a.tsv", "ask\tanswer\na\tb\n"))[0].data == {
        "ask": "a",
        "answer": "b",
    }
    assert rows(write(tmp_path, "b.csv", ", ask ,a,a\n0,q,x,y\n"))[0].data == {
        "column_1": "0",
        "ask": "q",
        "a": "x",
        "a_4": "y",
    }


def test_the_encoding_can_be_given(tmp_path):
    path = write(tmp_path, "a.csv", "ask,answer\n张伟,李娜\n".encode("big5", "ignore"))
    assert read_file(path, "big5").encoding.how == "given"


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("a.json", "", "error.file_empty"),
        ("a.csv", " \n ", "error.file_empty"),
        ("a.json", '[{"a": ', "error.json_broken"),
        ("a.json", "[{'a': 'b'}, {'a': 'c'}]", "error.json_broken"),
        ("a.json", "nonsense", "error.json_broken"),
        ("a.xlsx", "nonsense", "error.file_content"),
        ("a.xls", "<html><table></table></html>", "error.file_content"),
        ("a.csv", b"\x1f\x8b\x08", "error.file_compressed"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, name, content, key):
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        rows(path)
    assert caught.value.key == key
    assert name in caught.value.sentence("en")
    assert name in caught.value.sentence("zh")


def test_broken_json_names_line_and_column(tmp_path):
    with pytest.raises(DataError, match="line 2, column 7"):
        rows(write(tmp_path, "a.json", '[\n {"a" 2}]'))


def test_files_that_are_not_there(tmp_path):
    write(tmp_path, "questions.jsonl", "{}")
    with pytest.raises(DataError, match=r"Did you mean questions\.jsonl"):
        find_files(tmp_path / "question.jsonl")
    with pytest.raises(DataError, match="Check the name"):
        find_files(tmp_path / "no" / "x.jsonl")
    with pytest.raises(DataError, match=r"\.csv"):
        find_files(write(tmp_path, "a.doc", "x"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no data file"):
        find_files(tmp_path / "empty")


def test_a_folder_gives_its_data_files_sorted(tmp_path):
    for name in ("b.csv", "a.jsonl", "notes.txt", ".hidden.json", "dataset_info.json"):
        write(tmp_path, name, "x")
    write(tmp_path, "a.review.jsonl", "{}")
    write(tmp_path, "~$a.xlsx", "x")
    (tmp_path / "sub").mkdir()
    assert [file.name for file in find_files(tmp_path)] == ["a.jsonl", "b.csv"]
    assert unread_files(tmp_path) == ["notes.txt", "sub/", "~$a.xlsx"]
    assert unread_files(tmp_path / "a.jsonl") == []


def test_a_folder_of_documents_gives_documents(tmp_path):
    for name in ("b.md", "a.txt", "c.doc"):
        write(tmp_path, name, "x")
    assert [file.name for file in find_files(tmp_path)] == ["a.txt", "b.md"]
    assert unread_files(tmp_path) == ["c.doc"]


def test_the_first_text_that_is_not_ascii_may_come_late(tmp_path):
    late = dump({"ask": "老年人高血压一般如何治疗？", "answer": "请去医院检查一下身体。"})
    content = "[" + ",\n".join([*[dump({"ask": "x" * 1000, "answer": "y"})] * 1500, late]) + "]"
    read = read_file(write(tmp_path, "a.jsonl", content.encode("gbk")))
    assert (read.kind, read.encoding.name) == ("json", "gb18030")
    assert list(read.rows)[-1].data == json.loads(late)


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "big5"])
def test_other_encodings_to_the_end(tmp_path, codec):
    content = "\n".join(
        dump({"ask": f"這個問題怎麼處理？{i}", "answer": "請說明原因"}) for i in range(3)
    )
    found = rows(write(tmp_path, "a.jsonl", content.encode(codec)))
    assert found[2].data == {"ask": "這個問題怎麼處理？2", "answer": "請說明原因"}

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError
from weitiao.records.reading import RawRow, lines, read_file, window

GOOD = [
    {"ask": f"问题 {i}，{{[", "answer": f'"回答"\n{i}', "n": [i, {"m": None}]} for i in range(9)
]


def rows_of(folder: Path, content: str | bytes, name: str = "a.json") -> list[RawRow]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_file(path).rows)


def good_of(found: list[RawRow]) -> list[Any]:
    return [row.data for row in found if row.data is not None]


def dump(value: Any, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **more)


@pytest.mark.parametrize(
    ("broken", "line", "raw"),
    [
        (b'{"ask" 2, "answer": "x"}', 1, None),
        (b'{"ask": "he said "hi"", "answer": "x"}', 1, None),
        (b'{"ask": "open, "answer": "x"}', 1, None),
        (b'{ask": 1}', 1, None),
        (b'{"ask": [1, {"ask"}', 1, None),
        (b'{"ask": 1}}', 1, b"}"),
        (b"None", 1, None),
        (b"{'ask': 'single'}", 1, None),
        (b'{"ask": "\xff"}', 1, None),
        (b'{"ask": 1, "ask": 2}', 1, None),
        (b'{"ask": "\\ud83d"}', 1, None),
        (b"[1, 2]", 1, None),
        (b"[" * 5000, 1, None),
    ],
)
@pytest.mark.parametrize("place", [0, 4, 9])
def test_what_is_broken_costs_itself_alone(tmp_path, broken, line, raw, place):
    items = [dump(row).encode() for row in GOOD]
    items.insert(place, broken)
    found = rows_of(tmp_path, b"[\n" + b",\n".join(items) + b"\n]")
    expected = [{"ask": 1}] if raw else []
    assert good_of(found) == GOOD[:place] + expected + GOOD[place:]
    (bad,) = [row for row in found if row.problem]
    assert bad.raw.startswith(raw or broken)
    assert bad.line == place + 2
    assert len(bad.raw) <= len(broken) + 2  # the last item may take the array's end along


def test_a_broken_item_ends_where_its_brackets_do(tmp_path):
    found = rows_of(tmp_path, '{"data": [{"a": 1}, {"a" [2]}], "more": [{"a": 3}]}')
    assert [row.data for row in found] == [{"a": 1}, None, {"a": 3}]
    assert found[1].raw == b'{"a" [2]}'


def test_turns_of_a_broken_first_item_are_no_items(tmp_path):
    talk = {"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]}
    broken = dump(talk).replace('"messages":', '"messages"')
    found = rows_of(tmp_path, f"[{broken}, {dump(talk)}, {dump(talk)}]")
    assert [row.data for row in found] == [None, talk, talk]
    assert found[0].problem.values == {"line": 1, "column": 14}
    assert found[0].raw.decode() == broken


def test_a_file_that_was_cut_loses_its_last_item_alone(tmp_path):
    whole = dump(GOOD, indent=1).encode()
    for end in range(len(whole) - 40, len(whole) - 3, 5):
        found = rows_of(tmp_path, whole[:end])
        assert good_of(found) == GOOD[:-1]
        assert found[-1].problem
        assert whole[:end].rstrip().endswith(found[-1].raw)


def test_nothing_is_lost_where_only_commas_or_brackets_are_wrong(tmp_path):
    items = [dump(row) for row in GOOD]
    for content in (
        "[" + " ".join(items) + "]",
        "[" + ",, ".join(items) + ",]",
        "[" + ",".join(items),
        "[" + "],[".join(items) + "]",
        "\n".join(dump(row, indent=1) for row in GOOD),
        dump({"train": GOOD[:4], "about": {"n": 9}, "test": GOOD[4:]}),
        dump({"info": {"version": [1]}, "data": GOOD}),
    ):
        assert [row.data for row in rows_of(tmp_path, content)] == GOOD


def test_two_equal_keys_are_told_at_any_depth(tmp_path):
    for name, content in {
        "a.json": '[{"a": 1}, {"a": [{"b": 1, "b": 2}]}, {"a": 1, "x": "\\"", "a" : 2}]',
        "a.jsonl": '{"a": 1}\n{"a": [{"b": 1, "b": 2}]}\n{"a": 1, "x": "\\"", "a" : 2}',
    }.items():
        found = rows_of(tmp_path, content, name)
        problems = [(row.problem.name, row.problem.values) for row in found if row.problem]
        assert problems == [("duplicate_key", {"key": "b"}), ("duplicate_key", {"key": "a"})]
    marks_that_mislead = r'{"b": "\\", "c": "\\", "a": 1, "a": 2}'
    assert rows_of(tmp_path, marks_that_mislead, "b.jsonl")[0].problem.values == {"key": "a"}


def test_numbers_and_constants_keep_what_they_say(tmp_path):
    content = '{"a": 12345678901234567890123, "b": NaN, "c": -Infinity, "d": [1e300]}'
    expected = {"a": 12345678901234567890123, "b": None, "c": "-Infinity", "d": [1e300]}
    assert rows_of(tmp_path, f"[{content}, {content}]")[0].data == expected
    assert rows_of(tmp_path, content, "a.jsonl")[0].data == expected
    whole = '{"a": 123456789012345678901}'
    assert rows_of(tmp_path, whole, "b.jsonl")[0].data == {"a": 123456789012345678901}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_what_is_too_deep_for_others_is_refused_here(tmp_path, name):
    deep = '{"a": ' + "[" * 200 + "]" * 200 + "}"
    found = rows_of(tmp_path, f'[{deep}, {{"a": 1}}]' if name == "a.json" else deep, name)
    assert found[0].problem.name == "too_deep"


def test_a_table_as_pandas_writes_it(tmp_path):
    expected = [{"ask": "一", "answer": "二"}, {"ask": "三", "answer": "四"}]
    by_column = {c: {str(i): row[c] for i, row in enumerate(expected)} for c in expected[0]}
    assert [row.data for row in rows_of(tmp_path, dump(by_column))] == expected


@pytest.mark.parametrize("codec", ["utf-8", "utf-16", "gb18030"])
def test_a_document_is_read_whatever_stands_at_the_edge_of_a_block(tmp_path, monkeypatch, codec):
    monkeypatch.setattr(lines, "BLOCK", 16)
    monkeypatch.setattr(window, "_LEAST", 8)
    items = [dump(row, indent=1) for row in GOOD]
    items.insert(3, '{"ask": "cut')
    for content in ("[" + ",\n".join(items) + "]", '{"data": [' + ",".join(items) + "]}"):
        found = rows_of(tmp_path, content.encode(codec))
        assert good_of(found) == GOOD
        assert [row.raw.decode(codec.replace("16", "16-le")) for row in found if row.problem] == [
            '{"ask": "cut'
        ]
        begins = [content.index(item) for item in items]
        assert [row.line for row in found] == [content[:at].count("\n") + 1 for at in begins]


def test_numbers_and_columns_at_the_edge_of_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 4)
    monkeypatch.setattr(window, "_LEAST", 4)
    content = '[{"a": 1}, 1234567890123, {"a": 2}, {"a" 3}, {"a": 4}]'
    found = rows_of(tmp_path, content)
    assert [row.raw for row in found] == [b"", b"1234567890123", b"", b'{"a" 3}', b""]
    assert found[3].problem.values == {"line": 1, "column": content.index(" 3}") + 2}


def test_bytes_of_a_line_end_across_two_characters_end_no_line(tmp_path):
    row = {"ask": "\u0a05\u0100", "answer": "\u0100\u0a05\n"}
    content = "\n".join([dump(row)] * 3).encode("utf-16-le")
    assert content.count(b"\n\0") > 2
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert [found.data for found in read_file(path, "utf-16-le").rows] == [row] * 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=4), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(OBJECTS, st.sampled_from([None, 1]), st.booleans())
def test_any_rows_come_back_as_they_were(tmp_path_factory, objects, indent, ascii_only):
    folder = tmp_path_factory.getbasetemp()
    dumped = [json.dumps(o, ensure_ascii=ascii_only) for o in objects]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", 7)
        patch.setattr(window, "_LEAST", 5)
        array = json.dumps(objects, ensure_ascii=ascii_only, indent=indent)
        assert [row.data for row in rows_of(folder, array)] == objects
        assert [row.data for row in rows_of(folder, "\n".join(dumped), "a.jsonl")] == objects


def test_memory_does_not_grow_with_the_file(tmp_path):
    rows = [dump({"ask": "多长？" * 30, "answer": str(i)}) for i in range(24_000)]
    contents = {
        "a.json": "[" + ",\n".join(rows) + "]",
        "b.json": '{"data": [' + ",\n".join(rows) + "]}",
        "a.jsonl": "\n".join(rows),
        "a.csv": "ask,answer\n" + "\n".join(["多长？" * 30 + ",b"] * 24_000),
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        tracemalloc.start()
        kept = sum(row.data is not None for row in read_file(path).rows)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert kept == 24_000
        assert peak < 6 << 20 < path.stat().st_size


def test_broken_beyond_reading_is_a_sentence_with_its_place(tmp_path):
    with pytest.raises(DataError, match="line 3, column 7"):
        rows_of(tmp_path, '[\n\n {"a" 2}]')

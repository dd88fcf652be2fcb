"""LLaMA-Factory's dataset_info.json beside a file."""

import json
from pathlib import Path
from typing import Any

import pytest

from weitiao.errors import DataError
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.shaping import Shape, detect_shape, reader_of, registry_entry, write

ORIGIN = Origin("file", 1)
FILE = "data.json"


def shape_of(folder: Path, entry: dict[str, Any], *rows: dict[str, Any]) -> Shape:
    registry = {"hub": {"hf_hub_url": "a/b"}, "mine": {"file_name": FILE, **entry}}
    (folder / "dataset_info.json").write_text(json.dumps(registry), "utf-8")
    return detect_shape(rows, None, FILE, registry_entry(folder / FILE))


def read(folder: Path, entry: dict[str, Any], row: dict[str, Any]) -> Record | Reason:
    return reader_of(shape_of(folder, entry, row))(row, ORIGIN)


def said(*turns: tuple[Any, str]) -> tuple[Message, ...]:
    return tuple(Message(*turn) for turn in turns)


def test_no_column_that_is_not_named_is_lost(tmp_path):
    row = {"instruction": "翻译", "input": "hello", "output": "你好", "level": 3}
    entry = {"columns": {"prompt": "instruction", "response": "output"}}
    assert read(tmp_path, entry, row) == Record(
        ORIGIN, said(("user", "翻译\nhello"), ("assistant", "你好")), metadata={"level": 3}
    )


@pytest.mark.parametrize(
    ("columns", "row", "turns", "metadata"),
    [
        (
            {"prompt": "q", "response": "r"},
            {"q": "a", "r": "b", "question": "x", "answer": "y"},
            said(("user", "a"), ("assistant", "b")),
            {"question": "x", "answer": "y"},
        ),
        (
            {"prompt": "q"},
            {"q": "a", "answer": "b", "question": "x"},
            said(("user", "a"), ("assistant", "b")),
            {"question": "x"},
        ),
        (
            {"prompt": "q", "query": "more", "response": "r", "system": "s", "history": "h"},
            {"q": "a", "more": "b", "r": "c", "s": "S", "h": [["1", "2"]], "system": "x"},
            said(
                ("system", "S"),
                ("user", "1"),
                ("assistant", "2"),
                ("user", "a\nb"),
                ("assistant", "c"),
            ),
            {"system": "x"},
        ),
    ],
)
def test_columns_of_an_entry(tmp_path, columns, row, turns, metadata):
    assert read(tmp_path, {"columns": columns}, row) == Record(ORIGIN, turns, metadata=metadata)


def test_a_prompt_without_an_answer_is_a_passage(tmp_path):
    found = read(
        tmp_path, {"columns": {"prompt": "body"}}, {"body": "床前明月光", "title": "静夜思"}
    )
    assert found == Record(ORIGIN, text="床前明月光", metadata={"title": "静夜思"})


def test_turns_under_names_of_their_own(tmp_path):
    entry = {
        "formatting": "sharegpt",
        "columns": {"messages": "dialog", "system": "s", "tools": "t"},
        "tags": {
            "role_tag": "who",
            "content_tag": "says",
            "user_tag": "客户",
            "assistant_tag": "客服",
            "function_tag": "调用",
            "observation_tag": "结果",
        },
    }
    row = {
        "dialog": [
            {"who": "客户", "says": "a", "time": 1},
            {"who": "调用", "says": '{"name": "f", "arguments": {}}'},
            {"who": "结果", "says": "r"},
            {"who": "客服", "says": "b"},
        ],
        "s": "S",
        "t": '[{"name": "f"}]',
        "n": 1,
    }
    found = read(tmp_path, entry, row)
    assert isinstance(found, Record)
    assert [m.role for m in found.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert found.messages[1] == Message("user", "a", metadata={"time": 1})
    assert found.messages[2].tool_calls[0]["function"] == {"name": "f", "arguments": {}}
    assert found.tools == ({"type": "function", "function": {"name": "f"}},)
    assert found.metadata == {"n": 1}


def test_usual_names_need_no_tags(tmp_path):
    entry = {"columns": {"messages": "messages"}, "tags": {"role_tag": "role", "user_tag": "user"}}
    shape = shape_of(tmp_path, entry, {"messages": [{"role": "user", "content": "a"}]})
    assert shape.tags == {}
    assert shape.describe("en") == (
        "read as conversation: messages → turns, by the entry mine of dataset_info.json"
    )
    assert "mine" in shape.describe("zh")


@pytest.mark.parametrize(
    "entry",
    [
        {"ranking": True},
        {"columns": {"kto_tag": "good"}},
        {"columns": {"chosen": "a", "rejected": "b"}},
    ],
)
def test_preference_data_is_refused(tmp_path, entry):
    with pytest.raises(DataError, match="preference"):
        shape_of(tmp_path, entry, {"instruction": "a", "output": "b", "good": True})


def test_columns_of_pictures(tmp_path):
    entry = {"columns": {"images": "pics"}}
    row = {"instruction": "a", "output": "b", "pics": ["x.png"]}
    assert read(tmp_path, entry, row) == Reason("media", {"column": "pics"})
    assert isinstance(read(tmp_path, entry, {**row, "pics": []}), Record)


def test_which_entry(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    registry = tmp_path / "dataset_info.json"
    registry.write_text('{"all": {"file_name": "parts", "num_samples": 5}}', "utf-8")
    entry = registry_entry(folder / "1.jsonl")
    assert entry is not None
    assert (entry.name, entry.num_samples) == ("all", 5)
    assert registry_entry(tmp_path / "1.jsonl") is None
    registry.write_text('[{"dataset_path": "1.jsonl"}]', "utf-8")  # ms-swift's
    assert registry_entry(tmp_path / "1.jsonl") is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"a":\n', "line 2"),
        ('{"a": {"file_name": "data.json", "columns": ["q"]}}', "columns"),
        ('{"a": {"file_name": "data.json", "num_samples": "5"}}', "num_samples"),
    ],
)
def test_a_broken_registry_is_named(tmp_path, text, shown):
    (tmp_path / "dataset_info.json").write_text(text, "utf-8")
    with pytest.raises(DataError, match=shown) as caught:
        registry_entry(tmp_path / FILE)
    assert "dataset_info.json" in caught.value.sentence("zh")


def test_a_column_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"entry mine names the column aks.*ask, answer"):
        shape_of(tmp_path, {"columns": {"prompt": "aks"}}, {"ask": "a", "answer": "b"})


def test_the_real_registry(shared):
    names = {
        "identity.json": "identity",
        "glaive_toolcall_zh_demo.json": "glaive_toolcall_zh_demo",
        "alpaca_zh.json": None,
    }
    for file, name in names.items():
        entry = registry_entry(shared / "data" / file)
        assert (entry.name if entry else None) == name


def test_writing_adds_an_entry_and_keeps_the_others(tmp_path):
    registry = tmp_path / "dataset_info.json"
    registry.write_text('{"rows": {"hf_hub_url": "a/b"}, "x": 1}', "utf-8")
    record = Record(ORIGIN, said(("user", "a"), ("assistant", "b")))
    write([record], tmp_path / "rows.jsonl", "llamafactory")
    entries = json.loads(registry.read_text("utf-8"))
    assert list(entries) == ["rows", "x", "rows_2"]
    assert entries["rows_2"]["file_name"] == "rows.jsonl"
    assert entries["rows_2"]["columns"] == {"messages": "messages"}
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(DataError, match="rows_2"):
        write([record], tmp_path / "rows.jsonl", "llamafactory")
    assert not (tmp_path / "rows.jsonl").exists()

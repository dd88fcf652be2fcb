from dataclasses import replace
from typing import Any

import pytest

from weitiao.errors import DataError
from weitiao.records.options import DataOptions, parse_columns
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.shaping import detect_shape, to_record

ORIGIN = Origin("file", 1)


def read(row: dict[str, Any], columns: dict[str, str] | None = None) -> Record | Reason:
    return to_record(row, detect_shape([row], columns), ORIGIN)


def said(*turns: tuple[Any, str]) -> tuple[Message, ...]:
    return tuple(Message(*turn) for turn in turns)


@pytest.mark.parametrize(
    ("row", "name", "messages", "metadata"),
    [
        (
            {"instruction": "翻译", "input": "hello", "output": "你好", "id": 3},
            "alpaca",
            said(("user", "翻译\nhello"), ("assistant", "你好")),
            {"id": 3},
        ),
        (
            {"instruction": "翻译", "input": " ", "output": "你好", "system": "S", "history": None},
            "alpaca",
            said(("system", "S"), ("user", "翻译"), ("assistant", "你好")),
            {},
        ),
        (
            {
                "instruction": "三",
                "input": "",
                "output": "丙",
                "history": [["一", "甲"], ["二", "乙"]],
            },
            "alpaca",
            said(
                *(("user", "一"), ("assistant", "甲"), ("user", "二"), ("assistant", "乙")),
                *(("user", "三"), ("assistant", "丙")),
            ),
            {},
        ),
        (
            {"prompt": "a", "response": "b"},
            "exchange",
            said(("user", "a"), ("assistant", "b")),
            {},
        ),
        (
            {"instruction": "问", "context": "文", "response": "答", "category": "类"},
            "instruction",
            said(("user", "文\n问"), ("assistant", "答")),
            {"category": "类"},
        ),
        (
            {"instruction": "问", "context": "", "response": "答", "category": "类"},
            "instruction",
            said(("user", "问"), ("assistant", "答")),
            {"category": "类"},
        ),
        (
            {"department": "内科", "title": "t", "ask": "a", "answer": "b"},
            "exchange",
            said(("user", "a"), ("assistant", "b")),
            {"department": "内科", "title": "t"},
        ),
        (
            {"Question ": "a", "ANSWER": "b"},
            "exchange",
            said(("user", "a"), ("assistant", "b")),
            {},
        ),
        ({"问题": "a", "答案": 42}, "exchange", said(("user", "a"), ("assistant", "42")), {}),
        ({"input": "a", "output": "b"}, "exchange", said(("user", "a"), ("assistant", "b")), {}),
        (
            {
                "conversations": [
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                ],
                "system": "S",
                "source": "x",
            },
            "conversation",
            said(("system", "S"), ("user", "a"), ("assistant", "b")),
            {"source": "x"},
        ),
        (
            {
                "conversation": [
                    {"role": "System", "content": "S"},
                    {"role": "user", "content": "a"},
                    {"role": "bot", "content": "b"},
                ],
                "metadata": {"topic": "t"},
            },
            "conversation",
            said(("system", "S"), ("user", "a"), ("assistant", "b")),
            {"topic": "t"},
        ),
    ],
)
def test_each_shape(row, name, messages, metadata):
    shape = detect_shape([row])
    assert shape.name == name
    assert read(row) == Record(ORIGIN, messages, metadata=metadata)


def test_plain_text():
    assert read({"text": "床前明月光", "author": "李白"}) == Record(
        ORIGIN, text="床前明月光", metadata={"author": "李白"}
    )


def test_what_weitiao_wrote_is_read_again():
    record = Record(
        Origin("old", 9),
        (Message("user", "a"), Message("assistant", "b", loss=False), Message("user", "c")),
        metadata={"topic": "t"},
    )
    again = read(record.to_json())
    assert again == Record(ORIGIN, record.messages, metadata={"topic": "t"})


def test_the_shape_is_told_in_words():
    shape = detect_shape([{"instruction": "", "input": "", "output": ""}])
    assert shape.describe("en") == "read as alpaca: instruction, input → user; output → assistant"
    assert "output → 助手" in shape.describe("zh")
    assert (
        detect_shape([{"text": ""}]).describe("en") == "read as plain text: text → text to continue"
    )


def test_columns_override():
    row = {"instruction": "a", "output": "b", "q": "c", "r": "d", "s": "S", "k": "K"}
    assert read(row, {"prompt": "q", "response": "r", "system": "s", "context": "k"}) == Record(
        ORIGIN,
        said(("system", "S"), ("user", "K\nc"), ("assistant", "d")),
        metadata={"instruction": "a", "output": "b"},
    )
    with pytest.raises(DataError, match=r"no column outptu.*output"):
        read(row, {"prompt": "q", "response": "outptu"})


def test_spoilt_rows_do_not_hide_the_shape():
    rows = [{"ask": "a", "answer": "b"}] * 6 + [{"ask": "a"}] * 4
    shape = detect_shape(rows)
    assert shape.columns == {"prompt": "ask", "response": "answer"}
    assert to_record(rows[-1], shape, ORIGIN) == Reason("missing_column", {"column": "answer"})


def test_nothing_fits_names_the_columns_and_the_option():
    with pytest.raises(DataError) as caught:
        detect_shape([{"标题": "a", "正文": "b", "n": 1}], file="x.csv")
    assert "标题, 正文, n" in caught.value.sentence("en")
    assert "--columns 标题,正文" in caught.value.sentence("zh")


def test_preference_data_is_refused_unless_an_answer_is_named():
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    with pytest.raises(DataError, match="preference"):
        detect_shape([row])
    assert read(row, {"prompt": "prompt", "response": "chosen"}).answer == "b"  # type: ignore[union-attr]
    shape = detect_shape([{"prompt": "a", "response": "b"}])
    mixed = {**row, "response": "b"}
    assert to_record(mixed, shape, ORIGIN) == Reason("preference")
    assert isinstance(to_record({**mixed, "rejected": None}, shape, ORIGIN), Record)


def test_likes_and_dislikes_are_preferences_and_other_labels_are_not():
    liked = {"prompt": "a", "response": "b", "label": True}
    with pytest.raises(DataError, match="preference"):
        detect_shape([liked])
    shape = detect_shape([{**liked, "label": 3}])
    assert to_record(liked, shape, ORIGIN) == Reason("preference")
    found = to_record({**liked, "label": 3}, shape, ORIGIN)
    assert isinstance(found, Record)
    assert found.metadata == {"label": 3}
    assert isinstance(read({"text": "a", "label": True}), Record)


@pytest.mark.parametrize(
    ("row", "reason", "column"),
    [
        ({"ask": "a", "answer": ["b"]}, "wrong_type", "answer"),
        ({"ask": "a", "answer": True}, "wrong_type", "answer"),
        ({"ask": "a", "answer": "b", "images": ["x.png"]}, "media", "images"),
        ({"messages": "hi"}, "wrong_type", "messages"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "unknown_role", "messages[0]"),
        ({"messages": [{"role": "user"}]}, "missing_column", "messages[0].content"),
        ({"messages": [{"role": "user", "content": {}}]}, "wrong_type", "messages[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "media",
            "messages[0]",
        ),
        ({"instruction": "a", "output": "b", "history": [["q"]]}, "wrong_type", "history[0]"),
        ({"messages": [{"role": "user", "content": "a"}], "tools": "{"}, "wrong_type", "tools"),
    ],
)
def test_rows_that_do_not_fit_have_a_reason_in_words(row, reason, column):
    found = read(row)
    assert isinstance(found, Reason)
    assert (found.name, found.values["column"]) == (reason, column)
    for language in ("en", "zh"):
        assert column in found.sentence(language)
        assert found.hint(language)


def test_null_is_empty_and_an_empty_medium_is_none():
    assert read({"ask": "a", "answer": None, "images": []}) == Record(
        ORIGIN, said(("user", "a"), ("assistant", "")), metadata={"images": []}
    )


def test_tool_turns_of_both_tribes():
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "r"},
            {"from": "gpt", "value": "b"},
        ],
        "tools": '[{"name": "f", "parameters": {}}]',
    }
    openai = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "r"},
            {"role": "assistant", "content": "b"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    }
    assert read(sharegpt) == read(openai)
    assert read(openai).messages[1].tool_calls == (call,)  # type: ignore[union-attr]


def test_columns_are_parsed_as_people_write_them():
    assert parse_columns("ask, answer") == {"prompt": "ask", "response": "answer"}
    assert parse_columns("response=答,prompt=问,system=s") == {
        "prompt": "问",
        "response": "答",
        "system": "s",
    }
    for text in ("", "a", "a,b,c", "prompt=a", "prompt=a,answer=b", "prompt=a,prompt=b,response=c"):
        with pytest.raises(DataError, match="--columns ask,answer"):
            parse_columns(text)
    DataOptions.model_validate({"columns": parse_columns("a,b")})


def test_columns_that_few_rows_have_are_not_lost():
    rows = [{"instruction": "a", "output": "b"}] * 300
    shape = detect_shape([*rows, {**rows[0], "history": [["1", "2"]]}])
    assert shape.columns["history"] == "history"
    for late in (detect_shape(rows), shape):
        found = to_record({**rows[0], "input": "x", "system": "S"}, late, ORIGIN)
        assert isinstance(found, Record)
        assert found.messages == said(("system", "S"), ("user", "a\nx"), ("assistant", "b"))


def test_ms_swift_queries():
    row = {"system_prompt": "S", "query": "a", "response": "b", "history": [["1", "2"]]}
    found = read(row)
    assert isinstance(found, Record)
    assert [m.content for m in found.messages] == ["S", "1", "2", "a", "b"]


def test_an_input_beside_an_instruction_is_part_of_the_question():
    found = read({"instruction": "翻译", "input": "hello", "response": "你好"})
    assert isinstance(found, Record)
    assert found.messages == said(("user", "翻译\nhello"), ("assistant", "你好"))


def test_a_question_of_blanks_stays_as_it_is():
    assert read({"instruction": " ", "input": "", "output": "b"}) == Record(
        ORIGIN, said(("user", " "), ("assistant", "b"))
    )


def test_a_column_called_origin_is_a_column_like_others():
    found = read({"question": "a", "answer": "b", "origin": "web"})
    assert isinstance(found, Record)
    assert found.metadata == {"origin": "web"}


def test_metadata_inside_and_beside():
    row = {"question": "a", "answer": "b", "topic": "t"}
    merged, both = read({**row, "metadata": {"n": 1}}), read({**row, "metadata": {"topic": "u"}})
    assert isinstance(merged, Record)
    assert isinstance(both, Record)
    assert merged.metadata == {"topic": "t", "n": 1}
    assert both.metadata == {"topic": "t", "metadata": {"topic": "u"}}


def test_our_own_rows_are_read_exactly():
    call = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    record = Record(
        Origin("old", 9),
        (
            Message("user", " ", loss=False, metadata={"loss_scale": 1, "content": "x"}),
            Message("assistant", "", tool_calls=(call,)),
        ),
        metadata={"metadata": {"answer": 1}, "origin": 2, "images": ["x"], "label": True},
    )
    shape = detect_shape([record.to_json()])
    assert shape.name == "weitiao"
    assert "own rows" in shape.describe("en")
    assert to_record(record.to_json(), shape, ORIGIN) == replace(record, origin=ORIGIN)
    edited = {**record.to_json(), "topic": "t", "metadata": {}}
    found = to_record(edited, shape, ORIGIN)
    assert isinstance(found, Record)
    assert found.metadata == {"topic": "t"}


def test_passages_among_conversations():
    turns = {"messages": [{"role": "user", "content": "a"}]}
    for rows in ([{"text": "x"}, turns], [turns, {"text": "x"}], [{"text": "x"}] * 3 + [turns]):
        shape = detect_shape(rows)
        assert shape.name == "conversation"
        assert to_record({"text": "x", "n": 1}, shape, ORIGIN) == Record(
            ORIGIN, text="x", metadata={"n": 1}
        )
    late = to_record({**turns, "n": 1}, detect_shape([{"text": "x"}]), ORIGIN)
    assert late == Record(ORIGIN, said(("user", "a")), metadata={"n": 1})

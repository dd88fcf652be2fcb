"""Lists of turns as each tool writes them."""

from typing import Any

import pytest

from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.shaping import detect_shape, to_record

ORIGIN = Origin("file", 1)
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def read(*turns: Any, **columns: Any) -> Record | Reason:
    row = {"messages": list(turns), **columns}
    return to_record(row, detect_shape([row]), ORIGIN)


def messages(*turns: Any, **columns: Any) -> tuple[Message, ...]:
    found = read(*turns, **columns)
    assert isinstance(found, Record), found
    return found.messages


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("more", "loss", "kept"),
    [
        ({"loss": False}, False, {}),
        ({"loss": True}, True, {}),
        ({"loss": None}, True, {}),
        ({"loss": 0.0}, False, {}),
        ({"loss_scale": 0}, False, {}),
        ({"loss_scale": 1.0}, True, {}),
        ({"loss_scale": 0.5}, True, {"loss_scale": 0.5}),
        ({"loss_weight": 0.0}, False, {}),
        ({"loss_weight": 2}, True, {"loss_weight": 2}),
        ({"weight": 0}, False, {}),
        ({"loss": False, "loss_scale": 0.5}, False, {"loss_scale": 0.5}),
    ],
)
def test_what_is_scored(more, loss, kept):
    assert messages(turn("assistant", "a", **more)) == (Message("assistant", "a", loss, (), kept),)


def test_a_weight_of_zero_says_nothing_about_a_question():
    assert messages(turn("user", "a", loss_weight=0.0)) == (Message("user", "a"),)
    assert messages(turn("user", "a", loss=False)) == (Message("user", "a", False),)
    found = read(turn("assistant", "a", loss="no"))
    assert found == Reason("wrong_type", {"column": "messages[0].loss", "type": "str"})


def test_other_fields_of_a_turn_are_kept():
    found = messages(
        turn("tool", "r", tool_call_id="c1", name="f", metadata={"time": 3}, value="v")
    )
    kept = {"tool_call_id": "c1", "name": "f", "time": 3, "value": "v"}
    assert found == (Message("tool", "r", True, (), kept),)
    both = messages(turn("user", "a", time=1, metadata={"time": 2}))
    assert both[0].metadata == {"time": 1, "metadata": {"time": 2}}


def test_parts_of_a_content():
    openai = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    factory = [
        {"type": "reasoning", "value": "因为"},
        {"type": "text", "value": "所以"},
        {"type": "tool_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
    ]
    assert messages(turn("user", openai), turn("assistant", factory)) == (
        Message("user", "ab"),
        Message("assistant", "<think>\n因为\n</think>\n\n所以", True, (CALL,)),
    )


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "x"}}],
        [{"type": "text", "text": "a"}, {"type": "input_audio"}],
        [{"type": "video", "value": "x"}],
    ],
)
def test_parts_that_are_no_text(content):
    assert read(turn("user", content)) == Reason("media", {"column": "messages[0]"})


def test_a_turn_with_a_picture():
    found = read(turn("user", "what is this", images=["a.png"]))
    assert found == Reason("media", {"column": "messages[0].images"})


def test_calls_of_openai():
    text = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    found = messages(turn("assistant", None, tool_calls=[text]), turn("tool", "r"))
    assert found[0] == Message("assistant", "", True, ({"id": "c", **CALL},))
    odd = {"type": "function", "function": {"name": "f", "arguments": "[1"}}
    assert messages(turn("assistant", None, tool_calls=[odd]))[0].tool_calls == (odd,)
    old = turn("assistant", None, function_call={"name": "f", "arguments": '{"x": 1}'})
    assert messages(old, turn("function", "r", name="f"))[0].tool_calls == (CALL,)
    assert messages(turn("developer", "S"), turn("user", "a"))[0].role == "system"


def test_calls_in_turns_of_their_own_join_the_answer_before_them():
    call = '{"name": "f", "arguments": {"x": 1}}'
    found = messages(
        turn("user", "a"),
        turn("assistant", "let me see"),
        turn("tool_call", call),
        turn("tool-call", call),
        turn("tool_response", "1"),
        turn("tool_call", call),
    )
    assert found == (
        Message("user", "a"),
        Message("assistant", "let me see", True, (CALL, CALL)),
        Message("tool", "1"),
        Message("assistant", "", True, (CALL,)),
    )
    apart = messages(turn("assistant", "a", loss=False), turn("tool_call", call))
    assert [m.loss for m in apart] == [False, True]
    assert messages(turn("function_call", f"[{call}, {call}]"))[0].tool_calls == (CALL, CALL)
    assert read(turn("function_call", "f(x)")) == Reason(
        "wrong_type", {"column": "messages[0]", "type": "str"}
    )


def test_pairs_of_ms_swift():
    row = {
        "system": "S",
        "conversation": [{"human": "a", "assistant": "b"}, {"user": "c", "gpt": "d"}],
    }
    found = to_record(row, detect_shape([row]), ORIGIN)
    assert isinstance(found, Record)
    assert [(m.role, m.content) for m in found.messages] == [
        ("system", "S"),
        *(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
    ]


def test_a_list_of_turns_as_text():
    row = {"messages": '[{"role": "user", "content": "a"}]'}
    found = to_record(row, detect_shape([row]), ORIGIN)
    assert isinstance(found, Record)
    assert found.messages == (Message("user", "a"),)


@pytest.mark.parametrize(
    ("turns", "more", "name"),
    [
        ([turn("user", "a")], {}, "conversation"),
        ([turn("user", [{"type": "text", "value": "a"}])], {}, "llamafactory"),
        ([turn("assistant", None, tool_calls=[CALL])], {}, "openai"),
        ([turn("assistant", "a", loss=True)], {}, "ms-swift"),
        ([turn("assistant", "a")], {"channel": "c"}, "ms-swift"),
    ],
)
def test_the_tool_is_named(turns, more, name):
    row = {"messages": turns, **more}
    shape = detect_shape([row])
    assert shape.name == name
    for language in ("en", "zh"):
        assert "messages → " in shape.describe(language)
    found = read(*turns, **more)
    assert isinstance(found, Record)
    assert found.metadata == more

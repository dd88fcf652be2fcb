"""The cleaner: which steps are taken, what is told, what is rejected."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError
from weitiao.records.cleaning import Changed, Cleaner, Found
from weitiao.records.options import CleanOptions
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.words import catalogue

OFF = CleanOptions(mojibake=False, normalise=False, private="ignore", flags=False)


def conversation(*turns: str, system: str | None = None, **fields: Any) -> Record:
    """User and assistant by turns, after the system prompt."""
    messages = [Message("system", system)] if system else []
    messages += [Message("assistant" if i % 2 else "user", t) for i, t in enumerate(turns)]
    return Record(Origin("f", 1), tuple(messages), **fields)


def says(record: Record) -> list[str]:
    return [message.content for message in record.messages]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=30), max_size=4))
def test_switched_off_everything_stays(turns: list[str]) -> None:
    record = conversation(*turns)
    cleaned = Cleaner(OFF)(record)
    assert cleaned.record is record
    assert (cleaned.changes, cleaned.flags, cleaned.reason) == ((), (), None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("a\u200b１ 1@.後，（\n\r\u3000"), max_size=20), max_size=4))
def test_cleaned_again_nothing_changes(turns: list[str]) -> None:
    options = CleanOptions(width="convert", script="simplified", private="mask")
    cleaned = Cleaner(options)(conversation(*turns)).record
    assert Cleaner(options)(cleaned).record is cleaned


def test_a_clean_row_is_the_same_object() -> None:
    record = conversation("床前明月光的下一句是什么？", "疑是地上霜。")
    assert Cleaner(CleanOptions())(record).record is record


def test_each_step_is_named_once_with_what_it_changed() -> None:
    options = CleanOptions(width="convert", script="simplified", private="mask")
    record = conversation(
        "浣犲ソ", "Ａ後\u200b 13812345678 ", "Ｂ\u200b", "好", system="\u200b你是助手"
    )
    cleaned = Cleaner(options)(record)
    assert says(cleaned.record) == ["你是助手", "你好", "A后 [电话号码]", "B", "好"]
    assert cleaned.changes == (
        Changed("normalise", "\u200b你是助手", "你是助手"),
        Changed("mojibake", "浣犲ソ", "你好"),
        Changed("width", "Ａ後 [电话号码]", "A後 [电话号码]"),
        Changed("script", "A後 [电话号码]", "A后 [电话号码]"),
        Changed("private", "A后 138****78", "A后 [电话号码]"),
    )
    assert all(f"step.{change.step}" in catalogue() for change in cleaned.changes)


def test_the_stretch_shown_is_about_the_change() -> None:
    (change,) = Cleaner(CleanOptions())(conversation("问" * 500 + "\u200b答", "好。")).changes
    assert change.before == "问" * 30 + "\u200b答"
    assert change.after == "问" * 30 + "答"
    (change,) = Cleaner(CleanOptions())(conversation("\u200b" + "问" * 500, "好。")).changes
    assert len(change.before) == len(change.after) == 120


def test_passages_are_cleaned_and_not_judged_as_answers() -> None:
    cleaned = Cleaner(CleanOptions())(Record(Origin("f", 1), text="（前文\u200b，13812345678，"))
    assert cleaned.record.text == "（前文，13812345678，"
    assert cleaned.flags == (Found("private_phone", "138****78"),)


def test_what_is_no_text_of_people_stays() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"tel": "１\u200b１"}}}
    record = replace(
        conversation("问\u200b", "", metadata={"a": "\u200bＡ"}),
        tools=({"name": "\u200bＡ"},),
    )
    asked, _ = record.messages
    result = Message("tool", '{"Ａ": "\u200b", "tel": "13812345678"}')
    calling = Message("assistant", "", tool_calls=(call,), metadata={"name": "Ａ\u200b"})
    record = replace(record, messages=(asked, calling, result, Message("assistant", "Ａ")))
    cleaned = Cleaner(CleanOptions(width="convert", private="mask"))(record).record
    assert says(cleaned) == ["问", "", '{"Ａ": "\u200b", "tel": "[PHONE]"}', "A"]
    assert cleaned.messages[1] is calling
    assert (cleaned.metadata, cleaned.tools) == (record.metadata, record.tools)


@pytest.mark.parametrize(
    "argument", [{"tel": ["13812345678"]}, {"tel": 13812345678}, '{"t":"13812345678"}']
)
def test_private_data_in_calls_of_tools_is_told_even_when_masking(argument: Any) -> None:
    call = {"function": {"name": "f", "arguments": argument}}
    record = Record(Origin("f", 1), (Message("assistant", "", tool_calls=(call,)),))
    cleaned = Cleaner(CleanOptions(private="mask"))(record)
    assert cleaned.record is record
    assert [found.flag for found in cleaned.flags] == ["private_phone"]


@pytest.mark.parametrize("kind", CleanOptions().private_kinds)
def test_private_data_is_reported_or_rejected(kind: str) -> None:
    text = {
        "id_number": "11010519491231002X",
        "phone": "13812345678",
        "bank_card": "4111111111111111",
        "email": "zhang@qq.com",
        "address": "杭州市西湖区文三路478号",
    }[kind]
    record = conversation("问", f"答：{text}。")
    cleaned = Cleaner(CleanOptions())(record)
    assert (cleaned.record, cleaned.reason) == (record, None)
    assert [found.flag for found in cleaned.flags] == [f"private_{kind}"]
    assert text not in cleaned.flags[0].text
    assert f"flag.private_{kind}" in catalogue()
    reason = Cleaner(CleanOptions(private="reject"))(record).reason
    assert reason is not None
    assert reason.name == f"private_{kind}"
    assert "****" in reason.sentence("zh")
    assert "clean.private=mask" in reason.hint("en")
    none = Cleaner(CleanOptions(private="reject", private_kinds=()))(record)
    assert (none.flags, none.reason) == ((), None)


FLAGGED = {
    "language_mix": conversation("Who wrote this book?", "这本书是一位不知名的作者在以前写的。"),
    "repeats_prompt": conversation("床前明月光的下一句是什么？", "床前明月光的下一句是什么？好。"),
    "refusal": conversation("问", "很抱歉，我无法回答这个问题。"),
    "unfinished": conversation("问", "平时要注意饮食清淡，多喝水，多休息，"),
    "unbalanced_quotes": conversation("问", "他说：“好。"),
    "broken_json": conversation("问", '{"a": 1'),
    "profanity": conversation("坏话", "答。"),
}  # fmt: skip


@pytest.mark.parametrize("flag", FLAGGED)
def test_a_flag_is_told_and_rejects_where_asked(flag: Any, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("坏话\n", "utf-8")
    lists = (str(tmp_path / "words.txt"),)

    def clean(**options: Any) -> Any:
        cleaner = Cleaner(CleanOptions(word_lists=lists, **options))
        assert cleaner(conversation("问", "答。")).flags == ()
        return cleaner(FLAGGED[flag])

    assert [found.flag for found in clean().flags] == [flag]
    assert clean().reason is None
    cleaned = clean(flags=False, reject_flags=(flag,))
    assert [found.flag for found in cleaned.flags] == list(dict.fromkeys([flag, *_words(flag)]))
    assert isinstance(cleaned.reason, Reason)
    assert cleaned.reason.name == f"flag_{flag}"
    for key in (f"flag.{flag}", f"reason.flag_{flag}", f"hint.flag_{flag}"):
        assert key in catalogue()
    assert cleaned.reason.sentence("en")
    assert flag in cleaned.reason.hint("zh")


def _words(flag: str) -> list[str]:
    return ["profanity"] if flag == "profanity" else []


def test_answers_are_judged_without_their_reasoning_and_each_for_its_question() -> None:
    cleaner = Cleaner(CleanOptions())
    turns = ("一个很长很长的问题是什么？", "<think>（一个很长很长的问题是什么？</think>\n答。")
    assert [found.flag for found in cleaner(conversation(*turns)).flags] == ["reasoning_in_some"]
    turns = (
        "第一个问题：你叫什么？",
        "小明。",
        "第二个问题：几岁？",
        "第一个问题：你叫什么？小明。",
    )
    assert cleaner(conversation(*turns)).flags == ()
    turns = ("问", "他说：“好。", "问", "他说：“不好。", "问", "</think>答。")
    assert cleaner(conversation(*turns)).flags == (
        Found("unbalanced_quotes", "他说：“好。"),
        Found("reasoning_in_some", "</think>答。"),
    )


def test_lost_characters_are_told() -> None:
    cleaned = Cleaner(CleanOptions())(conversation("问", "前锟斤拷后"))
    assert cleaned.flags == (Found("mojibake_unrestored", "前锟斤拷后"),)


def test_spelling_is_suggested_and_not_applied() -> None:
    pytest.importorskip("spellchecker")
    record = conversation("怎么按装？", "先渡假。")
    cleaned = Cleaner(CleanOptions(spelling=True))(record)
    assert cleaned.record is record
    assert cleaned.flags == (Found("spelling", "按装→安装, 渡假→度假"),)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"first_turns": 1}, ["s", "q1", "a1"]),
        ({"last_turns": 1}, ["s", "q3", "a3"]),
        ({"first_turns": 2, "last_turns": 1}, ["s", "q2", "a2"]),
        ({"first_turns": 9, "last_turns": 3}, ["s", "q1", "a1", "q2", "a2", "q3", "a3"]),
        ({"system_turn": "drop", "last_turns": 1}, ["q3", "a3"]),
        ({"system_turn": "replace", "first_turns": 1}, ["new", "q1", "a1"]),
    ],
)
def test_turns(options: dict[str, Any], kept: list[str]) -> None:
    record = conversation("q1", "a1", "q2", "a2", "q3", "a3", system="s")
    cleaned = Cleaner(CleanOptions(**options), system="new")(record)
    assert says(cleaned.record) == kept
    steps = {
        *(["dialogue"] if len(kept) < 6 else []),
        *(["system_turn"] if "system_turn" in options else []),
    }
    assert {change.step for change in cleaned.changes} == steps


def test_tool_turns_belong_to_their_question() -> None:
    call = Message("assistant", "", tool_calls=({"function": {}},))
    result = Message("tool", "r")
    q1, q2, a1, a2 = (
        Message(r, t)
        for r, t in zip(["user", "user", "assistant", "assistant"], "qQaA", strict=True)
    )
    record = Record(Origin("f", 1), (q1, call, result, a1, q2, a2))
    assert Cleaner(CleanOptions(first_turns=1))(record).record.messages == (q1, call, result, a1)
    assert Cleaner(CleanOptions(last_turns=1))(record).record.messages == (q2, a2)


def test_a_system_prompt_that_is_already_there_changes_nothing() -> None:
    record = conversation("q", "a", system="new")
    assert Cleaner(CleanOptions(system_turn="replace"), system="new")(record).record is record
    passage = Record(Origin("f", 1), text="t")
    assert Cleaner(CleanOptions(system_turn="replace"), system="new")(passage).record is passage
    with pytest.raises(DataError) as caught:
        Cleaner(CleanOptions(system_turn="replace"))
    assert caught.value.key == "error.no_system_to_replace_with"

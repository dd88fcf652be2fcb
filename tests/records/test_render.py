"""The loss mask, against renderings that the three models' own templates made."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from weitiao.errors import ModelError
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.render import ChatFormat, Sample

QWEN, R1, LLM = "Qwen2.5-Instruct", "DeepSeek-R1-Distill-Qwen", "deepseek-llm-7b-chat"
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"


def record(*turns: tuple[str, str] | Message, **more: Any) -> Record:
    messages = tuple(t if isinstance(t, Message) else Message(*t) for t in turns)  # type: ignore[arg-type]
    return Record(Origin("file", 1), messages, **more)


def case(entry: dict[str, Any], name: str) -> tuple[Record, str, str]:
    found = next(r for r in entry["renderings"] if r["case"] == name)
    turns = [(m["role"], m["content"]) for m in found["messages"]]
    return record(*turns), found["full"], found["prompt"]


def texts(chat: ChatFormat, sample: Sample) -> list[tuple[str, bool]]:
    """The sample as stretches of text, (text, scored)."""
    borders = [0, *(np.flatnonzero(np.diff(sample.scored)) + 1), len(sample.ids)]
    return [
        (chat.tokenizer.decode(sample.ids[a:b]), bool(sample.scored[a]))  # type: ignore[attr-defined]
        for a, b in pairwise(borders)
    ]


@pytest.mark.parametrize("model", [QWEN, LLM])
@pytest.mark.parametrize("name", ["single", "system_two_turns", "reasoning"])
def test_where_the_prompt_is_a_prefix_the_rendering_is_kept_to_the_letter(models, model, name):
    entry, chat = models[model]
    conversation, full, prompt = case(entry, name)
    (sample,) = chat.samples(conversation)
    said = texts(chat, sample)
    # Qwen writes a line end after the end of turn; the model has stopped by then.
    assert "".join(text for text, _ in said) == full.removesuffix("\n")
    assert "".join(text for text, _ in said[:-1]) == prompt
    scored = [text for text, is_scored in said if is_scored]
    space = " " if model == LLM else ""
    assert scored == [
        space + m.content + entry["eos_token"]
        for m in conversation.messages
        if m.role == "assistant"
    ]
    assert sample.ids.dtype == np.int32
    assert sample.scored.dtype == np.bool_


def test_r1_learns_to_close_the_reasoning_that_its_prompt_opens(models):
    entry, chat = models[R1]
    conversation, _, prompt = case(entry, "single")
    (sample,) = chat.samples(conversation)
    assert texts(chat, sample) == [
        (prompt, False),
        ("\n</think>\n\n建议多休息、补充维生素C。" + EOS, True),
    ]
    assert chat.opener == "<think>\n"


@pytest.mark.parametrize(
    "answer",
    [
        "<think>\n一加一等于二。\n</think>\n\n2",
        "<think>一加一等于二。\n</think>\n\n2",
        "一加一等于二。\n</think>\n\n2",
    ],
)
def test_r1_learns_reasoning_that_the_rendering_leaves_out(models, answer):
    entry, chat = models[R1]
    _, _, prompt = case(entry, "reasoning")
    (sample,) = chat.samples(record(("user", "1+1=?"), ("assistant", answer)))
    assert texts(chat, sample) == [
        (prompt, False),
        ("一加一等于二。\n</think>\n\n2" + EOS, True),
    ]


def test_r1_gives_each_turn_the_prompt_it_will_really_get(models):
    entry, chat = models[R1]
    conversation, _, prompt = case(entry, "system_two_turns")
    first, second = chat.samples(conversation, row=7)
    before = f"{BOS}你是一位中国古代诗人{USER}创作一首七言绝句{ASSISTANT}<think>\n"
    assert texts(chat, first) == [
        (before, False),
        ("\n</think>\n\n好的，主题是？" + EOS, True),
    ]
    assert texts(chat, second) == [
        (prompt, False),
        ("\n</think>\n\n空山新雨后" + EOS, True),
    ]
    assert first.row == second.row == 7


def test_r1_leaves_earlier_reasoning_out_of_later_prompts(models):
    _, chat = models[R1]
    first, second = chat.samples(
        record(
            ("user", "一"),
            ("assistant", "<think>\n想\n</think>\n\n甲"),
            ("user", "二"),
            ("assistant", "<think>\n再想\n</think>\n\n乙"),
        )
    )
    assert texts(chat, first)[1] == ("想\n</think>\n\n甲" + EOS, True)
    assert texts(chat, second) == [
        (f"{BOS}{USER}一{ASSISTANT}\n\n甲{EOS}{USER}二{ASSISTANT}<think>\n", False),
        ("再想\n</think>\n\n乙" + EOS, True),
    ]


@pytest.mark.parametrize("model", [QWEN, R1, LLM])
def test_what_is_trained_begins_with_the_prompt_that_is_generated_from(models, model):
    entry, chat = models[model]
    for name in ("single", "system_two_turns", "reasoning"):
        conversation, _, prompt = case(entry, name)
        ids = chat.prompt_ids(conversation.prompt)
        assert chat.tokenizer.decode(ids) == prompt
        sample = chat.samples(conversation)[-1]
        if name != "system_two_turns":
            assert sample.ids[: len(ids)].tolist() == ids
            assert sample.scored.tolist() == [False] * len(ids) + [True] * (
                len(sample.ids) - len(ids)
            )
    assert chat.tokenizer.decode(chat.stop_ids) == entry["eos_token"]


def test_turns_can_be_left_unscored(models):
    _, chat = models[QWEN]
    turns = (
        ("user", "一"),
        Message("assistant", "甲", loss=False),
        ("user", "二"),
        ("assistant", "乙"),
        ("user", "三"),
        ("assistant", "丙"),
    )
    (both,) = chat.samples(record(*turns))
    assert [t for t, scored in texts(chat, both) if scored] == ["乙<|im_end|>", "丙<|im_end|>"]
    (last,) = chat.samples(record(*turns), score_turns="last")
    assert [t for t, scored in texts(chat, last) if scored] == ["丙<|im_end|>"]
    assert both.ids.tolist() == last.ids.tolist()
    nothing = chat.samples(record(("user", "一"), Message("assistant", "甲", loss=False)))
    assert nothing == Reason("no_scored_token")


def test_answer_text_leaves_reasoning_out(models):
    _, r1 = models[R1]
    _, qwen = models[QWEN]
    assert r1.answer_text("想想\n</think>\n\n答案 ") == "答案"
    assert r1.answer_text("还在想，没有说完") == ""
    assert qwen.answer_text("<think>\n还在想") == ""
    assert qwen.answer_text("<think>\n想\n</think>\n\n答案") == "答案"
    assert qwen.answer_text(" 答案\n") == "答案"


def test_control_tokens_are_found_and_reasoning_tags_allowed(models):
    _, r1 = models[R1]
    _, qwen = models[QWEN]
    assert qwen.control_token("好<|im_end|>的") == "<|im_end|>"
    assert r1.control_token("好<｜User｜>的") == "<｜User｜>"
    assert r1.control_token("<think>\n想\n</think>\n\n好") is None
    assert qwen.control_token("a < b | c > d") is None


def test_qwen_renders_tools_and_learns_the_call(models):
    _, chat = models[QWEN]
    tool = {"type": "function", "function": {"name": "天气", "parameters": {}}}
    call = {"type": "function", "function": {"name": "天气", "arguments": {"城市": "杭州"}}}
    conversation = record(
        ("user", "杭州天气？"),
        Message("assistant", "", tool_calls=(call,)),
        ("tool", "晴"),
        ("assistant", "晴天。"),
        tools=(tool,),
    )
    (sample,) = chat.samples(conversation)
    said = texts(chat, sample)
    assert '"name": "天气", "parameters"' in said[0][0]
    assert [t for t, scored in said if scored] == [
        '<tool_call>\n{"name": "天气", "arguments": {"城市": "杭州"}}\n</tool_call><|im_end|>',
        "晴天。<|im_end|>",
    ]
    _, llm = models[LLM]
    assert llm.samples(conversation) == Reason("template_without_tools")


# Templates that the three models do not have.

QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last and '</think>' not in m.content %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CLOSED = (
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]<think>\n\n</think>\n\n' }}{% endif %}"
)


def test_a_template_that_writes_an_empty_reasoning_block(letter_tokenizer):
    chat = ChatFormat(letter_tokenizer(QWEN3))
    first, second = chat.samples(
        record(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    )
    assert texts(chat, first)[1] == ("<think>\n\n</think>\n\nb<|im_end|>", True)
    assert texts(chat, second)[1] == ("<think>\n\n</think>\n\nd<|im_end|>", True)
    (own,) = chat.samples(record(("user", "a"), ("assistant", "<think>\nR\n</think>\n\nA")))
    assert texts(chat, own)[1] == ("<think>\nR\n</think>\n\nA<|im_end|>", True)


def test_a_prompt_that_has_closed_the_reasoning(letter_tokenizer):
    chat = ChatFormat(letter_tokenizer(CLOSED))
    for answer in ("A", "<think>\nR\n</think>\n\nA"):
        (sample,) = chat.samples(record(("user", "a"), ("assistant", answer)))
        assert texts(chat, sample) == [
            ("[user]a<|im_end|>[assistant]<think>\n\n</think>\n\n", False),
            ("A<|im_end|>", True),
        ]
    assert chat.answer_text("A") == "A"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (
            "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}",
            "end-of-turn",
        ),
        (
            "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}"
            "{% if add_generation_prompt %}Answer in French:{% endif %}",
            "differently",
        ),
        ("{{ raise_exception('no chat here') }}", "no chat here"),
        ("{{ messages[0].content.nothing() }}", "refuses"),
    ],
)
def test_a_template_that_cannot_be_masked_is_refused_with_the_reason(
    letter_tokenizer, template, why
):
    with pytest.raises(ModelError) as caught:
        ChatFormat(letter_tokenizer(template))
    assert why in caught.value.sentence("en")
    assert "letters" in caught.value.sentence("zh")


def test_a_model_without_a_template_is_refused(letter_tokenizer):
    with pytest.raises(ModelError, match="chat template"):
        ChatFormat(letter_tokenizer(""))


def test_a_row_the_template_refuses_is_a_reason(letter_tokenizer):
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{{ '<|im_start|>' + m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    chat = ChatFormat(letter_tokenizer(template))
    found = chat.samples(record(("system", "s"), ("user", "a"), ("assistant", "b")))
    assert found == Reason("template_refuses", {"cause": "no system"})
    with pytest.raises(ModelError, match="no system"):
        chat.prompt_ids((Message("system", "s"), Message("user", "a")))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 100])
def test_a_passage_is_cut_into_windows_that_hold_every_token_once(letters, length):
    text = "".join(chr(0x4E00 + i) for i in range(length))
    windows = letters.samples(Record(Origin("file", 1), text=text), max_tokens=8)
    said = "".join(letters.tokenizer.decode(w.ids) for w in windows)
    assert said == text + "<|im_end|>"
    assert all(2 <= len(w.ids) <= 8 for w in windows)
    assert all(w.scored.tolist() == [False] + [True] * (len(w.ids) - 1) for w in windows)


def test_a_passage_that_ends_itself_gets_no_second_end(letters):
    (window,) = letters.samples(Record(Origin("file", 1), text="好<|im_end|>"))
    assert letters.tokenizer.decode(window.ids) == "好<|im_end|>"

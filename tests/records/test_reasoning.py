"""``data.reasoning``: what is scored where answers begin with reasoning, and what is left out."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import CHATML, LetterTokenizer

from weitiao.api.look import show
from weitiao.events import EventLog
from weitiao.plan.recipe import load_recipe
from weitiao.records.options import DataOptions
from weitiao.records.prepare import load_records, load_samples, prepare
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.render import ChatFormat, Sample

SILENT = EventLog()

# Retells earlier answers without reasoning, and opens the reasoning of the next.
R1 = (
    "{% for m in messages %}{{ '[' + m.role + ']' }}{% if m.role == 'assistant' %}"
    "{{ m.content.split('</think>')[-1] + '<|im_end|>' }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]<think>\n' }}{% endif %}"
)
# Retells earlier answers without reasoning; an answer without gets an empty block.
QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% if m.role != 'assistant' %}{{ m.content }}{% elif not loop.last %}{{ said }}{% else %}"
    "{% if '</think>' in m.content %}{% set thought = m.content.split('</think>')[0] %}"
    "{% set thought = thought.split('<think>')[-1].strip('\n') %}{% else %}"
    "{% set thought = '' %}{% endif %}{{ '<think>\n' + thought + '\n</think>\n\n' + said }}"
    "{% endif %}{% if m.tool_calls %}{{ 'CALL' + m.tool_calls[0].name }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THOUGHT = "<think>\n想\n</think>\n\n"
END = "<|im_end|>"


def letters_of(template: str) -> ChatFormat:
    return ChatFormat(LetterTokenizer(template))


def conversation(*said: str, **more: Any) -> Record:
    """Questions and these answers."""
    turns = [(Message("user", f"问{i}"), Message("assistant", a)) for i, a in enumerate(said)]
    return Record(Origin("file", 1), tuple(m for turn in turns for m in turn), **more)


def stretches(chat: ChatFormat, sample: Sample) -> list[tuple[str, bool]]:
    borders = [0, *(np.flatnonzero(np.diff(sample.scored)) + 1), len(sample.ids)]
    return [
        (chat.tokenizer.decode(sample.ids[a:b]), bool(sample.scored[a]))  # type: ignore[attr-defined]
        for a, b in pairwise(borders)
    ]


def as_lists(found: Any) -> Any:
    return found if isinstance(found, Reason) else [[s.ids.tolist(), *s.scored] for s in found]


def after_prompt(template: str, answer: str, reasoning: Any) -> tuple[str, str]:
    """What follows the generation prompt: what is given of it, and what is scored."""
    chat, record = letters_of(template), conversation(answer)
    (sample,) = chat.samples(record, reasoning=reasoning)
    *given, (scored, is_scored) = stretches(chat, sample)
    assert is_scored
    assert len(given) == 1
    prompt = chat.tokenizer.decode(chat.prompt_ids(record.prompt))  # type: ignore[attr-defined]
    assert given[0][0].startswith(prompt)
    return given[0][0].removeprefix(prompt), scored


@pytest.mark.parametrize(
    ("template", "answer", "reasoning", "given", "scored"),
    [
        (CHATML, THOUGHT + "答", "learn", "", THOUGHT + "答"),
        (CHATML, THOUGHT + "答", "context", THOUGHT, "答"),
        (CHATML, THOUGHT + "答", "drop", "", "答"),
        (CHATML, "答", "context", "", "答"),
        (CHATML, "答", "drop", "", "答"),
        # The prompt has opened the reasoning: what closes it at once belongs to it.
        (R1, THOUGHT + "答", "learn", "", "想\n</think>\n\n答"),
        (R1, THOUGHT + "答", "context", "想\n</think>\n\n", "答"),
        (R1, THOUGHT + "答", "drop", "", "\n</think>\n\n答"),
        (R1, "答", "context", "\n</think>\n\n", "答"),
        (R1, "答", "drop", "", "\n</think>\n\n答"),
        (QWEN3, THOUGHT + "答", "learn", "", THOUGHT + "答"),
        (QWEN3, THOUGHT + "答", "context", THOUGHT, "答"),
        (QWEN3, THOUGHT + "答", "drop", "", "<think>\n\n</think>\n\n答"),
        (QWEN3, "答", "context", "<think>\n\n</think>\n\n", "答"),
        (QWEN3, "答", "drop", "", "<think>\n\n</think>\n\n答"),
        # Half a block, as some files have it; blanks; two blocks.
        (CHATML, "想\n</think>\n\n答", "context", "想\n</think>\n\n", "答"),
        (CHATML, "<think>想</think> 答", "context", "<think>想</think> ", "答"),
        (CHATML, "<think>想</think> 答", "drop", "", "答"),
        (CHATML, THOUGHT + "    if x:", "context", THOUGHT, "    if x:"),
        (CHATML, THOUGHT + "    if x:", "drop", "", "    if x:"),
        (CHATML, THOUGHT + THOUGHT + "答", "context", THOUGHT + THOUGHT, "答"),
        (CHATML, THOUGHT + THOUGHT + "答", "drop", "", "答"),
    ],
)
def test_what_is_given_and_what_is_scored(template, answer, reasoning, given, scored):
    assert after_prompt(template, answer, reasoning) == (given, scored + END)


@pytest.mark.parametrize("template", [CHATML, R1, QWEN3])
def test_a_dropped_reasoning_leaves_the_row_of_an_answer_without(template):
    chat = letters_of(template)
    said = (THOUGHT + "甲", "乙", THOUGHT + "丙")
    found = chat.samples(conversation(*said), reasoning="drop")
    assert as_lists(found) == as_lists(chat.samples(conversation("甲", "乙", "丙")))
    assert not any("想" in text for s in found for text, _ in stretches(chat, s))


def test_of_several_turns_each_answer_is_scored_after_its_own_reasoning():
    said = (THOUGHT + "甲", "乙", THOUGHT + "丙")
    (together,) = letters_of(CHATML).samples(conversation(*said), reasoning="context")
    chat = letters_of(CHATML)
    assert [t for t, scored in stretches(chat, together) if scored] == [
        "甲" + END,
        "乙" + END,
        "丙" + END,
    ]
    assert "".join(t for t, _ in stretches(chat, together)).count(THOUGHT) == 2
    for template in (R1, QWEN3):
        apart = letters_of(template).samples(conversation(*said), reasoning="context")
        scored = [stretches(letters_of(template), s)[-1] for s in apart]
        assert scored == [("甲" + END, True), ("乙" + END, True), ("丙" + END, True)]
        assert [int(s.scored.sum()) for s in apart] == [2, 2, 2]


TEXTS = st.lists(
    st.sampled_from(["想", "答", " ", "\n", "\n\n", "a b", "<think>", "</think>", THOUGHT, "\t"]),
    min_size=1,
    max_size=6,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([CHATML, R1, QWEN3]), st.lists(TEXTS, min_size=1, max_size=3))
def test_context_changes_no_token_and_scores_only_what_learn_scores(template, said):
    chat, record = letters_of(template), conversation(*said)
    learn, context = (chat.samples(record, reasoning=how) for how in ("learn", "context"))
    if isinstance(learn, Reason) or isinstance(context, Reason):
        opens = [
            i for i, a in enumerate(said) if a.rpartition("</think>")[2].lstrip()[:7] == "<think>"
        ]
        assert context == (
            Reason("reasoning_unclosed", {"turn": 2 * opens[0] + 2}) if opens else learn
        )
        return
    assert [s.ids.tolist() for s in context] == [s.ids.tolist() for s in learn]
    for one, other in zip(context, learn, strict=True):
        assert one.scored.any()
        assert one.scored[-1]
        assert not (one.scored & ~other.scored).any()


def test_real_tokens_that_hold_the_tag_s_end_and_the_answer_s_beginning(qwen_tokenizer):
    # This vocabulary has no </think>, but ">\n\n" and " The": tokens that cross borders.
    chat = ChatFormat(qwen_tokenizer)
    for gap, first in (("\n\n", ""), ("\n", ""), (" ", " "), ("", ">"), ("\n\n    ", "    ")):
        record = conversation(f"<think>\nWell.\n</think>{gap}The answer.")
        (learn,) = chat.samples(record)
        (context,) = chat.samples(record, reasoning="context")
        assert context.ids.tolist() == learn.ids.tolist()
        assert stretches(chat, context)[-1] == (first + "The answer." + END, True)


def test_models_whose_template_opens_the_reasoning(models):
    _, chat = models["DeepSeek-R1-Distill-Qwen"]
    record = conversation(THOUGHT + "答", "答")
    end = "<｜end▁of▁sentence｜>"
    context = [stretches(chat, s)[-2:] for s in chat.samples(record, reasoning="context")]
    assert [s[1] for s in context] == [("答" + end, True)] * 2
    assert context[0][0][0].endswith("<｜Assistant｜><think>\n想\n</think>\n\n")
    assert context[1][0][0].endswith("<｜Assistant｜><think>\n\n</think>\n\n")
    dropped = [stretches(chat, s)[-1] for s in chat.samples(record, reasoning="drop")]
    assert dropped == [("\n</think>\n\n答" + end, True)] * 2


CALL = {"type": "function", "function": {"name": "</think>", "arguments": {"a": "</think>"}}}


@pytest.mark.parametrize(
    ("content", "given", "scored", "dropped"),
    [
        (THOUGHT, THOUGHT + "\n", "", ""),
        ("", "", "", ""),
        ("<think>想</think>查", "<think>想</think>", "查\n", "查\n"),
    ],
)
def test_reasoning_before_a_call_of_a_tool(models, content, given, scored, dropped):
    _, chat = models["Qwen2.5-Instruct"]
    call = Message("assistant", content, tool_calls=(CALL,))
    turns = (Message("user", "问"), call, Message("tool", "晴"), Message("assistant", "答"))
    record = Record(Origin("f", 1), turns, tools=(CALL,))
    written = (
        '<tool_call>\n{"name": "</think>", "arguments": {"a": "</think>"}}\n</tool_call>' + END
    )
    for reasoning, before, said in (("context", given, scored), ("drop", "", dropped)):
        (sample,) = chat.samples(record, reasoning=reasoning)
        found = stretches(chat, sample)
        assert [text for text, is_scored in found if is_scored] == [said + written, "答" + END]
        assert found[0][0].rpartition("<|im_start|>assistant\n")[2] == before


def test_a_call_where_the_template_writes_the_reasoning_its_own_way():
    chat = letters_of(QWEN3 + "{# tool #}")
    call = Message("assistant", "<think>想</think>", tool_calls=({"name": "</think>"},))
    record = Record(Origin("f", 1), (Message("user", "问"), call))
    (sample,) = chat.samples(record, reasoning="context")
    said = stretches(chat, sample)
    assert said[0][0].endswith("assistant\n<think>\n想\n</think>\n\n")
    assert said[1] == ("CALL</think>" + END, True)
    (learn,) = chat.samples(record)
    assert stretches(chat, learn)[1][0].startswith("<think>\n想")


@pytest.mark.parametrize("reasoning", ["context", "drop"])
@pytest.mark.parametrize("template", [CHATML, R1, QWEN3])
def test_reasoning_that_never_ends_is_a_reason(template, reasoning):
    chat = letters_of(template)
    for said, turn in (
        (("<think>\n想",), 2),
        (("甲", "\n<think>想"), 4),
        ((THOUGHT + "<think>",), 2),
    ):
        reason = chat.samples(conversation(*said), reasoning=reasoning)
        assert reason == Reason("reasoning_unclosed", {"turn": turn})
        assert isinstance(reason, Reason)
        assert f"{turn}" in reason.sentence("zh")
        assert "data.reasoning=learn" in reason.hint("en")
        assert isinstance(chat.samples(conversation(*said)), list)
    # As context only, a turn may say what it likes; and the tag's name is a word as others are.
    many = conversation("<think>\n想", "甲")
    assert isinstance(chat.samples(many, score_turns="last", reasoning=reasoning), list)
    named = conversation("标记 <think> 表示思考")
    assert isinstance(chat.samples(named, reasoning=reasoning), list)


def test_a_long_row_is_shortened_in_the_same_way_and_scored_less():
    chat = letters_of(CHATML)
    record = conversation("<think>\n" + "想" * 300 + "\n</think>\n\n" + "答" * 9)
    (learn,) = chat.samples(record, max_tokens=150)
    (context,) = chat.samples(record, max_tokens=150, reasoning="context")
    assert context.shortened
    assert context.ids.tolist() == learn.ids.tolist()
    assert stretches(chat, context)[-1] == ("答" * 9 + END, True)
    # Without its reasoning, the row is not too long at all.
    (dropped,) = chat.samples(record, max_tokens=150, too_long="reject", reasoning="drop")
    assert not dropped.shortened


@pytest.mark.parametrize(("reasoning", "plain"), [("learn", 2), ("context", 3), ("drop", 3)])
def test_thousands_at_once_take_the_fast_way_too(qwen_tokenizer, monkeypatch, reasoning, plain):
    chat = ChatFormat(qwen_tokenizer)
    said = [f"<think>\n想{i}\n</think>\n\n答{i}" if i % 3 else f"答{i}" for i in range(30)]
    said[20] = "<think>\nWell.\n</think> The answer."  # " The" is a token that holds the blank
    records = [*map(conversation, said), conversation("<think>想")]
    expected = [chat.samples(r, i, reasoning=reasoning) for i, r in enumerate(records)]
    plainly, calls = chat.samples, []
    monkeypatch.setattr(chat, "samples", lambda *a, **o: calls.append(a) or plainly(*a, **o))
    found = chat.batch(records, reasoning=reasoning)
    # Two rows are looked at again, and one is odd where its reasoning must be told apart.
    assert len(calls) == plain
    assert [as_lists(outcome) for outcome in found] == [as_lists(outcome) for outcome in expected]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
    return path


def rows_of(count: int) -> list[dict[str, str]]:
    return [
        {
            "prompt": f"第 {i} 问",
            "response": f"<think>\n想{i}\n</think>\n\n答{i}" if i % 2 else f"答{i}",
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("template", [CHATML, R1, QWEN3])
@pytest.mark.parametrize("reasoning", ["learn", "context", "drop"])
def test_the_report_counts_what_is_trained(tmp_path, template, reasoning):
    rows = [*rows_of(24), {"prompt": "问", "response": "<think>想"}]
    path = write(tmp_path / "a.jsonl", rows)
    chat, options = letters_of(template), DataOptions(reasoning=reasoning)
    report = prepare(path, tmp_path / "out", options, chat, SILENT)
    samples = load_samples(load_records(tmp_path / "out/kept.jsonl"), chat, options)
    assert report.tokens == sum(len(s.ids) for s in samples)
    assert report.scored_tokens == sum(int(s.scored.sum()) for s in samples)
    assert report.kept + report.rejected == 25
    if reasoning == "learn":
        assert report.reasons == {}
        (note,) = [n for n in report.notes if n.name == "reasoning_in_some"]
        assert "data.reasoning=drop" in note.sentence("en")
        assert [f.name for f in report.flags if f.name == "reasoning_in_some"]
        return
    assert report.reasons == {"reasoning_unclosed": 1}
    assert not [f.name for f in report.flags if f.name == "reasoning_in_some"]
    (note,) = [n for n in report.notes if n.name.startswith("reasoning")]
    assert note.name == {"context": "reasoning_context", "drop": "reasoning_dropped"}[reasoning]
    assert note.values == {"count": 12}
    texts = [t for s in samples for t, scored in stretches(chat, s) if scored]
    assert not any("想" in text for text in texts)
    if reasoning == "drop":
        assert not any("想" in t for s in samples for t, _ in stretches(chat, s))


def test_show_marks_what_is_scored():
    recipe = load_recipe(None, ["model.name=embedded", "data.reasoning=context"])
    (shown,) = show([conversation(THOUGHT + "答案")], recipe, 1)
    assert "".join(text for text, scored in shown.tokens if scored).startswith("答案")
    assert "想" in "".join(text for text, scored in shown.tokens if not scored)

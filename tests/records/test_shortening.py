"""Long rows are shortened so that they still stop, and still know who speaks."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from letters import LetterTokenizer

from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.render import ChatFormat
from weitiao.records.shortening import CUT_MARK, shorten

CHAT = ChatFormat(LetterTokenizer())
WORDS = st.text(alphabet="甲乙丙ab\n 。🀄", min_size=1, max_size=120)
EXCHANGE = st.tuples(WORDS, WORDS, st.booleans())


def conversation(system: str, exchanges: list[tuple[str, str, bool]]) -> Record:
    messages = [Message("system", system)] if system else []
    for asked, said, reasons in exchanges:
        said = f"<think>\n{asked}\n</think>\n\n{said}" if reasons else said
        messages += [Message("user", asked), Message("assistant", said)]
    return Record(Origin("file", 1), tuple(messages))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["", "你是诗人"]),
    st.lists(EXCHANGE, min_size=1, max_size=4),
    st.integers(16, 400),
)
@example("", [("a" * 100, "b" * 100, True)], 100)
def test_a_shortened_row_fits_and_keeps_headers_and_ends(system, exchanges, limit):
    record = conversation(system, exchanges)
    (whole,) = CHAT.samples(record, max_tokens=100_000)
    found = CHAT.samples(record, max_tokens=limit)
    if len(whole.ids) <= limit:
        assert found[0].ids.tolist() == whole.ids.tolist()
        assert not found[0].shortened
        return
    marks = [i for i in whole.ids.tolist() if i >= 2_000_000]
    if isinstance(found, Reason):
        # Refused only where not even two tokens a text are left.
        texts = sum(3 if "</think>" in m.content else 1 for m in record.messages)
        room = limit - 12 * len(record.messages) - sum(len(m.role) for m in record.messages)
        assert room < 8 * texts
        assert found == Reason("too_long", {"tokens": len(whole.ids), "limit": limit})
        return
    (sample,) = found
    assert sample.shortened
    assert len(sample.ids) <= limit
    assert [i for i in sample.ids.tolist() if i >= 2_000_000] == marks
    said = CHAT.tokenizer.decode(sample.ids)
    for message in record.messages:
        assert f"<|im_start|>{message.role}\n" in said
    assert said.count("<think>\n") == sum(e[2] for e in exchanges)
    assert said.count("\n</think>\n\n") == sum(e[2] for e in exchanges)
    # Every answer still ends in its scored end of turn.
    ends = [i for i, token in enumerate(sample.ids) if token == CHAT.stop_ids[-1]]
    assert sum(bool(sample.scored[i]) for i in ends) == len(exchanges)
    assert sample.scored[-1]


@pytest.mark.parametrize("unforeseen", [0, 1, 7])
def test_what_was_not_foreseen_is_measured_and_corrected(unforeseen):
    messages = (Message("user", "问" * 200), Message("assistant", "答" * 200))

    def measure(cut: Sequence[Message]) -> int:
        # Shortened texts take more tokens in the template than by themselves.
        return sum(len(m.content) + unforeseen * (len(m.content) < 200) for m in cut)

    short = shorten(messages, 150, len, measure)
    assert short is not None
    assert 145 <= measure(short) <= 150


def test_little_room_is_wasted():
    record = conversation("", [("问" * 500, "答" * 500, False)])
    for limit in range(100, 200):
        (sample,) = CHAT.samples(record, max_tokens=limit)
        assert limit - 2 <= len(sample.ids) <= limit


def test_the_longest_context_goes_first_and_keeps_both_ends():
    record = conversation("系统", [("头" + "中" * 300 + "尾", "答" * 30, False)])
    (sample,) = CHAT.samples(record, max_tokens=150)
    said = CHAT.tokenizer.decode(sample.ids)
    assert "系统" in said
    assert "答" * 30 + "<|im_end|>" in said
    assert "user\n头中" in said
    assert "中尾<|im_end|>" in said
    assert CUT_MARK in said


def test_a_long_answer_loses_its_end_and_leaves_the_question_alone():
    record = conversation("", [("问题", "始" + "中" * 300 + "终", False)])
    (sample,) = CHAT.samples(record, max_tokens=150)
    said = CHAT.tokenizer.decode(sample.ids)
    assert "user\n问题<|im_end|>" in said
    assert "assistant\n始中" in said
    assert said.endswith("中<|im_end|>")


def test_long_reasoning_is_cut_inside_and_the_answer_stays():
    record = conversation("", [("问", "答案", False)])
    thought = Message("assistant", "<think>\n" + "想" * 300 + "完\n</think>\n\n答案")
    record = Record(record.origin, (record.messages[0], thought))
    (sample,) = CHAT.samples(record, max_tokens=120)
    said = CHAT.tokenizer.decode(sample.ids)
    assert said.endswith("想完\n</think>\n\n答案<|im_end|>")


def test_reject_says_how_long():
    record = conversation("", [("问" * 100, "答", False)])
    found = CHAT.samples(record, max_tokens=50, too_long="reject")
    assert isinstance(found, Reason)
    assert found.name == "too_long"
    assert found.values["limit"] == 50
    assert found.values["tokens"] > 100


def test_real_tokens_are_counted_exactly(models):
    text = "这是一段很长的文字，mixed with English words 🀄🀄 and 1234567890。" * 40
    record = Record(
        Origin("file", 1),
        (
            Message("user", text),
            Message("assistant", text),
            Message("user", "再说"),
            Message("assistant", text),
        ),
    )
    for _, chat in models.values():
        end = chat.stop_ids[0]
        for limit in (64, 100, 333):
            for sample in chat.samples(record, max_tokens=limit):
                assert limit * 0.8 <= len(sample.ids) <= limit
                assert sample.ids[-1] == end
                assert sample.scored[-1]

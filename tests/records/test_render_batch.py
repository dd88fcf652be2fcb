"""Thousands at once against one by one: the same samples, to the token."""

import pickle
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from letters import CHATML, LetterTokenizer

import weitiao
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.render import ChatFormat

# What a template, a tokenizer or a skeleton could trip over, and ordinary words between.
SCRAPS = (
    *(
        "床前明月光，",
        "hello",
        "world",
        " world",
        "'s",
        "12",
        "好",
        "z",
        "。",
        "é",
        "\u0338",
        "e\u0301",
    ),
    *(" ", "\n", "\n\n", "\t", "\0", "\u3000", "<", "{{ x }}", "%s", "[", "🙂", "#"),
    *("user", "tool", "assistant", "be brief", "USER", "<b>", "weitiaoText0Ends"),
    *("<think>", "</think>", "<think>\n想\n</think>\n\n", "<think>\n\n</think>\n\n"),
    *("<|im_end|>", "<|im_start|>", "<｜User｜>", "<|im", "weitiaoMarksTheAnswerHere"),
)
PLAIN = st.lists(st.sampled_from(SCRAPS[:12]), min_size=1, max_size=6).map("".join)
ODD = st.lists(st.sampled_from(SCRAPS), max_size=5).map("".join)
TEXT = PLAIN | PLAIN | ODD | PLAIN.map(lambda text: text * 20)
ROLES = (
    ("user", "assistant"),
    ("system", "user", "assistant"),
    ("user", "assistant", "user", "assistant"),
    ("system", "user", "assistant", "user", "assistant", "user", "assistant"),
    ("user", "assistant", "tool", "assistant"),
    ("user", "user", "assistant"),
    ("user",),
    (),
)
TOOL = {"type": "function", "function": {"name": "天气", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "天气", "arguments": {"城市": "杭州"}}}


@st.composite
def one_kind(draw: Any) -> list[Record]:
    """Records of the same roles, enough for a skeleton, some with tools, in a few words."""
    if draw(st.integers(0, 5)) == 0:
        return [Record(Origin("f", 1), text=text) for text in draw(st.lists(TEXT, max_size=4))]
    roles = draw(st.sampled_from(ROLES))
    losses = [draw(st.integers(0, 4)) > 0 for _ in roles]
    made = []
    for _ in range(draw(st.integers(6, 8))):
        messages = [Message(r, draw(TEXT), loss) for r, loss in zip(roles, losses, strict=True)]
        tools = (TOOL,) if draw(st.integers(0, 9)) == 0 else ()
        if draw(st.integers(0, 15)) == 0 and "assistant" in roles:
            i = roles.index("assistant")
            messages[i] = Message("assistant", messages[i].content, tool_calls=(CALL,))
        made.append(Record(Origin("f", 1), tuple(messages), tools=tools))
    return made


BATCHES = st.lists(one_kind(), min_size=1, max_size=3).map(lambda kinds: [*chain(*kinds)])
OPTIONS = st.fixed_dictionaries(
    {
        "max_tokens": st.sampled_from([16, 40, 90, 1000]),
        "too_long": st.sampled_from(["shorten", "reject"]),
        "score_turns": st.sampled_from(["all", "last"]),
        "reasoning": st.sampled_from(["learn", "context", "drop"]),
    }
)
modestly = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


def as_lists(found: Any) -> Any:
    if isinstance(found, Reason):
        return found
    assert all(s.ids.dtype == np.int32 and s.scored.dtype == np.bool_ for s in found)
    return [(s.ids.tolist(), s.scored.tolist(), s.row, s.shortened) for s in found]


def check_batch(chat: ChatFormat, records: list[Record], **options: Any) -> int:
    """Compare, and return how many records went the plain way."""
    expected = [as_lists(chat.samples(r, 5 + i, **options)) for i, r in enumerate(records)]
    plainly, calls = chat.samples, []
    chat.samples = lambda *row, **o: calls.append(row) or plainly(*row, **o)  # type: ignore[method-assign]
    try:
        found = chat.batch(records, 5, **options)
    finally:
        del chat.samples
    assert [as_lists(f) for f in found] == expected
    return len(calls)


def questions(*texts: str, answer: str = "好") -> list[Record]:
    turns = ((Message("user", text), Message("assistant", answer)) for text in texts)
    return [Record(Origin("f", 1), messages) for messages in turns]


@pytest.mark.parametrize(
    "model", ["Qwen2.5-Instruct", "DeepSeek-R1-Distill-Qwen", "deepseek-llm-7b-chat"]
)
def test_a_batch_of_real_models_is_what_one_by_one_gives(models, model):
    _, chat = models[model]

    @modestly
    @given(BATCHES, OPTIONS)
    def compare(records, options):
        check_batch(chat, records, **options)

    compare()


MARKED = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + TEXT + '<|im_end|>\n' }}"
CLOSE = "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
ASKING = {
    "strips": MARKED.replace("TEXT", "m.content.strip()") + CLOSE,
    "trims the user": MARKED.replace("TEXT", "(m.content|trim if m.role == 'user' else m.content)")
    + CLOSE,
    "strips signs": MARKED.replace("TEXT", "m.content.strip('#')") + CLOSE,
    "splits": MARKED.replace("TEXT", "m.content.split('</think>')[-1].lstrip('\n')") + CLOSE,
    "replaces": MARKED.replace("TEXT", "m.content|replace('z', '字')") + CLOSE,
    "escapes": MARKED.replace("TEXT", "m.content|urlencode") + CLOSE,
    "drops the empty": MARKED.replace("TEXT", "(m.content or 'nothing')") + CLOSE,
    "asks for a word": MARKED.replace("TEXT", "('!' if m.content == 'hello' else m.content)")
    + CLOSE,
    "asks by a name": "{% set tag = 'wor' ~ 'ld' %}{% set word = 'hello' %}"
    + MARKED.replace("TEXT", "('!' if word in m.content or tag == m.content else m.content)")
    + CLOSE,
    "asks in small letters": MARKED.replace(
        "TEXT", "('!' if m.content.lower() == 'user' else m.content)"
    )
    + CLOSE,
    "asks for a beginning": MARKED.replace(
        "TEXT", "('!' if m.content[:5] == 'hello' else m.content)"
    )
    + CLOSE,
    "tells it at the end": "{% for m in messages %}{% if m.role != 'system' %}"
    "{{ '[' + m.role + ']' + m.content }}{% if m.role == 'assistant' %}{{ '\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{{ '<|im_end|>' }}"
    "{% endif %}{% endif %}{% endfor %}{{ '[assistant]' if add_generation_prompt }}",
    "adds an empty thought": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last and '</think>' not in m.content %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}" + CLOSE,
    "has closed the thought": "{% for m in messages %}"
    "{{ '[' + m.role + ']' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]<think>\n\n</think>\n\n' }}{% endif %}",
    "wants a system text": "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}"
    "{% endif %}" + MARKED.replace("TEXT", "m.content") + CLOSE,
    "marks what is generated": "{% for m in messages %}{% generation %}"
    + MARKED.partition("%}")[2].replace("TEXT", "m.content")
    + "{% endgeneration %}"
    + CLOSE,
}


def letters_of(template: str) -> ChatFormat:
    """A format of letters; ``generation`` tags are for transformers' own environment."""
    tokenizer = LetterTokenizer(CHATML)
    plain = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    tokenizer.compiled = LetterTokenizer(plain).compiled
    tokenizer.chat_template = template
    return ChatFormat(tokenizer) if "no') }" not in template else _wanting_system(tokenizer)


def _wanting_system(tokenizer: LetterTokenizer) -> ChatFormat:
    """The format is tried with a question alone; here the template sees a system text there."""
    strict, lenient = tokenizer.compiled, LetterTokenizer().compiled
    tokenizer.compiled = lenient
    chat = ChatFormat(tokenizer)
    tokenizer.compiled = strict
    return chat


@pytest.mark.parametrize("name", ASKING)
def test_a_batch_is_right_whatever_the_template_asks(name):
    @modestly
    @given(BATCHES, OPTIONS)
    def compare(records, options):
        check_batch(letters_of(ASKING[name]), records, **options)

    compare()


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("strips", 2),
        ("strips signs", 2),
        ("splits", 2),
        ("marks what is generated", 2),
        ("adds an empty thought", 2),
        ("escapes", 20),
        ("asks in small letters", 20),
    ],
)
def test_ordinary_rows_need_the_template_only_where_it_must_be_asked(name, plain):
    records = questions(*(f"第{i}问：春眠不觉晓\n处处闻啼鸟" for i in range(20)))
    assert check_batch(letters_of(ASKING[name]), records) == plain


def test_only_the_rows_that_a_question_concerns_go_the_plain_way(models):
    # A format of its own: the one shared by the tests may have met this kind of row before.
    r1 = ChatFormat(models["DeepSeek-R1-Distill-Qwen"][1].tokenizer)
    turns = ("user", "assistant", "user", "assistant")
    usual = [("一", "甲", f"问{i}", "<think>\n想\n</think>\n\n乙") for i in range(9)]
    asked = ("一", "<think>\n想\n</think>\n\n甲", "问", "乙")
    records = [
        Record(Origin("f", 1), tuple(map(Message, turns, texts))) for texts in [*usual, asked]
    ]
    assert check_batch(r1, records) == 2 + 1
    assert check_batch(r1, records) == 1
    # One row in a thousand is looked at again.
    assert check_batch(r1, records * 110) == 110 + 1


def test_earlier_answers_are_seen_by_the_template_too():
    roles = ("user", "assistant", "user", "assistant")
    texts = [("一", answer, "二", "乙") for answer in ("甲", "丙", "甲", "丙", "丁", " 甲")]
    records = [Record(Origin("f", 1), tuple(map(Message, roles, said))) for said in texts]
    assert check_batch(letters_of(ASKING["strips"]), records) == 2 + 1


def test_a_template_that_cannot_be_foreseen_is_found_out_and_given_up():
    template = MARKED.replace("TEXT", "('!' * (m.content|length == 7) or m.content)") + CLOSE
    chat = letters_of(template)
    assert check_batch(chat, questions("1234567", *map(str, range(19)))) == 20 + 1
    assert check_batch(chat, questions(*map(str, range(20)))) == 20


def test_rare_kinds_are_not_worth_a_skeleton():
    chat, records = letters_of(CHATML), questions("一", "二", "三")
    assert check_batch(chat, records) == 3
    assert check_batch(chat, records) == 2
    assert check_batch(chat, records) == 0


def test_texts_that_repeat_are_encoded_once(qwen_tokenizer, monkeypatch):
    chat = ChatFormat(qwen_tokenizer)
    encoder, seen = chat._encoder, []
    segments = encoder.segments
    monkeypatch.setattr(encoder, "segments", lambda texts: seen.extend(texts) or segments(texts))
    system = Message("system", "你是一位情感分析师。" * 20)
    records = [
        Record(Origin("f", i), (system, Message("user", f"第{i}句"), Message("assistant", a)))
        for i, a in enumerate(["正面", "负面"] * 10)
    ]
    assert check_batch(chat, records) == 2
    assert len(seen) == 1 + 20 + 2


def metaspace(scheme: str) -> Any:
    """A small tokenizer in SentencePiece's manner; ``first``: only a text's start gets its mark."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    signs = sorted(
        {c for scrap in SCRAPS for c in scrap} | set("▁：\n[]abcdefghijklmnopqrstuvwxyz")
    )
    vocabulary = {c: i for i, c in enumerate(["<unk>", *signs, "▁h", "he", "▁he"])}
    library = Tokenizer(
        models.BPE(vocabulary, [("▁", "h"), ("h", "e"), ("▁h", "e")], unk_token="<unk>")
    )
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=library, eos_token="<|im_end|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.mark.parametrize(("scheme", "cuts"), [("always", True), ("never", True), ("first", False)])
def test_texts_are_cut_only_where_the_tokenizer_leaves_no_trace(scheme, cuts):
    chat = ChatFormat(metaspace(scheme))
    assert chat._encoder.cuts_at("<|im_end|>") is cuts
    assert check_batch(chat, questions("hello he", "he", "好", " he", "a", "b", answer="he")) == 2

    @modestly
    @given(BATCHES, OPTIONS)
    def compare(records, options):
        check_batch(chat, records, **options)

    compare()


@pytest.fixture
def embedded() -> Any:
    """The tokenizer of the embedded model: a small one, so there is a new one for each test."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(
        Path(weitiao.__file__).parent / "models" / "embedded"
    )


def test_a_token_that_changes_what_is_beside_it_cuts_nothing(embedded):
    from tokenizers import AddedToken

    for flag in ("lstrip", "rstrip", "single_word"):
        token = AddedToken(f"<{flag}>", special=True, normalized=False, **{flag: True})
        embedded.add_tokens([token])
    embedded.add_tokens([AddedToken("<y>", special=True), AddedToken("z<y>", special=True)])
    encoder = ChatFormat(embedded)._encoder
    for token in ("<lstrip>", "<rstrip>", "<single_word>", "<y>", "user"):
        assert not encoder.cuts_at(token)
    assert encoder.cuts_at("<|im_end|>")


def test_padding_and_truncation_that_others_have_set_do_not_show(embedded):
    chat, records = ChatFormat(embedded), questions(*"春眠不觉晓处处闻啼鸟")
    expected = [as_lists(found) for found in chat.batch(records)]
    embedded.backend_tokenizer.enable_padding(length=50)
    embedded.backend_tokenizer.enable_truncation(5)
    assert [as_lists(found) for found in chat.batch(records)] == expected


def test_a_row_of_just_the_longest_length_is_whole(embedded):
    chat, records = ChatFormat(embedded), questions(*"春眠不觉晓处处闻啼鸟")
    longest = max(len(found[0].ids) for found in chat.batch(records))
    found = chat.batch(records, max_tokens=longest, too_long="reject")
    assert not any(isinstance(outcome, Reason) for outcome in found)
    found = chat.batch(records, max_tokens=longest - 1, too_long="reject")
    assert Reason("too_long", {"tokens": longest, "limit": longest - 1}) in found


def test_a_format_in_use_can_be_sent_to_another_process(embedded):
    chat, records = ChatFormat(embedded), questions(*"春眠不觉晓处处闻啼鸟")
    expected = [as_lists(found) for found in chat.batch(records)]
    sent = pickle.loads(pickle.dumps(chat))
    assert [as_lists(found) for found in sent.batch(records)] == expected


def test_a_batch_of_the_embedded_model(embedded):
    chat = ChatFormat(embedded)

    @modestly
    @given(BATCHES, OPTIONS)
    def compare(records, options):
        check_batch(chat, records, **options)

    compare()


def test_the_first_control_token_is_found_as_ever():
    tokenizer = LetterTokenizer(CHATML, "<|im_end|>", "<|im_end|>more", "[X]")
    tokenizer.added_tokens_decoder[7] = SimpleNamespace(content=" ", special=True)
    chat = ChatFormat(tokenizer)
    found = [chat.control_token(t) for t in ("a[X]<|im_end|>", "<|im_end|>more", "[<|", "a b", "")]
    assert found == ["[X]", "<|im_end|>more", None, None, None]

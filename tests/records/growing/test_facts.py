"""What a new wording must keep, and where no word may be exchanged."""

import json
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.growing.rows import row
from weitiao.records.growing.facts import fixed, labels_of, language_of, lost
from weitiao.records.growing.gate import BOUNDS, against, likeness
from weitiao.records.growing.method import question_at, reworded
from weitiao.records.record import Message

KEPT = [
    ("请在2024年3月5日前还款", "2024-03-05前要还款", None),
    ("请在2024年3月5日前还款", "请在2024年3月前还款", "5"),
    ("每天3次，每次3片", "每天3次", "3"),
    ("转账1,000元", "转1000元", None),
    ("转账１０元", "转10元", None),
    ("转账10元", "转100元", "10"),
    ("给{name}写信", "写信给{name}", None),
    ("给{{name}}写信", "写信给他", "{{name}}"),
    ("打开 https://a.cn/b?c=1，看看", "看看 https://a.cn/b?c=1", None),
    ("打开 https://a.cn/b?c=1，看看", "看看 https://a.cn/b", "https://a.cn/b?c=1"),
    ("写信到ask@bank.com.cn咨询", "写信咨询", "ask@bank.com.cn"),
    ("介绍《红楼梦》", "谈谈“红楼梦”", None),
    ("介绍《红楼梦》", "谈谈水浒传", "红楼梦"),
    ("解释“内卷”一词", "解释躺平", "内卷"),
    ("三月五日开会", "五日开会", "三月五日"),
    ("See you on Monday in March", "See you on Tuesday in March", "Monday"),
    ("What does `len(x)` do?", "What is len(x) for?", "`len(x)`"),
    ('处理 {"a": [1]} 吧', '请处理 {"a": [1]}', None),
    ("hello %s", "hi there", "%s"),
    ("no facts here", "nothing at all", None),
]


@pytest.mark.parametrize(("old", "new", "fact"), KEPT)
def test_facts_survive(old: str, new: str, fact: str | None) -> None:
    assert lost(old, new) == fact


def test_what_the_answer_quotes_must_survive() -> None:
    said = json.dumps({"intent": "transfer", "slots": {"to": "李小龙", "n": [True, "招行"]}})
    text = "把钱从招行转给李小龙"
    assert labels_of(row(text, said), text) == {"李小龙", "招行"}
    assert lost(text, "从招商银行转钱给李小龙", labels_of(row(text, said), text)) == "招行"
    text = "这句话是正面还是负面？真好吃"
    assert labels_of(row(text, "正面"), text) == {"正面"}
    assert labels_of(row(text, "{broken"), text) == set()
    assert labels_of(row(text, "[" * 900 + '"正面"' + "]" * 900), text) == {"正面"}
    call = {"function": {"name": "weather", "arguments": '{"city": "哈尔滨"}'}}
    record = row("哈尔滨冷吗", "")
    asked = replace(record.messages[1], tool_calls=(call, {"function": "odd"}, {}))
    record = replace(record, messages=(record.messages[0], asked, Message("assistant", "冷")))
    assert labels_of(record, "哈尔滨冷吗") == {"哈尔滨"}


def test_the_mask_covers_just_the_facts() -> None:
    text = '看 `a b`、{name}、"x y"、{"k": {"n": 1}} 和标签甲'
    mask = fixed(text, {"标签甲"})
    assert "".join("·" if on else char for on, char in zip(mask, text, strict=True)) == (
        "看 ·····、······、·····、··············· 和···"
    )


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet='ab1 {}[]"“”《》`<>$%@./:\n中文三月日', max_size=60))
def test_a_text_keeps_its_own_facts(text: str) -> None:
    assert lost(text, text) is None
    assert len(fixed(text)) == len(text)


@pytest.mark.parametrize("piece", ["[", "{", "a", "“", "《", "`", "<a", "1,", "@", "a.", "三", "$"])
def test_no_text_takes_for_ever(piece: str) -> None:
    start = time.process_time()
    fixed(piece * 200_000)
    lost(piece * 200_000, "x")
    assert time.process_time() - start < 3  # what is quadratic takes minutes


def test_the_language_is_that_of_most_words() -> None:
    assert language_of("用 Python 写一个函数") == "zh"
    assert language_of("Explain the word 你好 to me in English") == "en"
    assert language_of("") == "en"


WORDINGS = [
    ("怎么办理信用卡？", "信用卡如何申请？", None),
    ("老年人高血压一般如何治疗？", "请问老年人得了高血压通常怎么治？", None),
    ("为什么计算机使用二进制代码。", "计算机采用二进制代码的原因是什么？", None),
    ("How do I apply for a credit card?", "What is the way to get a credit card?", None),
    ("Explain why the sky is blue.", "Can you tell me why the sky looks blue?", None),
    ("老年人高血压一般如何治疗？", "抱歉，我无法回答这个问题。", "grow_drift"),
    ("老年人高血压一般如何治疗？", "应该以低盐饮食为主，并按时服药。", "grow_drift"),
    ("老年人高血压一般如何治疗？", "糖尿病患者能够进行缓解吗？", "grow_drift"),
    ("为什么计算机使用二进制代码。", "因为器件只有开和关两种状态。", "grow_drift"),
    ("How do I apply for a credit card?", "Bring your passport to the branch.", "grow_drift"),
    ("Explain why the sky is blue.", "Sorry, I can't help with that.", "grow_drift"),
    ("怎么办理信用卡？", "怎么办理信用卡？", "grow_copy"),
    ("Explain why the sky is blue.", "Explain why the sky is blue!", "grow_copy"),
    ("怎么办理信用卡？", " \n", "grow_empty"),
    ("第3题怎么做？", "第4题怎么做？", "grow_lost"),
]


@pytest.mark.parametrize(("old", "new", "reason"), WORDINGS)
def test_the_gate_parts_wordings_from_drift_and_copies(
    old: str, new: str, reason: str | None
) -> None:
    found = against(row(old), row(new))
    assert (found.name if found else None) == reason
    if found:
        assert found.sentence("zh") != found.sentence("en")
        assert found.hint("zh")


def test_a_changed_answer_must_keep_its_meaning() -> None:
    parent = row("怎么办理信用卡？", "请带身份证到网点办理，约需15天。")
    asked = "如何办理信用卡？"
    assert against(parent, row(asked, "请带身份证到网点申办，约需15天。")) is None
    assert against(parent, row(asked, "请带身份证到网点办理。")).name == "grow_lost"  # type: ignore[union-attr]
    assert against(parent, row(asked, "卡片寄出后15日才能收到。")).name == "grow_drift"  # type: ignore[union-attr]


def test_likeness_is_chrf() -> None:
    assert likeness("abc def", "abc def") == pytest.approx(100)
    assert likeness("abc", "xyz") == 0
    assert BOUNDS[0] < likeness("怎么办理信用卡？", "信用卡怎么办理？") < BOUNDS[1]


def test_the_question_is_the_one_the_last_answer_answers() -> None:
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    record = replace(row(""), messages=tuple(Message(r, r) for r in roles))  # type: ignore[arg-type]
    assert question_at(record) == 3
    assert reworded(record, {3: "new"}).messages[3].content == "new"
    assert question_at(replace(record, messages=record.messages[:2])) is None
    assert question_at(replace(record, messages=(), text="abc")) is None

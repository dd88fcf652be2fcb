"""What every step promises: the same again changes nothing, and what it must not touch stays."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.records.cleaning.mojibake import repair
from weitiao.records.cleaning.normalise import normalise
from weitiao.records.cleaning.private import mask
from weitiao.records.cleaning.script import to_script
from weitiao.records.cleaning.width import half_width
from weitiao.records.options import CleanOptions

KINDS = frozenset(CleanOptions().private_kinds)
STEPS = {
    "mojibake": repair,
    "normalise": normalise,
    "width": half_width,
    "simplified": lambda text: to_script(text, "simplified"),
    "traditional": lambda text: to_script(text, "traditional"),
    "private": lambda text: mask(text, KINDS),
}
# What the steps look for, so close together that their rules meet.
PIECES = [
    *"\u200b\u200c\u200d\ufeff\xad\u202e\u2060 \t\n\r\x0b\x85\u2028\u3000\xa0\u2003\x00\x7f",
    *"👨👩👧❤\ufe0f🏽🏴\U000e0067\U000e007fہبक्ष１２．Ａｚ＠－，。！？（）“”《》abcXx",
    *"0123456789-. @()+ÂÃâ©€™é»涓浣犲ソ鈥銆锛锟斤拷\ufffd?",
    *"後后發发乾干裏里苎薴\ud800\udc00号路市区省",
    *("13812345678", "010-88886666", "a.b@qq.com", "11010519491231002X", "杭州市文三路478号"),
    *("4111111111111111", "浣犲ソ锛屼笘鐣�", "cafÃ©", "itâ€™s", "   ", "\n\n\n\n", "\r\n"),
]
texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=25).map("".join),
)


@pytest.mark.parametrize("name", STEPS)
@settings(max_examples=250, deadline=None)
@given(text=texts)
def test_a_step_taken_twice_changes_nothing_more(name: str, text: str) -> None:
    once = STEPS[name](text)
    assert STEPS[name](once) == once


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    if x:\n\treturn [x, 'a']\n\n\n# end",
        "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。",
        "　　段首空两格。\n　　第二段：“引文”——《书名》……",
        "好的，1 + 5 + 6 = 12。\n- a\n- b",
        "👨‍👩‍👧 ❤️ 👍🏽 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "« CAFÉ » São Paulo, naïve, “résumé”…",
        "",
    ],
)
def test_good_text_stays(name: str, text: str) -> None:
    if name != "traditional":
        assert STEPS[name](text) == text


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(
    "unit",
    [
        " ",
        "\n",
        "a",
        "é",
        "锟",
        "1",
        "-1",
        "a.",
        "涓",
        "（",
        "😀\u200d",
        "号",
        "1 ",
        "\u3000 x",
        "Ã",
    ],
)
def test_time_grows_with_the_text_and_no_faster(name: str, unit: str) -> None:
    text = "x" + unit * (60_000 // len(unit)) + "y@ \n"
    started = time.process_time()
    STEPS[name](text)
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\u200bb\ufeffc\xadd\u202ee", "abcde"),
        ("a\x00b\x1b[0m\x7f", "ab[0m"),
        ("line\r\nline\rline\u2028line", "line\nline\nline\nline"),
        ("a\xa0b\u2003c", "a b c"),
        ("trailing  \t\nblanks\u3000\n", "trailing\nblanks"),
        ("\n \n  x\n\n\n\n\n\ny\n\n", "  x\n\n\ny"),
        (" answer ", "answer"),
        ("　　段首\n　　段首", "　　段首\n　　段首"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("न\u200dम", "न\u200dम"),
        ("a\u200db\u200cc👨\u200dx", "abc👨x"),
        ("①ﬁ㎏", "①ﬁ㎏"),
    ],
)
def test_normalise(before: str, after: str) -> None:
    assert normalise(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ＡＢｃ１２３", "ABc123"),
        ("价格：１．５元，＋８６％", "价格：1.5元，+86%"),
        ("句．５．完", "句．5．完"),
        ("句号．下一句。！？：；（）「」《》、～", "句号．下一句。！？：；（）「」《》、～"),
        ("　全角空格", "　全角空格"),
    ],
)
def test_width(before: str, after: str) -> None:
    assert half_width(before) == after


def test_script() -> None:
    assert to_script("曾隨風水化凡鱗，頭髮乾了", "simplified") == "曾随风水化凡鳞，头发干了"
    assert to_script("头发发现皇后后来", "traditional") == "頭髮發現皇后後來"
    assert to_script("plain", "traditional") == "plain"
    assert to_script("後\ud800後", "simplified") == "后\ud800后"

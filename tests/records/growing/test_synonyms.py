"""Exchanging words: what the thesaurus says, where words end, what must stay."""

import sys
import types
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from records.growing.rows import row
from weitiao.errors import DataError
from weitiao.records.growing import Thesaurus, load_thesaurus, synonyms
from weitiao.records.growing.method import question
from weitiao.records.record import Reason, Record

LIST = """\
高兴 开心 快乐
办理，申办
how to	the way to
big, large, very large
Aa01A01= 人 士 人物 人士
Aa01A02# 苹果 香蕉
Aa01A03@ 不可思议
银行 行 中国银行
兴趣
办法 方法
方法 手段
"""

JOY = ("高兴", "开心", "快乐", "欢喜", "愉快", "喜悦", "欣喜", "欢乐")


@pytest.fixture
def words(tmp_path: Path) -> Thesaurus:
    path = tmp_path / "words.txt"
    path.write_text(LIST, encoding="gb18030")
    return load_thesaurus(str(path))


def wordings(
    text: str, thesaurus: Thesaurus, n: int = 20, share: float = 1, **more: str
) -> set[str]:
    found = synonyms(thesaurus, share).candidates(row(text, **more), n, 1)
    return {question(one) for one in found if isinstance(one, Record)}


def test_lists_and_the_form_of_cilin_are_read(words: Thesaurus) -> None:
    assert words.others["高兴"] == ("开心", "快乐")
    assert words.others["办理"] == ("申办",)
    assert words.others["very large"] == ("big", "large")
    assert words.others["how to"] == ("the way to",)
    assert words.others["人物"] == ("人士",)  # single characters are exchanged for none
    assert words.others["办法"] == ("方法",)
    assert "方法" not in words.others  # of two meanings
    assert not words.others.keys() & {"苹果", "不可思议", "行", "人", "兴趣"}
    assert {"苹果", "不可思议", "行", "兴趣"} <= words.known


def test_words_are_exchanged(words: Thesaurus) -> None:
    assert wordings("我很高兴", words) == {"我很开心", "我很快乐"}
    assert wordings("Big news, how to begin?", words) == {
        f"{big} news, {how} begin?"
        for big in ("Big", "Large", "Very large")
        for how in ("how to", "the way to")
    } - {"Big news, how to begin?"}
    assert wordings("BIG", words) == {"LARGE", "VERY LARGE"}


def test_a_word_is_never_cut_out_of_another(words: Thesaurus) -> None:
    assert wordings("培养高兴趣", words) == set()  # read backwards it is 高 兴趣
    assert wordings("bigger ambig, how together", words) == set()
    assert wordings("every large", words) == {"every big", "every very large"}
    assert wordings("中国银行在哪里", words) == {"银行在哪里"}  # the longest word is the word


def test_fixed_text_stays(words: Thesaurus) -> None:
    assert wordings('“高兴” {高兴} `高兴` {"a": "高兴"} https://高兴', words) == set()
    assert wordings("我很高兴，他高兴", words, answer="他高兴") == {
        "我很开心，他高兴",
        "我很快乐，他高兴",
    }


def test_at_most_a_share_is_exchanged(words: Thesaurus) -> None:
    text = "高兴 " * 10
    for share, most in ((0.3, 3), (1, 10), (0.01, 1)):
        for new in wordings(text, words, share=share):
            assert 1 <= 10 - new.count("高兴") <= most
    assert max(10 - new.count("高兴") for new in wordings(text, words)) > 3


def test_answers_change_only_when_asked(words: Thesaurus) -> None:
    record = row("办理什么才高兴？", "去办理一张银行卡，人人都高兴。")
    same = synonyms(words, 1).candidates(record, 9, 1)
    assert {one.answer for one in same if isinstance(one, Record)} == {record.answer}
    both = synonyms(words, 1, answers=True).candidates(record, 9, 1)
    assert len({one.answer for one in both if isinstance(one, Record)}) > 1


def test_the_seed_and_the_row_decide(words: Thesaurus) -> None:
    record = row("我很高兴办理，他也高兴办理")
    method = synonyms(words)
    assert method.candidates(record, 3, 1) == method.candidates(record, 3, 1)
    firsts = {question(method.candidates(record, 1, seed)[0]) for seed in range(20)}  # type: ignore[arg-type]
    assert len(firsts) > 2


def test_a_row_without_a_word_says_so(words: Thesaurus) -> None:
    assert synonyms(words).candidates(row("你好"), 2, 1) == [Reason("grow_no_synonym")]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="高兴趣开心办理中国银行 bigBIG19{}“”。", max_size=30), st.integers(0, 3))
def test_any_text_gives_new_texts_only(text: str, seed: int) -> None:
    others = {"高兴": ("开心",), "开心": ("高兴",), "big": ("large",), "办理": ("申办",)}
    words = Thesaurus(others, frozenset({*others, "兴趣", "银行"}), 3)
    found = synonyms(words, 1).candidates(row(text), 3, seed)
    new = [question(one) for one in found if isinstance(one, Record)]
    assert len(set(new)) == len(new) <= 3
    assert text not in new


@pytest.mark.parametrize("content", ["", "高兴\n开心\n", "Aa01A02# 苹果 香蕉\n", "人 士\n"])
def test_a_list_without_a_group_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "words.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as error:
        load_thesaurus(str(path))
    assert error.value.key == "error.thesaurus_empty"


def test_a_missing_list_is_told(tmp_path: Path) -> None:
    for place in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError) as error:
            load_thesaurus(str(place))
        assert error.value.key == "error.thesaurus_unreadable"


def test_the_package_cilin_is_read_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cilin", None)
    with pytest.raises(DataError) as error:
        load_thesaurus("cilin")
    assert error.value.key == "error.no_cilin"

    class Cilin:
        def __init__(self, trad: bool) -> None:
            assert not trad

        def category_split(self, level: int) -> dict[str, set[str]]:
            assert level == 5
            return {"Ga01A01=": set(JOY), "Ga01A02#": {"苹果", "香蕉"}}

    package = types.ModuleType("cilin")
    package.Cilin = Cilin  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cilin", package)
    words = load_thesaurus("cilin")
    assert list(words.others) == sorted(JOY)
    assert words.others["高兴"] == tuple(sorted(set(JOY) - {"高兴"}))
    assert "苹果" in words.known

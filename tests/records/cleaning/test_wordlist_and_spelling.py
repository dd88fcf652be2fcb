"""Lists of words, and suggestions from confusions and a dictionary."""

import builtins
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError
from weitiao.records.cleaning.spelling import Speller
from weitiao.records.cleaning.wordlist import WordList, read_lines

TABLE = [
    line.split("\t")
    for line in resources.files("weitiao.records.cleaning")
    .joinpath("confusions.tsv")
    .read_text("utf-8")
    .splitlines()
    if not line.startswith("#")
]


@pytest.fixture(scope="module")
def speller() -> Speller:
    pytest.importorskip("spellchecker")
    return Speller(None)


def words_in(text: str, *words: str) -> list[str]:
    return [word for _, word in WordList(words).find(text)]


def test_words_are_found_whole_if_latin_and_in_any_case() -> None:
    assert words_in("Damn, dammit!", "damn", "dam") == ["damn"]
    assert words_in("class 混蛋东西", "ass", "混蛋", "混") == ["混蛋"]
    assert words_in("中ass文", "ass") == ["ass"]
    assert words_in("a.b [x]", "a.b", "[x]") == ["a.b", "[x]"]
    assert words_in("anything") == []
    assert not WordList(["", "  "])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text("abc中文", min_size=1, max_size=3), max_size=6),
    st.text("abc中文 ", max_size=20),
)
def test_every_word_that_stands_alone_is_found(words: list[str], text: str) -> None:
    found = set(words_in(text, *words))
    for word in words:
        assert not (f" {word} " in f" {text} " and not found), (word, text)
    assert all(word in text for word in found)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_a_list_is_read_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("你们的坏话\n这个\n".encode(encoding))
    assert read_lines(path) == ["你们的坏话", "这个"]


def test_a_missing_list_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_lines(tmp_path / "none.txt")
    assert caught.value.key == "error.file_missing"
    with pytest.raises(DataError) as caught:
        read_lines(tmp_path)
    assert caught.value.key == "error.file_unreadable"


def test_our_table_is_sound() -> None:
    assert len(TABLE) >= 150
    wrong = {row[0] for row in TABLE}
    assert len(wrong) == len(TABLE)
    for row in TABLE:
        assert len(row[0]) == len(row[1]), row
        assert row[1] not in wrong, row
        assert all(row[0] in whole for part in row[2:] for whole in part.split()), row


def test_every_confusion_is_suggested_and_none_in_the_right_word(speller: Speller) -> None:
    for wrong, right, *right_in in TABLE:
        assert f"{wrong}→{right}" in (speller.suggest([f"，{wrong}。"]) or "")
        assert speller.suggest([right]) is None
        for whole in " ".join(right_in).split():
            assert speller.suggest([whole]) is None, whole


def test_english(speller: Speller) -> None:
    text = "I recieve a letter seperately, a negattive one, tomorow."
    assert speller.suggest([text]) == "recieve→receive, negattive→negative, tomorow→tomorrow"
    assert speller.suggest(["The colour of Wroclaw's centre is organised, printf."]) is None
    assert speller.suggest(["```\nrecieve\n```"]) is None
    many = speller.suggest(["按装 渡假 布署 松驰 脉博 防碍 作崇"])
    assert many is not None
    assert many.count("→") == 5


def test_the_user_s_own_confusions(tmp_path: Path) -> None:
    pytest.importorskip("spellchecker")
    path = tmp_path / "own.tsv"
    path.write_text("# ours\n微条\t微调\n按装\t装\n", "utf-8")
    assert Speller(str(path)).suggest(["微条，按装"]) == "微条→微调, 按装→装"
    path.write_text("微条\t微调\n坏行\n", "utf-8")
    with pytest.raises(DataError) as caught:
        Speller(str(path))
    assert caught.value.values == {"path": str(path), "line": 2, "value": "坏行"}


def test_a_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "spellchecker":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError) as caught:
        Speller(None)
    assert caught.value.key == "error.spelling_not_installed"

"""The catalogue: nothing missing, nothing unused, the same values in both languages."""

import ast
import re
import string
from pathlib import Path

import pytest

import weitiao
from weitiao.words import LANGUAGES, catalogue, from_environment, say

SOURCE = Path(weitiao.__file__).parent
KEYS = sorted(catalogue())
# A key as it stands in code: whole, or the beginning of one that is completed at run time.
LOOKS_LIKE_A_KEY = re.compile(r"[a-z][a-z_]*(\.[a-z0-9_]+)+")


def strings_in_code() -> tuple[set[str], set[str]]:
    """Whole strings, and the fixed beginnings of f-strings, of all code and page templates."""
    whole: set[str] = set()
    beginnings: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                first = node.values[0]
                if isinstance(first, ast.Constant) and "." in str(first.value):
                    beginnings.add(str(first.value))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole.add(node.value)
    for path in SOURCE.rglob("*.jinja"):
        text = path.read_text(encoding="utf-8")
        whole |= set(re.findall(r"[\"']([\w.]+)[\"']", text))
        beginnings |= set(re.findall(r"[\"']([\w.]+\.)[\"'] *~", text))
    return whole, {b for b in beginnings if b.count(".") and re.fullmatch(r"[a-z_.]+", b)}


WHOLE, BEGINNINGS = strings_in_code()


def values_of(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("key", KEYS)
def test_both_languages_say_it_with_the_same_values(key: str) -> None:
    entry = catalogue()[key]
    assert set(entry) == set(LANGUAGES)
    assert all(text.strip() for text in entry.values())
    assert values_of(entry["en"]) == values_of(entry["zh"])


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_used(key: str) -> None:
    assert key in WHOLE or any(key.startswith(b) for b in BEGINNINGS), key


def keys_said() -> set[tuple[str, str]]:
    """(file, key) wherever a key is given to ``say``, ``because`` or an error of ours."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                ours = name in {"say", "because"} or name.endswith("Error")
                if ours and LOOKS_LIKE_A_KEY.fullmatch(str(node.args[0].value)):
                    found.add((path.name, node.args[0].value))
    return found


def test_every_key_said_is_there() -> None:
    said = keys_said()
    assert len(said) > 50, "the search finds next to nothing: it is broken"
    assert {(file, key) for file, key in said if key not in catalogue()} == set()


def test_chinese_is_chinese() -> None:
    """A sentence left in English would show."""
    for key in KEYS:
        entry = catalogue()[key]
        if entry["zh"] == entry["en"]:
            letters = re.sub(r"\{[^}]*\}", "", entry["en"])
            assert len(re.findall(r"[A-Za-z]{3,}", letters)) <= 2, key


def test_the_locale_decides_and_weitiao_lang_before_it() -> None:
    assert from_environment({"LANG": "zh_CN.UTF-8"}) == "zh"
    assert from_environment({"LANG": "de_DE.UTF-8"}) == "en"
    assert from_environment({"LANG": "zh_CN.UTF-8", "WEITIAO_LANG": "en"}) == "en"
    assert from_environment({}) == "en"


def test_say_fills_in_values() -> None:
    assert "7" in say("error.no_such_row", "en", number=7, rows=3)
    assert "7" in say("error.no_such_row", "zh", number=7, rows=3)
    with pytest.raises(KeyError):
        say("no.such.key")

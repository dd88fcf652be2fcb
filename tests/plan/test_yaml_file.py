from difflib import SequenceMatcher

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import RecipeError
from weitiao.plan.recipe import Recipe
from weitiao.plan.yaml_file import Source, load_yaml, option_paths, parse_yaml, validated
from weitiao.words import set_language


@pytest.fixture(autouse=True)
def _english():
    set_language("en")


def told(text, name="recipe.yaml"):
    def read():
        data, positions = parse_yaml(text, name)
        validated(Recipe, data, Source(name, positions))

    with pytest.raises(RecipeError) as caught:
        read()
    return str(caught.value)


def test_numbers_words_and_positions():
    data, positions = parse_yaml("a: 2e-4\nb:\n  c: no\n  d: [1, x]\n  e: 2024-01-01\n", "r")
    assert data == {"a": 0.0002, "b": {"c": "no", "d": [1, "x"], "e": "2024-01-01"}}
    assert positions["b", "c"].key == (3, 3)
    assert positions["b", "c"].value == (3, 6)
    assert positions["b", "d", 1].value == (4, 10)


def test_a_typo_gets_line_column_and_the_near_key():
    text = "train:\n  epochs: 3\n  lora:\n    rank: 8\n    alpah: 16\n"
    assert told(text) == "recipe.yaml:5:5 train.lora.alpah: unknown key, did you mean alpha?"


def test_a_key_in_the_wrong_place_gets_its_full_name():
    assert told("epochs: 3\n").endswith("did you mean train.epochs?")


def test_a_key_like_no_other_gets_no_guess():
    assert "did you mean" not in told("train:\n  zzzzqq: 3\n")


PATHS = [path for path in option_paths(Recipe) if len(str(path[-1])) > 4]


def near(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(PATHS), st.integers(0, 5), st.data())
def test_every_misspelt_key_is_placed_and_mended(path, blank_lines, data):
    set_language("en")
    name = str(path[-1])
    at = data.draw(st.integers(0, len(name) - 2))
    wrong = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    known = {str(p[len(path) - 1]) for p in option_paths(Recipe) if p[:-1] == path[:-1]}
    if wrong in known:
        return
    lines = ["#"] * blank_lines
    for depth, part in enumerate((*path[:-1], wrong)):
        lines.append("  " * depth + f"{part}:")
    lines[-1] += " 1"
    where = f"recipe.yaml:{len(lines)}:{2 * len(path) - 1} "
    sentence = told("\n".join(lines))
    assert sentence.startswith(where + ".".join((*map(str, path[:-1]), wrong)))
    mended = sentence.rpartition("did you mean ")[2].removesuffix("?")
    # pseed is as near to seed as to speed.
    assert mended in known
    assert near(wrong, mended) >= near(wrong, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train:\n  epochs: three\n", '2:11 train.epochs: expected a whole number, not "three".'),
        ("train:\n  epochs: '3'\n", "expected a whole number"),
        ("train:\n  epochs: 2.5\n", "expected a whole number"),
        ("train:\n  epochs: true\n", "expected a whole number, not true."),
        ("train:\n  learning_rate: -1\n", "expected a number above 0, not -1."),
        ("train:\n  learning_rate: .nan\n", "expected a number of at most 1, not NaN."),
        (
            "train:\n  method: qlorra\n",
            'expected one of lora, qlora, full, prefix, ia3, not "qlorra".',
        ),
        ("train:\n  lora:\n    targets: 3\n", "expected one of all-linear or a list"),
        ("train: 3\n", "1:8 train: expected keys with values"),
        ("data:\n  split: [8, 1]\n", "data.split"),
        ("data:\n  columns:\n    promt: ask\n", "3:5 data.columns.promt"),
        ("data:\n  system: 5\n", "expected text, not 5."),
        ("model:\n  name: ''\n", "expected text that is not empty"),
    ],
)
def test_wrong_values(text, expected):
    sentence = told(text)
    assert expected in sentence
    assert "\n" not in sentence


def test_all_problems_are_told_at_once_in_chinese_too():
    text = "train:\n  epohcs: 3\n  seed: x\nmodle:\n  name: a\n"
    assert len(told(text).splitlines()) == 3
    set_language("zh")
    assert "没有这个选项" in told(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: 1\n", "recipe.yaml:2:1: there is a tab"),
        ("a: [1\n", "recipe.yaml:2:1: this is not valid YAML"),
        (
            "a: 1\nb:\n  c: 1\n  c: 2\na: 3\n",
            "recipe.yaml:4:3 b.c: this key already stands in line 3",
        ),
        ("- 1\n", "recipe.yaml:1:1: this file is to be made of lines"),
        ("a: &x\n  b: *x\n", "contains itself"),
        ("a: *nowhere\n", "recipe.yaml:1:4"),
        ("a: \x00", "not valid YAML"),
        ("a: 1\n---\nb: 1\n", "recipe.yaml:2:1"),
    ],
)
def test_broken_yaml(text, expected):
    assert expected in told(text)


def test_two_duplicates_are_told_together():
    assert len(told("a: 1\na: 2\nb: 1\nb: 2\n").splitlines()) == 2


def test_files(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xef\xbb\xbfdescription: \xe5\xbe\xae\n")
    assert load_yaml(tmp_path / "mine.yaml")[0] == {"description": "微"}
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_yaml(tmp_path / "empty.yaml") == ({}, {})
    with pytest.raises(RecipeError, match=r"did you mean mine\.yaml"):
        load_yaml(tmp_path / "mien.yaml")
    with pytest.raises(RecipeError, match="no recipe file"):
        load_yaml(tmp_path / "nowhere" / "x.yaml")
    (tmp_path / "gbk.yaml").write_bytes("description: 微调".encode("gbk"))
    with pytest.raises(RecipeError, match="UTF-8"):
        load_yaml(tmp_path / "gbk.yaml")
    with pytest.raises(RecipeError, match="text file"):
        load_yaml(tmp_path)

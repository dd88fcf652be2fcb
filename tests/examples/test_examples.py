"""The bundled data files: what they promise to whoever reads or measures with them."""

import csv
import difflib
import io
import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from weitiao.examples.bank import generate

EXAMPLES = Path(generate.__file__).parents[1]
BANK = EXAMPLES / "bank"


@pytest.fixture(scope="module")
def lines() -> list[generate.Line]:
    return generate.lines()


@pytest.fixture(scope="module")
def good(lines: list[generate.Line]) -> list[dict[str, str]]:
    return [json.loads(line.data) for line in lines if line.kind is None]


def of_kind(lines: list[generate.Line], *kinds: str) -> list[bytes]:
    found = [line.data for line in lines if line.kind in kinds]
    assert found
    return found


def test_committed_file_is_what_the_generator_writes():
    assert (BANK / "bank.jsonl").read_bytes() == generate.content()


def test_sizes_are_the_promised_ones(lines, good):
    assert len(good) >= 1200
    assert sum(generate.rejections().values()) == len(lines) - len(good)
    assert 0.075 < 1 - len(good) / len(lines) < 0.085
    assert set(Counter(row["intent"] for row in good)) == set(generate.SLOTS)
    assert len(generate.SLOTS) == 12


def test_each_kind_of_spoilt_row_stands_as_often_as_said(lines):
    counts = Counter(line.kind for line in lines if line.kind)
    assert counts == {name: kind.rows for name, kind in generate.SPOILT.items()}
    assert generate.rejections()["empty_answer"] == counts["empty_output"] + counts["blank_output"]


def test_spoilt_rows_are_spoilt_in_the_way_named(lines):
    def read(kind: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in of_kind(lines, kind)]

    assert {row["output"] for row in read("empty_output")} == {""}
    assert all(row["output"] and not row["output"].strip() for row in read("blank_output"))
    assert {row["instruction"] for row in read("empty_instruction")} == {""}
    assert all("output" not in row for row in read("no_output"))
    assert all("<|im_end|>" in row["instruction"] + row["output"] for row in read("special_token"))
    for line in of_kind(lines, "cut_line", "missing_brace"):
        text = line.decode()
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
    for line in of_kind(lines, "gbk_field"):
        with pytest.raises(UnicodeDecodeError):
            line.decode()
        assert json.loads(line.decode("utf-8", "replace"))["intent"] in generate.SLOTS


def test_a_copy_comes_after_the_good_row_it_repeats(lines):
    good_so_far: set[bytes] = set()
    for line in lines:
        if line.kind == "exact_copy":
            assert line.data in good_so_far
        elif line.kind is None:
            assert line.data not in good_so_far
            good_so_far.add(line.data)


def test_each_line_but_the_gbk_ones_is_utf8_and_no_line_is_torn(lines):
    assert not any(b"\n" in line.data for line in lines)
    for line in lines:
        if line.kind != "gbk_field":
            line.data.decode()


def test_no_two_good_rows_say_the_same(good):
    said = Counter(re.sub(r"\W", "", row["instruction"]).lower() for row in good)
    assert max(said.values()) == 1


def test_spoilt_rows_say_nothing_that_a_good_row_says(lines, good):
    said = {row["instruction"] for row in good}
    for line in of_kind(lines, "empty_output", "blank_output", "no_output", "special_token"):
        assert json.loads(line)["instruction"].removesuffix("<|im_end|>") not in said


def test_answers_follow_from_the_sentence(good):
    replies = {phrasing.id: phrasing.reply for phrasing in generate.phrasings()}
    for row in good:
        answer = json.loads(row["output"])
        assert list(answer) == ["intent", "slots", "reply"]
        assert answer["intent"] == row["intent"] == row["phrasing"].split(".")[0]
        assert tuple(answer["slots"]) == generate.SLOTS[row["intent"]]
        assert all(value in row["instruction"] for value in answer["slots"].values())
        assert answer["reply"] == replies[row["phrasing"]].format(**answer["slots"])


def test_rows_are_short(good):
    assert len(generate.SYSTEM) <= 40
    for row in good:
        assert len(row["instruction"]) <= 40
        assert len(json.loads(row["output"])["reply"]) <= 30


def test_each_phrasing_has_several_rows(good):
    rows = Counter(row["phrasing"] for row in good)
    assert set(rows) == {phrasing.id for phrasing in generate.phrasings()}
    assert min(rows.values()) >= 2


def test_each_intent_has_phrasings_enough_and_no_near_copies():
    by_intent: dict[str, list[str]] = {}
    for phrasing in generate.phrasings():
        bare = re.sub(r"\{\w+\}", "#", phrasing.text)
        by_intent.setdefault(phrasing.intent, []).append(bare)
    for intent, texts in by_intent.items():
        assert len(texts) >= 18, intent
        for one, other in combinations(texts, 2):
            alike = difflib.SequenceMatcher(None, one, other, autojunk=False).ratio()
            assert alike < 0.8, (one, other)


def test_values_are_wide_enough_that_they_must_be_copied(good):
    values: dict[str, set[str]] = {}
    for row in good:
        for slot, value in json.loads(row["output"])["slots"].items():
            values.setdefault(slot, set()).add(value)
    assert all(len(values[slot]) >= 50 for slot in ("amount", "card", "phone", "payee"))
    assert all(len(values[slot]) >= 40 for slot in ("city", "merchant", "limit"))


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_readme_shows_a_row_of_the_file(name, good):
    shown = re.search(r"```json\n(.*?)```", (BANK / name).read_text("utf-8"), re.DOTALL)
    assert shown is not None
    assert json.loads(shown[1]) in good


def test_tea_is_sixty_questions_as_a_chinese_spreadsheet_saves_them():
    data = (EXAMPLES / "tea" / "tea.csv").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        data.decode()
    header, *rows = csv.reader(io.StringIO(data.decode("gb18030"), newline=""))
    assert header == ["question", "answer"]
    assert len(rows) == 60
    assert all(len(row) == 2 and all(cell.strip() for cell in row) for row in rows)
    assert len({question for question, _ in rows}) == 60
    assert any("\n" in answer for _, answer in rows)

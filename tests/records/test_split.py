import csv
import json
import unicodedata

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.records.record import Message, Origin, Record
from weitiao.records.split import PARTS, order_key, prompt_key, split

RATIOS = st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
PROMPTS = st.lists(st.integers(0, 25), min_size=1, max_size=80)


def records(prompts: list[int], **metadata: list[str]) -> list[Record]:
    return [
        Record(
            Origin("file", i + 1),
            (Message("user", f"问题 {prompt}"), Message("assistant", f"回答 {i}")),
            metadata={name: values[i] for name, values in metadata.items()},
        )
        for i, prompt in enumerate(prompts)
    ]


def parted(rows, ratios=(8, 1, 1), seed=42, group_by=None) -> dict[str, list[int]]:
    """Split as the stage does where no rows are near each other: one group a key."""
    keys = [prompt_key(row, group_by) for row in rows]
    order = np.array([order_key(seed, key) for key in keys], dtype=np.uint64)
    groups = np.unique(order, return_inverse=True)[1]
    parts = split(groups, order, ratios)
    assert parts.dtype == np.uint8
    return {name: np.flatnonzero(parts == i).tolist() for i, name in enumerate(PARTS)}


def by_dictionaries(rows, ratios=(8, 1, 1), seed=42, group_by=None) -> dict[str, list[int]]:
    """The same split by dictionaries, group by group: the plain reference."""

    def key_of(record):
        if group_by is not None and group_by in record.metadata:
            return json.dumps(record.metadata[group_by], ensure_ascii=False, sort_keys=True)
        said = [f"{m.role}\0{m.content}" for m in record.prompt]
        text = unicodedata.normalize("NFKC", "\0".join(said) or record.text or "").casefold()
        return "".join(text.split())

    groups: dict[str, list[int]] = {}
    for i, record in enumerate(rows):
        groups.setdefault(key_of(record), []).append(i)
    asked = [i for i, ratio in enumerate(ratios) if ratio > 0] or [0]
    lacking = {i: len(rows) * ratios[i] / (sum(ratios) or 1) for i in asked}
    smallest = min(lacking.values())

    def turn(key):
        size = len(groups[key])
        digest = xxhash.xxh3_64_digest(f"{seed}\0{key}".encode())
        return (-size if size > smallest else 0, digest)

    dealt: dict[int, list[str]] = {i: [] for i in asked}
    for key in sorted(groups, key=turn):
        part = max(asked, key=lambda i: lacking[i])
        dealt[part].append(key)
        lacking[part] -= len(groups[key])
    if len(groups) >= len(asked):
        for part, keys in dealt.items():
            if not keys:
                richest = max(dealt, key=lambda other: len(dealt[other]))
                dealt[part] = [dealt[richest].pop()]
    return {
        name: sorted(i for key in dealt.get(part, ()) for i in groups[key])
        for part, name in enumerate(PARTS)
    }


def real_rows(shared, name):
    path = shared / "data" / name
    if path.suffix == ".csv":
        with path.open(encoding="gb18030", newline="") as lines:
            return [
                Record(
                    Origin(name, i),
                    (Message("user", row["ask"]), Message("assistant", row["answer"])),
                    metadata={"department": row["department"]},
                )
                for i, row in enumerate(csv.DictReader(lines), start=2)
            ]
    text = path.read_text("utf-8")
    rows = json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
    return [
        Record(Origin(name, i), text=row["text"])
        if "text" in row
        else Record(
            Origin(name, i),
            (
                Message("user", row["instruction"] + "\n" + row.get("input", "")),
                Message("assistant", row["output"]),
            ),
        )
        for i, row in enumerate(rows, start=1)
    ]


@pytest.mark.parametrize(
    ("name", "ratios", "seed", "group_by"),
    [
        ("medical_qa_gbk.csv", (8, 1, 1), 42, None),
        ("medical_qa_gbk.csv", (8, 1, 1), 42, "department"),
        ("tang_quatrains.jsonl", (8, 1, 1), 42, None),
        ("tang_quatrains.jsonl", (7, 0, 3), 7, None),
        ("tone_labels.jsonl", (98, 1, 1), 1, None),
        ("identity.json", (8, 1, 1), 42, None),
        ("alpaca_zh.json", (1, 1, 1), 0, None),
    ],
)
def test_real_files_are_split_as_the_reference_does(shared, name, ratios, seed, group_by):
    rows = real_rows(shared, name)
    found = parted(rows, ratios, seed, group_by)
    assert found == by_dictionaries(rows, ratios, seed, group_by)
    assert sum(map(len, found.values())) == len(rows) > 50


@settings(max_examples=150, deadline=None)
@given(PROMPTS, RATIOS, st.integers(0, 5))
def test_every_row_once_equal_prompts_together_and_no_part_empty(prompts, ratios, seed):
    parts = parted(records(prompts), ratios, seed)
    assert parts == by_dictionaries(records(prompts), ratios, seed)
    assert sorted(i for part in parts.values() for i in part) == list(range(len(prompts)))
    sides = [{prompts[i] for i in part} for part in parts.values()]
    assert sum(len(side) for side in sides) == len(set(prompts))
    asked = [part for part, ratio in zip(parts.values(), ratios, strict=True) if ratio]
    if len(set(prompts)) >= len(asked):
        assert all(asked)
    for part, ratio in zip(parts.values(), ratios, strict=True):
        assert ratio or not part
    # The ratios are missed by less than the largest group, or by the one row a part must have.
    largest = max(prompts.count(p) for p in prompts)
    for part, ratio in zip(parts.values(), ratios, strict=True):
        assert abs(len(part) - len(prompts) * ratio / sum(ratios)) <= largest + 1


def test_distinct_prompts_meet_the_ratios():
    parts = parted(records(list(range(1000))))
    assert [len(part) for part in parts.values()] == [800, 100, 100]


def test_the_seed_decides_and_nothing_else():
    rows = records(list(range(100)))
    assert parted(rows, seed=1) == parted(rows, seed=1)
    assert parted(rows, seed=1) != parted(rows, seed=2)


def test_a_joined_group_takes_the_place_of_its_first_member():
    order = np.array([50, 30, 10, 20, 60, 70, 80], dtype=np.uint64)
    groups = np.array([1, 2, 3, 1, 1, 4, 5])
    assert split(groups, order, (1, 1, 0)).tolist() == [1, 0, 0, 1, 1, 0, 0]
    order[3] = 40
    assert split(groups, order, (1, 1, 0)).tolist() == [0, 1, 0, 0, 0, 1, 1]


def test_no_rows_and_no_ratios():
    nothing = np.zeros(0, dtype=np.int64)
    assert split(nothing, nothing.astype(np.uint64)).tolist() == []
    assert split(np.arange(3), np.arange(3, dtype=np.uint64), (0, 0, 0)).tolist() == [0, 0, 0]


def test_prompts_that_differ_by_blanks_case_or_width_are_equal():
    asked = ["Hello  World?", "hello world？", " HELLO world? "]
    same = [Record(Origin("f", 1), (Message("user", a), Message("assistant", "b"))) for a in asked]
    assert sorted(map(len, parted(same, (1, 1, 1)).values())) == [0, 0, 3]


def test_a_prompt_with_a_broken_character_has_a_key():
    row = Record(Origin("f", 1), (Message("user", "坏\ud800"), Message("assistant", "b")))
    assert 0 < order_key(42, prompt_key(row)) < 2**64


def test_the_last_question_decides_in_a_conversation():
    turns = (Message("user", "一"), Message("assistant", "甲"))
    rows = [
        Record(Origin("f", i), (*turns, Message("user", f"{i % 20}"), Message("assistant", f"{i}")))
        for i in range(200)
    ]
    parts = parted(rows)
    assert sorted({i % 20 for i in parts["train"]} & {i % 20 for i in parts["test"]}) == []
    assert len(parts["test"]) == 20


def test_rows_of_one_group_stay_together():
    people = [f"人{i % 10}" for i in range(100)]
    parts = parted(records(list(range(100)), person=people), group_by="person")
    assert [len(part) for part in parts.values()] == [80, 10, 10]
    sides = [{people[i] for i in part} for part in parts.values()]
    assert sum(len(side) for side in sides) == 10


def test_passages_are_split_by_what_they_say():
    rows = [Record(Origin("f", i), text=f"诗 {i % 50}") for i in range(100)]
    parts = parted(rows)
    assert [len(part) for part in parts.values()] == [80, 10, 10]


def test_each_part_gets_large_and_small_groups_alike():
    """Dealt by size, the small parts would hold the groups of one row alone."""
    prompts = [f"large {i // 4}" for i in range(800)] + [f"small {i}" for i in range(200)]
    asked = [
        Record(Origin("f", i), (Message("user", p), Message("assistant", f"{i}")))
        for i, p in enumerate(prompts)
    ]
    for part in parted(asked).values():
        share = sum(prompts[i].startswith("small") for i in part) / len(part)
        assert 0.1 < share < 0.35

"""Precision on real files: what is changed and seen, counted; a rise would be a false alarm."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from weitiao.records.cleaning import Cleaner
from weitiao.records.options import CleanOptions
from weitiao.records.record import Message, Origin, Record

# File → flag → how many rows were seen to be such, read by eye.
SEEN = {
    "alpaca_zh.json": {"refusal": 27, "language_mix": 8, "unfinished": 3, "unbalanced_quotes": 2},
    "alpaca_en_demo.json": {
        "refusal": 18, "unfinished": 4, "unbalanced_quotes": 1, "private_email": 2,
    },
    "tang_quatrains.jsonl": {},
    "tang_poems_corpus.jsonl": {},
    "medical_qa_gbk.csv": {"unfinished": 27, "unbalanced_quotes": 6, "repeats_prompt": 2},
}  # fmt: skip


def records(path: Path) -> Iterator[Record]:
    if path.suffix == ".csv":
        with path.open(encoding="gb18030", errors="replace", newline="") as lines:
            for row in csv.DictReader(lines):
                yield conversation(row["ask"], row["answer"] or "")
        return
    text = path.read_text("utf-8")
    rows = json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
    for row in rows:
        if "text" in row:
            yield Record(Origin(path.name, 1), text=row["text"])
        else:
            asked = "\n".join(part for part in (row["instruction"], row.get("input")) if part)
            yield conversation(asked, row["output"])


def conversation(asked: str, answer: str) -> Record:
    return Record(Origin("f", 1), (Message("user", asked), Message("assistant", answer)))


@pytest.mark.parametrize("name", SEEN)
def test_what_is_seen(shared: Path, name: str) -> None:
    cleaner, steps, flags = Cleaner(CleanOptions()), Counter[str](), Counter[str]()
    for record in records(shared / "data" / name):
        cleaned = cleaner(record)
        steps.update(change.step for change in cleaned.changes)
        flags.update(found.flag for found in cleaned.flags)
    assert flags == SEEN[name]
    assert set(steps) <= {"normalise"}  # in particular no mojibake
    if name.startswith("tang"):
        assert not steps

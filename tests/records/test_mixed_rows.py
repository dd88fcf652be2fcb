"""Conversations and passages in one run: each is trained by what it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from weitiao import api
from weitiao.events import EventLog
from weitiao.records.options import DataOptions, SimilarOptions
from weitiao.records.prepare import load_records, load_samples, prepare
from weitiao.records.record import Record
from weitiao.records.render import ChatFormat, Sample

ALIKE = SimilarOptions(near="ignore", leakage=False)
POEM = "床前明月光，疑是地上霜。举头望明月，低头思故乡。"


def conversation(i: int) -> dict[str, Any]:
    turns = [("user", f"第 {i} 问"), ("assistant", f"答案 {i}")]
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def passage(i: int) -> dict[str, Any]:
    return {"text": f"第 {i} 段。" + POEM * (1 + i % 4)}


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)) + b"\n")
    return path


def by_turns(folder: Path) -> tuple[Path, DataOptions]:
    rows = [passage(i) if i % 2 else conversation(i) for i in range(40)]
    return write(folder / "both.jsonl", rows), DataOptions(similar=ALIKE, max_tokens=64)


def two_files(folder: Path) -> tuple[Path, DataOptions]:
    write(folder / "data/a.jsonl", [conversation(i) for i in range(20)])
    write(folder / "data/b.jsonl", [passage(i) for i in range(20)])
    return folder / "data", DataOptions(similar=ALIKE, max_tokens=64)


def mixed_in(folder: Path) -> tuple[Path, DataOptions]:
    own = write(folder / "own.jsonl", [conversation(i) for i in range(40)])
    general = write(folder / "general.jsonl", [passage(i) for i in range(40)])
    return own, DataOptions(similar=ALIKE, max_tokens=64, mix={str(general): 0.25})


def scored_by_kind(chat: ChatFormat, records: list[Record], samples: list[Sample]) -> set[str]:
    """Check what is scored of each sample, and return the kinds of rows there were."""
    kinds = set()
    for sample in samples:
        record = records[sample.row]
        if record.text is not None:
            kinds.add("passage")
            assert sample.scored.tolist() == [False] + [True] * (len(sample.ids) - 1)
        else:
            kinds.add("conversation")
            said = chat.tokenizer.decode(sample.ids[sample.scored])  # type: ignore[attr-defined]
            assert said == record.answer + "<|im_end|>"
    return kinds


@pytest.mark.parametrize("made", [by_turns, two_files, mixed_in])
def test_answers_and_whole_passages_are_scored_in_one_run(tmp_path, letters, made):
    path, options = made(tmp_path)
    report = prepare(path, tmp_path / "out", options, letters, EventLog())
    tokens = scored = 0
    for part in ("train", "val", "test"):
        records = load_records(tmp_path / f"out/{part}.jsonl")
        samples = load_samples(records, letters, options)
        kinds = scored_by_kind(letters, records, samples)
        assert kinds >= ({"passage", "conversation"} if part == "train" else set())
        whole = "".join(r.text for r in records if r.text is not None)
        windows = [s for s in samples if records[s.row].text is not None]
        ids = [i for s in windows for i in s.ids.tolist()]
        assert letters.tokenizer.decode(ids).replace("<|im_end|>", "") == whole
        tokens += sum(len(s.ids) for s in samples)
        scored += sum(int(s.scored.sum()) for s in samples)
    assert (report.tokens, report.scored_tokens) == (tokens, scored)
    assert report.samples > report.kept == sum(report.split.values())


def test_the_plan_and_the_look_at_rows_take_both(tmp_path):
    path, _ = by_turns(tmp_path)
    recipe = api.recipe_for(path, overrides=["data.similar.near=ignore"])
    run = api.start(recipe, tmp_path / "run")
    report = api.split(run)
    rows = api.kept_rows(run)
    assert {row.text is None for row in rows} == {True, False}
    for number in (1, 2):
        (shown,) = api.show(rows, recipe, number)
        scored = [is_scored for _, is_scored in shown.tokens]
        said = "".join(text for text, is_scored in shown.tokens if is_scored)
        if rows[number - 1].text is None:
            assert said == rows[number - 1].answer + "<|im_end|>"
        else:
            assert scored == [False] + [True] * (len(scored) - 1)
    settled = api.plan(run)
    assert settled.fits
    assert settled.rows == report.split["train"] == 32

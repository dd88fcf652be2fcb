"""What all rows together decide: near duplicates, families, reviews, balance and mix."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from weitiao.errors import DataError
from weitiao.events import EventLog
from weitiao.records.options import BalanceOptions, DataOptions, ReviewOptions, SimilarOptions
from weitiao.records.prepare import Checked, check, prepare
from weitiao.records.record import Lineage, Message, Origin, Record
from weitiao.records.review import Vote, find_votes
from weitiao.records.review.edits import edit_of

SILENT = EventLog()
HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]


def write(path: Path, rows: list[Any]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def words(rng: random.Random, length: int) -> str:
    return "".join(rng.choices(HAN, k=length))


def changed(rng: random.Random, text: str) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(HAN) + text[place + 1 :]


def planted(seed: int = 0) -> list[dict[str, str]]:
    """Rows of which some are near duplicates of earlier ones, by prompt, answer or both."""
    rng = random.Random(seed)
    rows = [{"prompt": words(rng, 60), "response": words(rng, 80)} for _ in range(120)]
    for i, row in enumerate(rows[:60]):
        twin = {"prompt": words(rng, 60), "response": words(rng, 80)}
        for side in (("prompt",), ("response",), ("prompt", "response"))[i % 3]:
            twin[side] = changed(rng, row[side])
        rows.append(twin)
    return rows


def part_of(checked: Checked) -> dict[int, str]:
    return {
        checked.records[i].origin.line: name for name, rows in checked.split.items() for i in rows
    }


def test_near_duplicates_never_stand_on_both_sides(tmp_path, letters):
    path = write(tmp_path / "a.jsonl", planted())
    part = part_of(check(path, DataOptions(split=(6, 2, 2)), letters, SILENT))
    pairs = [(i + 1, i + 121) for i in range(60)]
    assert all(part[one] == part[other] for one, other in pairs)
    assert set(part.values()) == {"train", "val", "test"}
    apart = DataOptions(split=(6, 2, 2), similar=SimilarOptions(leakage=False))
    checked = check(path, apart, letters, SILENT)
    part = part_of(checked)
    leaking = {
        row
        for pair in pairs
        for row in pair
        if part[row] != "train" and "train" in {part[other] for other in pair}
    }
    assert leaking
    assert checked.report.similar is not None
    assert checked.report.similar.leaks == len(leaking)


@pytest.mark.parametrize(("compare", "lost"), [("prompt", 40), ("answer", 40), ("both", 20)])
def test_near_duplicates_are_reported_or_rejected(tmp_path, letters, compare, lost):
    path = write(tmp_path / "a.jsonl", planted())
    found = check(path, DataOptions(similar=SimilarOptions(compare=compare)), letters, SILENT)
    similar = found.report.similar
    assert found.report.kept == 180
    assert similar is not None
    assert (similar.clusters, similar.rows) == (lost, 2 * lost)
    assert all(cluster.similarity >= 0.85 for cluster in similar.examples)
    rejecting = DataOptions(similar=SimilarOptions(compare=compare, near="reject"))
    checked = check(path, rejecting, letters, SILENT)
    assert checked.report.reasons == {"near_duplicate": lost}
    assert {row.origin.line > 120 for row in checked.rejected} == {True}
    first = checked.rejected[0]
    assert first.reason.values["line"] == first.origin.line - 120
    assert first.row["messages"][1]["content"] == planted()[first.origin.line - 1]["response"]
    newest = SimilarOptions(compare=compare, near="reject", keep_rule="newest")
    kept = check(path, DataOptions(similar=newest), letters, SILENT)
    assert {row.origin.line <= 120 for row in kept.rejected} == {True}


def test_contradictions_are_listed(tmp_path, letters):
    rows = [{"prompt": f"第{i}问", "response": f"第{i}答"} for i in range(20)]
    rows += [
        {"prompt": "第 3 问", "response": "另一个答案"},
        {"prompt": "第4问", "response": "第 4 答"},
    ]
    report = check(write(tmp_path / "a.jsonl", rows), DataOptions(), letters, SILENT).report
    assert report.similar is not None
    assert report.similar.contradicting == 1
    shown = report.similar.contradictions[0].rows
    assert [(place.line, place.text) for place in shown] == [(4, "第3答"), (21, "另一个答案")]


def test_grown_rows_stay_with_their_parents_and_can_be_dropped(tmp_path, letters):
    rng = random.Random(1)
    rows = []
    for i in range(40):
        parent = Record(
            Origin("a", i + 1),
            (Message("user", words(rng, 20)), Message("assistant", words(rng, 20))),
        )
        child = Record(
            parent.origin, (Message("user", words(rng, 20)), parent.messages[1])
        ).with_lineage(Lineage(parent=parent.id, method="paraphrase"))
        rows += [parent.to_json(), child.to_json()]
    path = write(tmp_path / "a.jsonl", rows)
    checked = check(path, DataOptions(split=(6, 2, 2)), letters, SILENT)
    part = part_of(checked)
    assert all(part[line] == part[line + 1] for line in range(1, 80, 2))
    assert len(set(part.values())) == 3
    assert checked.report.grown == {"paraphrase": 40}
    dropped = check(path, DataOptions(grown="drop"), letters, SILENT)
    assert dropped.report.reasons == {"grown_dropped": 40}
    assert {record.origin.line % 2 for record in dropped.records} == {1}


def test_siblings_without_their_parent_stay_together(tmp_path, letters):
    rng = random.Random(2)
    rows = []
    for i in range(60):
        turns = (Message("user", words(rng, 20)), Message("assistant", words(rng, 20)))
        record = Record(Origin("a", i + 1), turns)
        parent = f"{i // 3:032x}"
        rows.append(record.with_lineage(Lineage(parent=parent, method="synonyms")).to_json())
    path = write(tmp_path / "a.jsonl", rows)
    part = part_of(check(path, DataOptions(split=(6, 2, 2)), letters, SILENT))
    assert all(len({part[i], part[i + 1], part[i + 2]}) == 1 for i in range(1, 60, 3))


def test_what_reviewers_decided_is_done(tmp_path, letters):
    rows = [{"prompt": f"问题 {i}", "response": f"回答 {i}"} for i in range(12)]
    path = write(tmp_path / "a.jsonl", rows)
    records = check(path, DataOptions(), letters, SILENT).records
    votes = find_votes(path, ReviewOptions())
    votes.add(
        Vote(records[0].id, "甲", "accept", 1.0),
        Vote(records[1].id, "甲", "reject", 2.0),
        Vote(records[2].id, "甲", "edit", 3.0, edit_of(records[2], "改过的回答")),
        Vote(records[3].id, "甲", "accept", 4.0),
        Vote(records[3].id, "乙", "reject", 5.0),
    )
    checked = check(path, DataOptions(), letters, SILENT)
    assert {(r.reason.name, r.origin.line) for r in checked.rejected} == {
        ("review_rejected", 2),
        ("review_held_back", 4),
    }
    assert checked.records[1].answer == "改过的回答"
    people = checked.report.people
    assert people is not None
    assert (people.accepted, people.edited, people.rejected, people.held_back) == (1, 1, 1, 1)
    assert people.reviewers == {"甲": 4, "乙": 1}
    assert people.kappa == (("乙", "甲", 0.0, 1),)
    required = DataOptions(review=ReviewOptions(required=True))
    assert check(path, required, letters, SILENT).report.reasons["review_missing"] == 8


def test_drafts_wait_for_review(tmp_path, letters):
    turns = (Message("user", "草稿的问题"), Message("assistant", "草稿的回答"))
    draft = Record(Origin("a", 1), turns).with_lineage(Lineage("p", "draft", draft=True))
    plain = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "答"}]}
        for q in "甲乙丙丁戊己庚辛壬"
    ]
    path = write(tmp_path / "a.jsonl", [draft.to_json(), *plain])
    assert check(path, DataOptions(), letters, SILENT).report.reasons == {"draft_unreviewed": 1}
    find_votes(path, ReviewOptions()).add(Vote(draft.id, "甲", "accept", 1.0))
    checked = check(path, DataOptions(), letters, SILENT)
    assert checked.report.kept == 10
    assert checked.records[0].lineage.reviewers == ("甲",)
    assert not checked.records[0].lineage.draft


def test_balance_caps_and_repeats_training_rows_alone(tmp_path, letters):
    rng = random.Random(3)
    rows = [
        {"prompt": words(rng, 12), "response": words(rng, 12), "kind": "甲" if i % 5 else "乙"}
        for i in range(100)
    ]
    path = write(tmp_path / "a.jsonl", rows)
    balance = BalanceOptions(by="kind", cap=30, weights={"乙": 2})
    out = tmp_path / "out"
    report = prepare(path, out, DataOptions(balance=balance), letters, SILENT)
    train = [json.loads(line)["metadata"]["kind"] for line in (out / "train.jsonl").open("rb")]
    before = {line.value: line.before for line in report.balance}
    assert Counter(train) == {"甲": 30, "乙": 2 * before["乙"]}
    assert report.reasons == {"balanced_away": before["甲"] - 30}
    assert report.split == {"train": 30 + before["乙"], "val": 10, "test": 10}
    assert report.kept == 20 + 30 + before["乙"]
    assert len((out / "kept.jsonl").read_bytes().splitlines()) == report.kept


def test_mix_gives_its_share_and_only_to_training(tmp_path, letters):
    rng = random.Random(4)
    own = [{"prompt": words(rng, 60), "response": words(rng, 60)} for _ in range(100)]
    general = [{"instruction": words(rng, 60), "output": words(rng, 60)} for _ in range(50)]
    # One of the general rows gives a held-out row away, whichever part that is in.
    twins = [{"instruction": changed(rng, row["prompt"]), "output": "别的"} for row in own]
    path = write(tmp_path / "own.jsonl", own)
    mixed = write(tmp_path / "general.jsonl", general + twins)
    options = DataOptions(mix={str(mixed): 0.2})
    checked = check(path, options, letters, SILENT)
    train = [checked.records[i] for i in checked.split["train"]]
    held_out = [checked.records[i] for part in ("val", "test") for i in checked.split[part]]
    assert Counter(record.origin.file for record in train) == {"own.jsonl": 80, "general.jsonl": 20}
    assert {record.origin.file for record in held_out} == {"own.jsonl"}
    lines = {record.origin.line for record in held_out}
    drawn = {record.origin.line - 50 for record in train if record.origin.file == "general.jsonl"}
    assert not lines & drawn
    assert checked.report.reasons == {"mix_leaks": 20, "mix_not_drawn": 110}
    assert checked.report.rows == 250
    with pytest.raises(DataError, match=r"1\.2"):
        check(path, DataOptions(mix={str(mixed): 0.6, str(path): 0.6}), letters, SILENT)


def test_a_row_of_the_task_never_makes_way_for_one_of_mix(tmp_path, letters):
    rng = random.Random(5)
    own = [{"prompt": words(rng, 60), "response": words(rng, 60)} for _ in range(40)]
    longer = [{"prompt": row["prompt"], "response": row["response"] + "啊"} for row in own]
    general = [{"prompt": words(rng, 60), "response": words(rng, 60)} for _ in range(60)]
    path, mixed = write(tmp_path / "own.jsonl", own), write(tmp_path / "m.jsonl", longer + general)
    similar = SimilarOptions(near="reject", keep_rule="longest")
    checked = check(path, DataOptions(similar=similar, mix={str(mixed): 0.2}), letters, SILENT)
    kept = Counter(record.origin.file for record in checked.records)
    assert kept["own.jsonl"] == 40
    assert checked.report.reasons["near_duplicate"] == 40


def test_rows_that_are_refused_leak_nothing(tmp_path, letters):
    path = write(tmp_path / "a.jsonl", planted())
    similar = SimilarOptions(near="reject", compare="prompt", leakage=False)
    report = check(path, DataOptions(similar=similar, split=(6, 2, 2)), letters, SILENT).report
    rejected = SimilarOptions(near="reject", compare="answer", leakage=False)
    other = check(path, DataOptions(similar=rejected, split=(6, 2, 2)), letters, SILENT).report
    assert report.similar is not None
    assert other.similar is not None
    # Of each pair that is near by what was compared one row is left; the others may leak.
    assert report.similar.leaks <= 20
    assert other.similar.leaks <= 20

"""Label Studio: what goes there, and what its export says, in the form of its version 1.x."""

import copy
import json
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest
from review_rows import row

from weitiao.errors import DataError
from weitiao.records.record import Message, Origin, Record
from weitiao.records.review import Votes, apply, decide
from weitiao.records.review.label_studio import export_tasks, labelling_page, read_export
from weitiao.words import set_language

ROWS = [
    row("泡几分钟？", "三分钟", 1),
    row("水温多少？", "八十度\r\n", 2),
    row("什么时候采？", "春天", 3),
    Record(Origin("a.txt", 9), text="茶者，南方之嘉木也。"),
    Record(
        Origin("b.jsonl", 4),
        (
            Message("system", "你懂茶。"),
            Message("user", "在吗？"),
            Message("assistant", "在。", False, metadata={"name": "小茶"}),
            Message("user", '<好>&"茶"\ud800'),
            Message("assistant", "龙井。", tool_calls=({"function": {"name": "f"}},)),
        ),
    ),
]
WHEN = "2026-03-09T22:16:08.728353Z"


def exported(tmp_path: Path, rows: list[Record] = ROWS) -> list[dict]:
    path = tmp_path / "tasks.json"
    assert export_tasks(rows, path) == len(rows)
    return json.loads(path.read_text("utf-8"))


def annotate(task: dict, verdict: str | None, who: object, answer: str | None = None, **more):
    """Add an annotation as the server exports it after somebody pressed Submit."""
    results = copy.deepcopy(task["predictions"][0]["result"])
    for result in results:
        result["origin"] = "prediction"
        if answer is not None:
            result["value"]["text"] = [answer]
            result["origin"] = "prediction-changed"
    if verdict:
        results.append(
            {
                "value": {"choices": [verdict]}, "id": "Dx_aB91ISN", "from_name": "verdict",
                "to_name": "prompt", "type": "choices", "origin": "manual",
            }
        )  # fmt: skip
    if comment := more.pop("comment", None):
        results.append(
            {
                "value": {"text": [comment]}, "id": "t5sp3TyXPo", "from_name": "comment",
                "to_name": "prompt", "type": "textarea", "origin": "manual",
            }
        )  # fmt: skip
    annotations = task.setdefault("annotations", [])
    annotations.append(
        {
            "id": 1000 + len(annotations), "completed_by": who, "result": results,
            "was_cancelled": False, "ground_truth": False, "created_at": WHEN,
            "updated_at": WHEN, "draft_created_at": None, "lead_time": 4.288, "prediction": {},
            "result_count": 0, "unique_id": "0b1c", "import_id": None, "last_action": None,
            "task": task.get("id"), "project": 83, "updated_by": 1, "parent_prediction": 3,
            "parent_annotation": None, "last_created_by": None, **more,
        }
    )  # fmt: skip


def back(tmp_path: Path, tasks: list[dict]):
    for number, task in enumerate(tasks, start=1):
        task.update(id=number, drafts=[], meta={}, inner_id=number, total_annotations=1)
        task.setdefault("annotations", [])
    path = tmp_path / "project-1-at-2026-03-09.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return read_export(path)


def test_there_and_back(tmp_path: Path, votes: Votes) -> None:
    tasks = exported(tmp_path)
    person = {"id": 3, "email": "li@example.com", "first_name": "", "last_name": ""}
    annotate(tasks[0], "accept", 1)
    annotate(tasks[0], "accept", person)
    annotate(tasks[1], "edit", person, "九十度")
    annotate(tasks[2], "reject", person, "改了也不行", comment="答非所问")
    annotate(tasks[3], "accept", person, "茶者，南方之嘉木。")
    annotate(tasks[4], "edit", person)
    found = back(tmp_path, tasks)
    assert (found.cancelled, found.unusable, found.foreign) == (0, 0, 0)
    said = {(v.row, v.reviewer): v for v in found.votes}
    assert said[ROWS[0].id, "Label Studio 1"].verdict == "accept"
    assert said[ROWS[0].id, "li@example.com"].verdict == "accept"
    assert said[ROWS[2].id, "li@example.com"].comment == "答非所问"
    assert said[ROWS[2].id, "li@example.com"].edited is None
    assert said[ROWS[4].id, "li@example.com"].verdict == "accept", "an edit without a change"
    assert {v.time for v in found.votes} == {
        datetime(2026, 3, 9, 22, 16, 8, 728353, UTC).timestamp()
    }
    votes.add(*votes.newer(found.votes))
    assert votes.newer(found.votes) == [], "to import the same export again adds nothing"
    became = [apply(record, decide(votes[record.id], 0.6)) for record in ROWS]
    assert became[1].answer == "九十度"
    assert became[2].name == "review_rejected"
    assert became[3].text == "茶者，南方之嘉木。", "a changed text is an edit whatever was pressed"
    assert became[4].messages == ROWS[4].messages
    assert became[0].lineage.reviewers == ("Label Studio 1", "li@example.com")


def test_an_edit_keeps_the_other_turns(tmp_path: Path) -> None:
    tasks = exported(tmp_path)
    annotate(tasks[4], "edit", 1, "毛尖。")
    (vote,) = back(tmp_path, tasks).votes
    assert vote.edited[:-1] == ROWS[4].messages[:-1]
    assert vote.edited[-1].content == "毛尖。"
    assert vote.edited[-1].tool_calls == ROWS[4].messages[-1].tool_calls


def test_what_is_no_vote_is_counted(tmp_path: Path) -> None:
    tasks = exported(tmp_path)
    annotate(tasks[0], "accept", 1, was_cancelled=True)
    annotate(tasks[0], None, 1)
    annotate(tasks[1], "accept", None)
    annotate(tasks[1], "great", 1)
    annotate(tasks[1], "accept", 1, created_at=None, updated_at=None)
    annotate(tasks[2], "通过", 1)  # the word on the page, where the alias was taken out
    tasks[3]["annotations"] = [None, {"result": 5, "completed_by": 1}]
    foreign = {"data": {"text": "别的任务"}, "annotations": []}
    annotate(tasks[4], "accept", 1)
    tasks[4]["data"]["row"]["messages"][0]["content"] = "有人改过"
    found = back(tmp_path, [*tasks, foreign])
    assert [v.row for v in found.votes] == [ROWS[2].id]
    assert (found.cancelled, found.unusable, found.foreign) == (1, 6, 2)


def test_votes_come_in_the_order_of_time(tmp_path: Path) -> None:
    tasks = exported(tmp_path)
    annotate(tasks[0], "reject", 1, updated_at="2026-03-10T00:00:00Z")
    annotate(tasks[0], "accept", 1)
    assert [v.verdict for v in back(tmp_path, tasks).votes] == ["accept", "reject"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff{", "not a JSON export"),
        (b'{"a": 1}', "not a JSON export"),
        (b"[1]", "not a JSON export"),
        (b"[" * 100_000, "not a JSON export"),
        (b'[{"id": 1, "verdict": "accept", "annotator": 1, "annotation_id": 3}]', "JSON-MIN"),
        (b'[{"data": {"text": "x"}, "annotations": []}]', "no task that weitiao exported"),
        (b'[{"data": {"id": "x", "row": []}, "annotations": []}]', "no task that weitiao exported"),
        (b"[]", "no task that weitiao exported"),
    ],
)
def test_another_file(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "export.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_export(path)
    with pytest.raises(DataError):
        read_export(tmp_path / "nowhere.json")


def test_what_people_see_there(tmp_path: Path) -> None:
    tasks = exported(tmp_path)
    assert tasks[0]["data"]["prompt"] == "泡几分钟？"
    assert tasks[0]["data"]["answer"] == "三分钟"
    assert tasks[0]["predictions"][0]["result"][0]["value"] == {"text": ["三分钟"]}
    assert tasks[4]["data"]["system"] == "你懂茶。"
    assert tasks[4]["data"]["prompt"].startswith("user: 在吗？\n\nassistant: 在。\n\nuser: <好>")
    assert tasks[3]["data"]["prompt"] == ""
    assert exported(tmp_path, []) == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_names_what_the_tasks_hold(tmp_path: Path, language) -> None:
    set_language(language)
    try:
        page = ET.fromstring(labelling_page())
    finally:
        set_language("en")
    (task, *_) = exported(tmp_path)
    names = {element.get("name") for element in page.iter() if element.get("name")}
    shown = {e.get("value").removeprefix("$") for e in page.iter("Text")}
    assert shown <= set(task["data"])
    for control in ("Choices", "TextArea"):
        assert {e.get("toName") for e in page.iter(control)} <= names
    for result in task["predictions"][0]["result"]:
        assert {result["from_name"], result["to_name"]} <= names
    assert [e.get("alias") for e in page.iter("Choice")] == ["accept", "edit", "reject"]

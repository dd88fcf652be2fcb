"""Exports of Label Studio, Argilla and Prodigy."""

from typing import Any

import pytest

from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.shaping import detect_shape, to_record

ORIGIN = Origin("file", 1)


def read(row: dict[str, Any], columns: dict[str, str] | None = None) -> Record | Reason:
    return to_record(row, detect_shape([row], columns), ORIGIN)


def record_of(row: dict[str, Any]) -> Record:
    found = read(row)
    assert isinstance(found, Record), found
    return found


def said(question: str, answer: str) -> tuple[Message, ...]:
    return (Message("user", question), Message("assistant", answer))


def text_area(name: str, *texts: str) -> dict[str, Any]:
    return {
        "id": "x",
        "from_name": name,
        "to_name": "q",
        "type": "textarea",
        "origin": "manual",
        "value": {"text": list(texts)},
    }


def annotation(by: Any, *results: dict[str, Any], cancelled: bool = False) -> dict[str, Any]:
    return {
        "id": 1,
        "completed_by": by,
        "was_cancelled": cancelled,
        "ground_truth": False,
        "result": list(results),
    }


def task(data: dict[str, Any], *annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": 7,
        "data": data,
        "annotations": list(annotations),
        "predictions": [],
        "project": 1,
    }


RATING = {"from_name": "stars", "to_name": "q", "type": "rating", "value": {"rating": 4}}
REJECT = {"from_name": "ok", "to_name": "q", "type": "choices", "value": {"choices": ["reject"]}}


def test_label_studio():
    person = {"id": 3, "email": "li@example.com", "first_name": "", "last_name": ""}
    found = record_of(
        task(
            {"text": "问", "topic": "t"},
            annotation(person, text_area("reply", "答"), RATING),
            annotation(5, text_area("reply", "答")),
            annotation(6, text_area("reply", "别的"), cancelled=True),
        )
    )
    assert found.messages == said("问", "答")
    assert found.lineage.reviewers == ("li@example.com", "5")
    rest = {name: value for name, value in found.metadata.items() if name != "weitiao"}
    assert rest == {"id": 7, "topic": "t", "stars": 4}


def test_label_studio_says_its_shape():
    shape = detect_shape([task({"question": "问"}, annotation(1, text_area("answer", "答")))])
    assert (shape.name, shape.columns) == (
        "label_studio",
        {"prompt": "question", "response": "answer"},
    )
    assert shape.describe("en").startswith("read as a Label Studio export: question → user")


def test_an_edited_answer_replaces_the_one_that_was_there():
    data = {"prompt": "问", "answer": "错"}
    edited = task(data, annotation(1, text_area("edited", "对")))
    kept = task(data, annotation(1))
    commented = task(data, annotation(1, text_area("comment", "hm")))
    assert record_of(edited).messages == said("问", "对")
    assert record_of(kept).messages == said("问", "错")
    assert record_of(commented).messages == said("问", "错")
    assert record_of(commented).metadata["comment"] == "hm"


@pytest.mark.parametrize(
    "annotations",
    [[], [annotation(1, text_area("answer", "b"), cancelled=True)], [annotation(1, REJECT)]],
)
def test_what_nobody_accepted(annotations):
    found = read(task({"question": "a", "answer": "b"}, *annotations))
    assert found == Reason("not_accepted", {"tool": "Label Studio"})
    assert "Label Studio" in found.sentence("en") + found.sentence("zh")


def test_reviewers_who_disagree():
    found = read(
        task(
            {"question": "a"},
            annotation("甲", text_area("answer", "b")),
            annotation("乙", text_area("answer", "c")),
        )
    )
    assert found == Reason("annotators_disagree", {"reviewers": "甲, 乙"})
    assert "甲, 乙" in found.sentence("zh")


def answer(value: Any, user: str, status: str | None = "submitted") -> dict[str, Any]:
    return {"value": value, "user_id": user, **({"status": status} if status else {})}


@pytest.mark.parametrize(
    "row",
    [
        {
            "id": "r1",
            "fields": {"question": "问"},
            "metadata": {"topic": "t"},
            "suggestions": {},
            "responses": {
                "reply": [answer("答", "u1"), answer("别的", "u2", "draft")],
                "score": [answer(5, "u1"), answer(1, "u2", "draft")],
            },
            "vectors": {},
        },
        {
            "id": "r1",
            "fields": {"question": "问"},
            "metadata": {"topic": "t"},
            "responses": [
                {
                    "user_id": "u1",
                    "status": "submitted",
                    "values": {"reply": {"value": "答"}, "score": {"value": 5}},
                },
                {"user_id": "u2", "status": "discarded", "values": {"reply": {"value": "别的"}}},
            ],
        },
        {
            "id": "r1",
            "question": "问",
            "topic": "t",
            "_server_id": "s",
            "reply.suggestion": None,
            "reply.responses": ["答", "别的"],
            "reply.responses.users": ["u1", "u2"],
            "reply.responses.status": ["submitted", "draft"],
            "score.responses": [5],
            "score.responses.users": ["u1"],
            "score.responses.status": ["submitted"],
        },
    ],
)
def test_argilla(row):
    assert detect_shape([row]).name == "argilla"
    found = record_of(row)
    assert found.messages == said("问", "答")
    assert found.lineage.reviewers == ("u1",)
    assert {**found.metadata, "weitiao": 0} == {"id": "r1", "topic": "t", "score": 5, "weitiao": 0}


def test_argilla_without_a_status_counts():
    row = {"fields": {"prompt": "a"}, "responses": {"response": [answer("b", "u", None)]}}
    assert record_of(row).messages == said("a", "b")
    found = to_record({**row, "responses": {}}, detect_shape([row]), ORIGIN)
    assert found == Reason("not_accepted", {"tool": "Argilla"})


def prodigy(verdict: str, **fields: Any) -> dict[str, Any]:
    return {**fields, "_input_hash": 1, "_task_hash": 2, "_annotator_id": "li", "answer": verdict}


def test_prodigy():
    found = record_of(prodigy("accept", text="问", user_input="答", meta={"n": 1}))
    assert found.messages == said("问", "答")
    assert found.lineage.reviewers == ("li",)
    assert found.metadata["meta"] == {"n": 1}
    passage = record_of(prodigy("accept", text="一段"))
    assert passage.text == "一段"
    asked = record_of(prodigy("accept", prompt="问", response="答"))
    assert asked.messages == said("问", "答")
    for verdict in ("reject", "ignore"):
        found_not = read(prodigy(verdict, prompt="a", response="b"))
        assert found_not == Reason("not_accepted", {"tool": "Prodigy"})


def test_columns_name_what_stands_inside():
    row = task({"q": "问", "x": "y"}, annotation(1, text_area("r", "答")))
    found = read(row, {"prompt": "q", "response": "r"})
    assert isinstance(found, Record)
    assert found.messages == said("问", "答")


def test_rows_of_another_form_have_a_reason():
    shape = detect_shape([task({"question": "a"}, annotation(1, text_area("answer", "b")))])
    assert to_record({"x": 1}, shape, ORIGIN) == Reason("missing_column", {"column": "data"})
    odd = {"data": {"question": "a"}, "annotations": [3]}
    found = to_record(odd, shape, ORIGIN)
    assert isinstance(found, Reason)
    assert found.name == "wrong_type"

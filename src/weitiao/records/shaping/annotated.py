"""Rows as Label Studio, Argilla and Prodigy export them: what reviewers accepted, and who.

Label Studio's full JSON holds ``data`` and ``annotations``, Argilla's records ``fields`` and
``responses`` (or columns ``QUESTION.responses``), Prodigy's JSONL an ``answer`` that is
accept, reject or ignore.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from weitiao.records.record import Origin, Reason, Record
from weitiao.records.shaping.columns import ANSWERS, Row
from weitiao.records.shaping.turns import UnfitError, wrong_type

Tool = Literal["label_studio", "argilla", "prodigy"]

_TOLD: dict[Tool, str] = {
    "label_studio": "Label Studio",
    "argilla": "Argilla",
    "prodigy": "Prodigy",
}
_EDITS = ("edited", "edit", "edited_answer", "correction", "corrected", "修改", "改正")
"""Fields in which a reviewer writes a better answer than the one that was there."""

_REJECTING = frozenset({"reject", "rejected", "拒绝"})
_VERDICTS = ("accept", "reject", "ignore")
_PRODIGY = ("_input_hash", "_task_hash", "_annotator_id", "_session_id")


@dataclass(slots=True)
class _Annotation:
    """What one reviewer said of a row: question → value."""

    reviewer: str
    accepted: bool = True
    values: dict[str, Any] = field(default_factory=dict)


def tool_of(rows: Sequence[Row]) -> Tool | None:
    """Return the tool that exported the rows, if it exported half of them."""
    marks: dict[Tool, Callable[[Row], bool]] = {
        "label_studio": _is_label_studio,
        "argilla": _is_argilla,
        "prodigy": _is_prodigy,
    }
    for tool, is_of in marks.items():
        if rows and 2 * sum(map(is_of, rows)) >= len(rows):
            return tool
    return None


def unfold(rows: Sequence[Row], tool: Tool) -> tuple[list[Row], list[str]]:
    """Return the rows inside, accepted or not, and the columns of reviewers' answers.

    The likeliest column of answers stands first; there is none where nobody wrote a text.
    """
    inside: list[Row] = []
    answers: Counter[str] = Counter()
    for row in rows:
        try:
            base, annotations = _READERS[tool](row)
        except UnfitError:
            continue
        merged = [_merged(base, annotation) for annotation in annotations] or [base]
        inside += merged
        if given := _answer_of(base):
            answers[given] += len(merged)
        else:
            values = [item for a in annotations for item in a.values.items()]
            answers.update(name for name, value in values if isinstance(value, str))
    likely = [name for name in answers if name.lower() in _EDITS]
    return inside, [*likely, *(name for name, _ in answers.most_common() if name not in likely)]


def accepted_record(
    row: Row, tool: Tool, origin: Origin, read: Callable[[Row, Origin], Record | Reason]
) -> Record | Reason:
    """Return what the reviewers who accepted the row agree on, with their names in its lineage.

    Raises:
        UnfitError: the row is none of the tool's.
    """
    base, annotations = _READERS[tool](row)
    accepted = [annotation for annotation in annotations if annotation.accepted]
    if not accepted:
        return Reason("not_accepted", {"tool": _TOLD[tool]})
    found = [(a.reviewer, read(_merged(base, a), origin)) for a in accepted]
    records = [(name, record) for name, record in found if isinstance(record, Record)]
    if not records:
        return found[0][1]
    first = records[0][1]
    names = tuple(dict.fromkeys(name for name, _ in records if name))
    if any(r.messages != first.messages or r.text != first.text for _, r in records):
        return Reason("annotators_disagree", {"reviewers": ", ".join(names)})
    before = first.lineage
    reviewers = tuple(dict.fromkeys((*before.reviewers, *names)))
    return first.with_lineage(replace(before, reviewers=reviewers, draft=False))


def _answer_of(base: Row) -> str | None:
    names = {name.strip().lower(): name for name in base}
    return next((names[answer] for answer in ANSWERS if answer in names), None)


def _merged(base: Row, annotation: _Annotation) -> Row:
    """Return the row as the reviewer left it: a text of theirs replaces the answer given."""
    merged = {**base, **annotation.values}
    answer = _answer_of(base)
    for name, value in annotation.values.items():
        better = name != answer and name.lower() in (*ANSWERS, *_EDITS)
        if answer and better and isinstance(value, str) and value.strip():
            merged[answer] = merged.pop(name)
    return merged


def _is_label_studio(row: Row) -> bool:
    return isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)


def _label_studio(row: Row) -> tuple[Row, list[_Annotation]]:
    data = _field(row, "data", dict)
    found = []
    for annotation in _dicts(_field(row, "annotations", list), "annotations"):
        said = _Annotation(_person(annotation.get("completed_by")))
        said.accepted = not annotation.get("was_cancelled")
        for result in _dicts(annotation.get("result") or [], "annotations.result"):
            value = _label_studio_value(result)
            if result.get("type") == "choices":
                chosen = value if isinstance(value, list) else [value]
                said.accepted &= not any(str(one).lower() in _REJECTING for one in chosen)
            _add(said.values, str(result.get("from_name")), value)
        found.append(said)
    return {**_id(row), **data}, found


def _label_studio_value(result: Mapping[str, Any]) -> Any:
    value, kind = result.get("value"), result.get("type")
    if not isinstance(value, dict):
        return value
    value = value.get("text" if kind == "textarea" else str(kind), value)
    if kind == "textarea" and isinstance(value, list):
        return "\n".join(map(str, value))
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _add(values: dict[str, Any], name: str, value: Any) -> None:
    if name not in values:
        values[name] = value
    elif isinstance(values[name], str) and isinstance(value, str):
        values[name] += "\n" + value
    else:
        before = values[name] if isinstance(values[name], list) else [values[name]]
        values[name] = [*before, value]


def _is_argilla(row: Row) -> bool:
    nested = isinstance(row.get("fields"), dict) and isinstance(row.get("responses"), (dict, list))
    return nested or any(name.endswith(".responses") and f"{name}.users" in row for name in row)


def _argilla(row: Row) -> tuple[Row, list[_Annotation]]:
    if "fields" not in row:
        return _argilla_flat(row)
    base = {**_id(row), **_field(row, "fields", dict)}
    if row.get("metadata"):
        base["metadata"] = row["metadata"]
    people: dict[str, _Annotation] = {}
    responses = _field(row, "responses", (dict, list))
    if isinstance(responses, dict):
        for question, given in responses.items():
            for answer in _dicts(given or [], f"responses.{question}"):
                _answer(people, question, answer.get("value"), answer)
    else:
        for given in _dicts(responses, "responses"):
            for question, answer in _field(given, "values", dict).items():
                value = answer.get("value") if isinstance(answer, dict) else answer
                _answer(people, question, value, given)
    return base, list(people.values())


def _argilla_flat(row: Row) -> tuple[Row, list[_Annotation]]:
    base = {
        name: value
        for name, value in row.items()
        if ".responses" not in name and ".suggestion" not in name and not name.startswith("_")
    }
    people: dict[str, _Annotation] = {}
    for name in row:
        if not name.endswith(".responses"):
            continue
        values, users, status = (
            _field({name: row.get(column) or []}, name, list)
            for column in (name, f"{name}.users", f"{name}.status")
        )
        for i, value in enumerate(values):
            answer = {
                "user_id": users[i] if i < len(users) else None,
                "status": status[i] if i < len(status) else None,
            }
            _answer(people, name.removesuffix(".responses"), value, answer)
    return base, list(people.values())


def _answer(
    people: dict[str, _Annotation], question: str, value: Any, answer: Mapping[str, Any]
) -> None:
    """Note one person's answer. Argilla's newer exports leave its status out."""
    name = _person(answer.get("user_id"))
    said = people.setdefault(name, _Annotation(name))
    said.accepted &= answer.get("status") in (None, "submitted")
    said.values[question] = value


def _is_prodigy(row: Row) -> bool:
    return row.get("answer") in _VERDICTS and any(name in row for name in _PRODIGY)


def _prodigy(row: Row) -> tuple[Row, list[_Annotation]]:
    base = {name: v for name, v in row.items() if name != "answer" and not name.startswith("_")}
    said = _Annotation(_person(row.get("_annotator_id") or row.get("_session_id")))
    said.accepted = row.get("answer") == "accept"
    if "user_input" in base:
        said.values["user_input"] = base.pop("user_input")
    return base, [said]


_READERS: dict[Tool, Callable[[Row], tuple[Row, list[_Annotation]]]] = {
    "label_studio": _label_studio,
    "argilla": _argilla,
    "prodigy": _prodigy,
}


def _field(row: Row, name: str, kind: Any) -> Any:
    if name not in row:
        raise UnfitError("missing_column", column=name)
    if not isinstance(row[name], kind):
        raise wrong_type(name, row[name])
    return row[name]


def _dicts(values: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise wrong_type(name, values)
    return values


def _id(row: Row) -> dict[str, Any]:
    return {"id": row["id"]} if row.get("id") is not None else {}


def _person(told: Any) -> str:
    """Return a reviewer's name: an address, a name or a number, whatever the tool gives."""
    if not isinstance(told, dict):
        return "" if told is None else str(told)
    full = " ".join(str(told[name]) for name in ("first_name", "last_name") if told.get(name))
    return str(told.get("email") or told.get("username") or full or told.get("id") or "")

"""Label Studio: tasks to import there, the labelling page to paste, and its export as votes.

The forms are those of Label Studio 1.x: "Basic Label Studio JSON format" with predictions
(labelstud.io/guide/predictions) and the export named JSON (labelstud.io/guide/task_format).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from weitiao.errors import DataError
from weitiao.records.files import open_atomic
from weitiao.records.record import Message, Record
from weitiao.records.review.edits import answer_of, edit_of
from weitiao.records.review.votes import VERDICTS, Verdict, Vote
from weitiao.words import LANGUAGES, say

_CONFIG = """<View>
  <Header size="5" value={system}/>
  <Text name="system" value="$system"/>
  <Header size="5" value={prompt}/>
  <Text name="prompt" value="$prompt"/>
  <Header size="5" value={answer}/>
  <TextArea name="answer" toName="prompt" editable="true" maxSubmissions="1" rows="8"/>
  <Choices name="verdict" toName="prompt" choice="single" showInline="true" required="true">
    <Choice value={accept} alias="accept" hotkey="a"/>
    <Choice value={edit} alias="edit" hotkey="e"/>
    <Choice value={reject} alias="reject" hotkey="r"/>
  </Choices>
  <TextArea name="comment" toName="prompt" maxSubmissions="1" rows="2" placeholder={comment}/>
</View>
"""


@dataclass(frozen=True, slots=True)
class Imported:
    """Votes in the order in which they were given, and what gave none.

    ``cancelled`` annotations were skipped by their reviewer, ``unusable`` ones hold no
    verdict or no name; ``foreign`` tasks are none that were exported from here.
    """

    votes: tuple[Vote, ...]
    cancelled: int
    unusable: int
    foreign: int


def labelling_page() -> str:
    """Return the XML that goes into the project's labelling settings, in the language spoken."""
    return _CONFIG.format(
        system=quoteattr(say("label_studio.system")),
        prompt=quoteattr(say("label_studio.prompt")),
        answer=quoteattr(say("label_studio.answer")),
        accept=quoteattr(say("label_studio.accept")),
        edit=quoteattr(say("label_studio.edit")),
        reject=quoteattr(say("label_studio.reject")),
        comment=quoteattr(say("label_studio.comment")),
    )


def export_tasks(records: Iterable[Record], path: Path) -> int:
    """Write the records as a JSON file of tasks, and return how many they are.

    Each task holds the whole row as well, so that an import needs nothing but the export.

    Raises:
        RunError: the file cannot be written.
    """
    count = 0
    with open_atomic(path) as out:
        for record in records:
            # Escaped throughout: a row may hold what is no valid UTF-8.
            out.write((b",\n" if count else b"[\n") + json.dumps(_task(record)).encode())
            count += 1
        out.write(b"\n]\n" if count else b"[]\n")
    return count


def _task(record: Record) -> dict[str, Any]:
    row = record.to_json()
    data = {
        "id": record.id,
        "system": "\n".join(m.content for m in record.messages if m.role == "system"),
        "prompt": _dialogue([m for m in record.prompt if m.role != "system"]),
        "answer": answer_of(record),
        "place": say("report.place", file=record.origin.file, line=record.origin.line),
        "row": {name: row[name] for name in ("messages", "text") if name in row},
    }
    answer = {
        "id": "answer",
        "from_name": "answer",
        "to_name": "prompt",
        "type": "textarea",
        "value": {"text": [data["answer"]]},
    }
    return {"data": data, "predictions": [{"model_version": "weitiao", "result": [answer]}]}


def _dialogue(turns: list[Message]) -> str:
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{say(f'role.{turn.role}')}: {_said(turn)}" for turn in turns)


def _said(turn: Message) -> str:
    calls = [json.dumps(dict(call), ensure_ascii=False) for call in turn.tool_calls]
    return "\n".join(filter(None, (turn.content, *calls)))


def read_export(path: Path) -> Imported:
    """Return the votes in an export of the kind JSON of tasks that :func:`export_tasks` wrote.

    A changed answer is an edit even if its reviewer pressed accept, and an edit that
    changes nothing is an acceptance.

    Raises:
        DataError: the file cannot be read, or it is no such export.
    """
    votes: list[Vote] = []
    cancelled = unusable = foreign = 0
    tasks = _tasks(path)
    for task in tasks:
        record = _record(task)
        if record is None:
            foreign += 1
            continue
        for annotation in task["annotations"]:
            if isinstance(annotation, dict) and annotation.get("was_cancelled"):
                cancelled += 1
            elif vote := _vote(annotation, record):
                votes.append(vote)
            else:
                unusable += 1
    if foreign == len(tasks):
        raise DataError("error.label_studio_foreign", path=path)
    return Imported(tuple(sorted(votes, key=_time)), cancelled, unusable, foreign)


def _tasks(path: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(path.read_bytes())
    except OSError as error:
        cause = error.strerror or str(error)
        raise DataError("error.file_unreadable", path=path, cause=cause) from error
    except (ValueError, RecursionError) as error:
        raise DataError("error.label_studio_unreadable", path=path) from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError("error.label_studio_unreadable", path=path)
    if not all(isinstance(task.get("annotations"), list) for task in tasks):
        raise DataError("error.label_studio_not_full", path=path)
    return tasks


def _record(task: Mapping[str, Any]) -> Record | None:
    """Return the row that was sent there with the task; None if it was not sent from here."""
    try:
        data = task["data"]
        record = Record.from_json({"origin": {"file": "", "line": 0}, **data["row"]})
        return record if record.id == data["id"] else None
    except (KeyError, TypeError, AttributeError):
        return None


def _vote(annotation: Any, record: Record) -> Vote | None:
    try:
        results = {result["from_name"]: result["value"] for result in annotation["result"]}
        verdict = _verdict(results)
        text = _text(results, "answer")
        reviewer, time = _reviewer(annotation), _time_of(annotation)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        return None
    edited = edit_of(record, text)
    if verdict != "reject":
        verdict = "accept" if edited is None else "edit"
    kept = edited if verdict == "edit" else None
    return Vote(record.id, reviewer, verdict, time, kept, _text(results, "comment"))


def _verdict(results: Mapping[str, Any]) -> Verdict:
    chosen = results["verdict"]["choices"][0]
    for verdict in VERDICTS:
        # The alias; or the word on the page, where somebody took the alias out of it.
        if chosen in (verdict, *(say(f"label_studio.{verdict}", each) for each in LANGUAGES)):
            return verdict
    raise ValueError(chosen)


def _text(results: Mapping[str, Any], name: str) -> str:
    text = results.get(name, {}).get("text", "")
    return "\n".join(text) if isinstance(text, list) else str(text)


def _reviewer(annotation: Mapping[str, Any]) -> str:
    """Return the reviewer's e-mail address, or his number there."""
    who = annotation["completed_by"]
    if isinstance(who, Mapping):
        who = who.get("email") or who.get("username") or who["id"]
    if who is None or isinstance(who, bool):
        raise ValueError(who)
    return f"Label Studio {who}" if isinstance(who, int) else str(who)


def _time_of(annotation: Mapping[str, Any]) -> float:
    said = annotation.get("updated_at") or annotation["created_at"]
    return datetime.fromisoformat(said).timestamp()


def _time(vote: Vote) -> float:
    return vote.time

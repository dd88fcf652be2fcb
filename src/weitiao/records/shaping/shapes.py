"""Which columns of a file are the question, the answer and the rest.

A shape is a description of a kind of file: how it is known by its columns, and how one of
its rows becomes a conversation. Shapes are tried in order, the most specific first; a new
one is a line in ``_FINDERS`` and, if its rows are built differently, one in ``to_record``.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weitiao.errors import DataError
from weitiao.records.reading.files import CONVERSATION_COLUMNS
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.shaping.turns import UnfitError, to_messages, to_tools
from weitiao.words import Language, say

Row = Mapping[str, Any]

QUESTIONS = (
    *("question", "query", "problem", "ask", "prompt", "instruction", "input"),
    *("问题", "提问", "问", "指令", "输入"),
)
"""Names of a column of questions, the likeliest first."""

ANSWERS = (
    *("answer", "response", "output", "target", "targets", "solution", "completion"),
    *("答案", "回答", "回复", "答", "输出"),
)
"""Names of a column of answers, the likeliest first."""

_PREFERENCE = ({"chosen", "rejected"}, {"rejected_response"}, {"rejected_messages"}, {"kto_tag"})
_MEDIA = {f"{name}{s}" for name in ("image", "audio", "video") for s in ("", "s")}
_ROLES = {
    "system": "system",
    "context": "user",
    "prompt": "user",
    "input": "user",
    "history": "turns",
    "messages": "turns",
    "tools": "tools",
    "response": "assistant",
    "text": "passage",
}
"""Target → whose words it becomes, in the order in which they are told to the user."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the rows of a file are read.

    ``columns``: target (a key of ``_ROLES``) → name of the column in this file. All other
    columns become metadata.
    """

    name: str
    columns: Mapping[str, str]

    def describe(self, language: Language | None = None) -> str:
        """Return "read as alpaca: instruction, input → user; output → assistant"."""
        if not self.columns:
            return say("shape.unknown", language)
        by_role: dict[str, list[str]] = {}
        for target, role in _ROLES.items():
            if target in self.columns:
                by_role.setdefault(role, []).append(self.columns[target])
        mapping = say("shape.separator", language).join(
            f"{', '.join(names)} → {say(f'role.{role}', language)}"
            for role, names in by_role.items()
        )
        name = say(f"shape.name.{self.name}", language)
        return say("shape.read_as", language, shape=name, mapping=mapping)


def detect_shape(
    rows: Sequence[Row], columns: Mapping[str, str] | None = None, file: str = ""
) -> Shape:
    """Return the shape of a file by its first rows (a few hundred are enough).

    A column counts as there when half of the rows have it, so that spoilt rows do not
    hide it. ``columns`` (target → column) is taken as given.

    Raises:
        DataError: nothing fits, a named column is not there, or the file holds preferences.
    """
    seen: dict[str, int] = {}
    for row in rows:
        for column in row:
            seen[column] = seen.get(column, 0) + 1
    if columns:
        return _given_shape(columns, list(seen), file)
    present = [column for column, count in seen.items() if 2 * count >= len(rows)]
    if any(marks <= set(present) for marks in _PREFERENCE):
        raise DataError("error.preference_data", file=file)
    # Header names in a spreadsheet come in any case, with blanks around.
    names = {column.strip().lower(): column for column in reversed(present)}
    for find in _FINDERS:
        if found := find(names):
            return found
    texts = [c for c in seen if any(isinstance(row.get(c), str) for row in rows)]
    example = f"{texts[0]},{texts[-1]}" if len(texts) > 1 else "QUESTION,ANSWER"
    shown = ", ".join(list(seen)[:20])
    raise DataError("error.no_shape", file=file, columns=shown, example=example)


def to_record(row: Row, shape: Shape, origin: Origin) -> Record | Reason:
    """Return the row as a record, or why it cannot be one."""
    # Who names the columns has chosen which of the two answers to learn.
    if shape.name != "given" and any(marks <= row.keys() for marks in _PREFERENCE):
        return Reason("preference")
    if media := next((c for c in row if c.strip().lower() in _MEDIA and row[c]), None):
        return Reason("media", {"column": media})
    columns = shape.columns
    try:
        metadata = _metadata(row, set(columns.values()))
        if "text" in columns:
            return Record(origin, text=_text(row, columns["text"]), metadata=metadata)
        turns = _conversation(row, columns) if "messages" in columns else _exchange(row, columns)
        system = _text(row, columns.get("system"), required=False)
        if system.strip() and not any(turn.role == "system" for turn in turns):
            turns = (Message("system", system), *turns)
        tools = columns.get("tools", "")
        return Record(origin, turns, metadata=metadata, tools=to_tools(row.get(tools), tools))
    except UnfitError as unfit:
        return unfit.reason


def _find_conversation(names: Mapping[str, str]) -> Shape | None:
    return _shape("conversation", names, (CONVERSATION_COLUMNS,), ("messages",))


def _find_alpaca(names: Mapping[str, str]) -> Shape | None:
    shape = _shape("alpaca", names, (("instruction",), ("output",)))
    if shape is None:
        return None
    more = {target: names[target] for target in ("input", "history") if target in names}
    return Shape(shape.name, {**shape.columns, **more})


def _find_instruction(names: Mapping[str, str]) -> Shape | None:
    shape = _shape("instruction", names, (("instruction",), ("response",)))
    if shape is None or "context" not in names:
        return shape
    return Shape(shape.name, {**shape.columns, "context": names["context"]})


def _find_exchange(names: Mapping[str, str]) -> Shape | None:
    return _shape("exchange", names, (QUESTIONS, ANSWERS))


def _find_text(names: Mapping[str, str]) -> Shape | None:
    return _shape("text", names, (("text",),), ("text",))


_FINDERS: tuple[Callable[[Mapping[str, str]], Shape | None], ...] = (
    _find_conversation,
    _find_alpaca,
    _find_instruction,
    _find_exchange,
    _find_text,
)


def _shape(
    name: str,
    names: Mapping[str, str],
    aliases: Sequence[Sequence[str]],
    targets: Sequence[str] = ("prompt", "response"),
) -> Shape | None:
    """Return a shape if each target has a column by one of its aliases."""
    columns: dict[str, str] = {}
    for target, known in zip(targets, aliases, strict=True):
        if (alias := next((a for a in known if a in names), None)) is None:
            return None
        columns[target] = names[alias]
    if name != "text":
        columns |= {target: names[target] for target in ("system", "tools") if target in names}
    return Shape(name, columns)


def _given_shape(columns: Mapping[str, str], seen: Sequence[str], file: str) -> Shape:
    for column in columns.values():
        if column not in seen:
            near = difflib.get_close_matches(column, seen, n=1) or seen
            raise DataError("error.column_missing", file=file, column=column, near=", ".join(near))
    return Shape("given", dict(columns))


def _text(row: Row, column: str | None, required: bool = True) -> str:
    """Return a cell as text; null is ''. A column that must be there and is not is a misfit."""
    if column is None or column not in row:
        if required:
            raise UnfitError("missing_column", column=column)
        return ""
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UnfitError("wrong_type", column=column, type=type(value).__name__)
    return value


def _exchange(row: Row, columns: Mapping[str, str]) -> tuple[Message, ...]:
    """Return one question and its answer, after the earlier turns of alpaca's ``history``."""
    parts = (
        _text(row, columns.get("context"), required=False),
        _text(row, columns["prompt"]),
        _text(row, columns.get("input"), required=False),
    )
    question = "\n".join(part for part in parts if part.strip())
    answer = _text(row, columns["response"])
    earlier = _history(row, columns["history"]) if "history" in columns else ()
    return (*earlier, Message("user", question), Message("assistant", answer))


def _history(row: Row, column: str) -> tuple[Message, ...]:
    pairs = row.get(column) or []
    if not isinstance(pairs, list):
        raise UnfitError("wrong_type", column=column, type=type(pairs).__name__)
    turns: list[Message] = []
    for i, pair in enumerate(pairs):
        if not isinstance(pair, list) or [type(text) for text in pair] != [str, str]:
            raise UnfitError("wrong_type", column=f"{column}[{i}]", type=type(pair).__name__)
        turns += [Message("user", pair[0]), Message("assistant", pair[1])]
    return tuple(turns)


def _conversation(row: Row, columns: Mapping[str, str]) -> tuple[Message, ...]:
    column = columns["messages"]
    if column not in row:
        raise UnfitError("missing_column", column=column)
    return to_messages(row[column], column)


def _metadata(row: Row, used: set[str]) -> dict[str, Any]:
    rest = {column: value for column, value in row.items() if column not in used}
    # A row that weitiao itself wrote: this reading gives it a new origin.
    rest.pop("origin", None)
    inner = rest.get("metadata")
    if isinstance(inner, dict):
        del rest["metadata"]
        rest = {**inner, **rest}
    return rest

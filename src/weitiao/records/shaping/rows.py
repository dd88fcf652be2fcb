"""Rows into records, as their file's shape says.

Rows of one file have the same few sets of columns, so what to do with each set is found out
once: what is done for each row is a few look-ups.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from weitiao.records.reading import CONVERSATION_COLUMNS
from weitiao.records.record import Message, Origin, Reason, Record, Role
from weitiao.records.shaping import annotated
from weitiao.records.shaping.columns import (
    LABEL,
    MEDIA,
    OPTIONAL,
    OPTIONAL_OF,
    PREFERENCE,
    Row,
    with_inner_metadata,
)
from weitiao.records.shaping.shapes import Shape
from weitiao.records.shaping.turns import (
    NOTHING,
    UnfitError,
    parsed,
    to_messages,
    to_tools,
    wrong_type,
)

Reader = Callable[[Row, Origin], Record | Reason]

_MOST_PLANS = 256
"""Sets of columns remembered of one file: a file in which every row has its own is not rows."""


def to_record(row: Row, shape: Shape, origin: Origin) -> Record | Reason:
    """Return the row as a record, or why it cannot be one."""
    try:
        if shape.inner is not None:
            tool = cast("annotated.Tool", shape.name)
            return annotated.accepted_record(row, tool, origin, reader_of(shape.inner))
        if shape.name == "weitiao":
            if (record := _ours(row, origin)) is not None:
                return record
            row = {name: value for name, value in row.items() if name != "origin"}
        return _reader(tuple(row), shape)(row, origin)
    except UnfitError as unfit:
        return unfit.reason


def reader_of(shape: Shape) -> Reader:
    """Return :func:`to_record` for rows of one shape, quicker."""
    if shape.inner is not None or shape.name == "weitiao":
        return lambda row, origin: to_record(row, shape, origin)
    readers: dict[tuple[str, ...], Reader] = {}

    def read(row: Row, origin: Origin) -> Record | Reason:
        columns = tuple(row)
        reader = readers.get(columns)
        if reader is None:
            reader = _reader(columns, shape)
            if len(readers) < _MOST_PLANS:
                readers[columns] = reader
        try:
            return reader(row, origin)
        except UnfitError as unfit:
            return unfit.reason

    return read


def _reader(columns: Sequence[str], shape: Shape) -> Reader:
    """Return how rows with these columns are read; the reader raises UnfitError."""
    targets = _targets(columns, shape)
    used = {*targets.values()}
    rest = tuple(column for column in columns if column not in used)
    plan = _Plan(targets, rest, "metadata" in rest, shape.tags)
    read: Reader
    if "text" in targets:
        read = plan.passage
    elif "messages" in targets:
        read = plan.conversation
    elif targets.keys() == {"prompt", "response"} and used <= {*columns}:
        read = plan.short()
    else:
        read = plan.exchange
    guards = _guards(columns, shape, "text" in targets)
    if not guards:
        return read

    def guarded(row: Row, origin: Origin) -> Record | Reason:
        refused = next((reason for guard in guards if (reason := guard(row))), None)
        return refused or read(row, origin)

    return guarded


def _targets(columns: Sequence[str], shape: Shape) -> dict[str, str]:
    """Return target → column for rows with these columns."""
    targets = {**shape.columns}
    here = set(columns)
    if shape.name in OPTIONAL_OF or shape.name == "text":
        # Passages may stand among conversations, and conversations among passages.
        turns = next((column for column in CONVERSATION_COLUMNS if column in here), None)
        if "messages" in targets and "text" in here and targets["messages"] not in here:
            return {"text": "text"}
        if "text" in targets and targets["text"] not in here and turns:
            targets = {"messages": turns}
    known = () if "text" in targets else OPTIONAL_OF.get(_family(shape, targets), ())
    for target in known:
        found = next((name for name in OPTIONAL[target] if name in here), None)
        if target not in targets and found and found not in targets.values():
            targets[target] = found
    return targets


def _family(shape: Shape, targets: Mapping[str, str]) -> str:
    return "conversation" if "messages" in targets else shape.name


def _guards(
    columns: Sequence[str], shape: Shape, passage: bool
) -> list[Callable[[Row], Reason | None]]:
    """Return what must be asked of each row with these columns before it is read."""
    guards: list[Callable[[Row], Reason | None]] = []
    media = [c for c in columns if c.strip().lower() in MEDIA or c in shape.media]
    if media:
        guards.append(lambda row: _media(row, media))
    # Who names the columns has chosen which of the two answers to learn.
    if shape.name == "given":
        return guards
    marks = [tuple(marks) for marks in PREFERENCE if marks <= {*columns}]
    if marks:
        guards.append(lambda row: _preference(row, marks))
    if LABEL in columns and not passage:
        guards.append(lambda row: Reason("preference") if isinstance(row[LABEL], bool) else None)
    return guards


def _media(row: Row, columns: Sequence[str]) -> Reason | None:
    full = next((column for column in columns if row[column]), None)
    return Reason("media", {"column": full}) if full else None


def _preference(row: Row, marks: Sequence[Sequence[str]]) -> Reason | None:
    found = any(all(row[column] is not None for column in together) for together in marks)
    return Reason("preference") if found else None


@dataclass(frozen=True, slots=True)
class _Plan:
    """How rows with one set of columns are read: which is what, and which are metadata."""

    targets: Mapping[str, str]
    rest: tuple[str, ...]
    inner: bool
    tags: Mapping[str, str]

    def metadata(self, row: Row) -> Mapping[str, Any]:
        if not self.rest:
            return NOTHING
        rest = {column: row[column] for column in self.rest}
        return with_inner_metadata(rest) if self.inner else rest

    def passage(self, row: Row, origin: Origin) -> Record:
        text = _text(row, self.targets["text"])
        return Record(origin, (), text, self.metadata(row), ())

    def short(self) -> Reader:
        """Return the reader of a question and its answer, by far the most frequent rows."""
        asked, answered, rest = self.targets["prompt"], self.targets["response"], self.rest
        metadata, longer = self.metadata, self.exchange

        def read(row: Row, origin: Origin) -> Record:
            question, answer = row[asked], row[answered]
            if type(question) is not str or type(answer) is not str:
                return longer(row, origin)
            messages = (
                Message("user", question, True, (), NOTHING),
                Message("assistant", answer, True, (), NOTHING),
            )
            return Record(origin, messages, None, metadata(row) if rest else NOTHING, ())

        return read

    def exchange(self, row: Row, origin: Origin) -> Record:
        """Return one question and its answer, after the earlier turns of ``history``."""
        targets = self.targets
        question = _text(row, targets.get("prompt"))
        before = _text(row, targets.get("context"), required=False)
        after = _text(row, targets.get("input"), required=False)
        if before.strip() or after.strip():
            question = "\n".join(part for part in (before, question, after) if part.strip())
        answer = _text(row, targets.get("response"))
        turns = (
            *(_history(row, targets["history"]) if "history" in targets else ()),
            Message("user", question, True, (), NOTHING),
            Message("assistant", answer, True, (), NOTHING),
        )
        return self._record(row, origin, turns)

    def conversation(self, row: Row, origin: Origin) -> Record:
        column = self.targets["messages"]
        if column not in row:
            raise UnfitError("missing_column", column=column)
        return self._record(row, origin, to_messages(row[column], column, self.tags))

    def _record(self, row: Row, origin: Origin, turns: tuple[Message, ...]) -> Record:
        system = _text(row, self.targets.get("system"), required=False)
        if system.strip() and not any(turn.role == "system" for turn in turns):
            turns = (Message("system", system), *turns)
        column = self.targets.get("tools")
        tools = to_tools(row.get(column), column) if column else ()
        return Record(origin, turns, None, self.metadata(row), tools)


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
        raise wrong_type(column, value)
    return value


def _history(row: Row, column: str) -> tuple[Message, ...]:
    pairs = parsed(row.get(column)) or []
    if not isinstance(pairs, list):
        raise wrong_type(column, pairs)
    turns: list[Message] = []
    for i, pair in enumerate(pairs):
        if not isinstance(pair, list) or [type(text) for text in pair] != [str, str]:
            raise UnfitError("wrong_type", column=f"{column}[{i}]", type=type(pair).__name__)
        turns += [Message("user", pair[0]), Message("assistant", pair[1])]
    return tuple(turns)


_ROW_FIELDS = frozenset({"origin", "text", "messages", "tools", "metadata"})
_SPEAKERS = get_args(Role)
_TURN_FIELDS = frozenset({"role", "content", "loss", "tool_calls", "metadata"})


def _ours(row: Row, origin: Origin) -> Record | None:
    """Return what ``Record.to_json`` wrote; None if somebody has changed the row's form."""
    text, turns = row.get("text"), row.get("messages", [])
    metadata, tools = row.get("metadata", NOTHING), row.get("tools", [])
    fits = (
        row.keys() <= _ROW_FIELDS
        and (text is None or (isinstance(text, str) and not turns))
        and isinstance(turns, list)
        and all(map(_is_turn, turns))
        and isinstance(metadata, dict)
        and _are_objects(tools)
    )
    if not fits:
        return None
    messages = tuple(
        Message(
            cast("Role", turn["role"]),
            turn["content"],
            turn.get("loss", True),
            tuple(turn.get("tool_calls", ())),
            turn.get("metadata", NOTHING),
        )
        for turn in turns
    )
    return Record(origin, messages, text, metadata, tuple(tools))


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.keys() <= _TURN_FIELDS
        and turn.get("role") in _SPEAKERS
        and isinstance(turn.get("content"), str)
        and isinstance(turn.get("loss", True), bool)
        and isinstance(turn.get("metadata", {}), dict)
        and _are_objects(turn.get("tool_calls", []))
    )


def _are_objects(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, dict) for value in values)

"""Which columns of a file are the question, the answer and the rest.

A shape is a description of a kind of file: how it is known by its columns, and how one of
its rows becomes a conversation. Shapes are tried in order, the most specific first; a new
one is a line in ``_FINDERS`` and, if its rows are built differently, one in ``rows.py``.
"""

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from weitiao.errors import DataError
from weitiao.records.reading import CONVERSATION_COLUMNS
from weitiao.records.shaping import annotated
from weitiao.records.shaping.columns import (
    ANSWERS,
    LABEL,
    OPTIONAL,
    OPTIONAL_OF,
    PREFERENCE,
    QUESTIONS,
    Row,
)
from weitiao.records.shaping.registry import Entry
from weitiao.records.shaping.turns import needed_tags
from weitiao.words import Language, say

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
    columns become metadata, but those of :data:`OPTIONAL_OF` where a later row has them.
    ``entry``, ``tags`` and ``media`` come from LLaMA-Factory's registry: the entry that was
    used, what speakers are called, and columns of pictures. ``inner``: how the rows inside
    an export of Label Studio and the like are read.
    """

    name: str
    columns: Mapping[str, str]
    entry: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    media: tuple[str, ...] = ()
    inner: "Shape | None" = None

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
        told = say("shape.read_as", language, shape=name, mapping=mapping)
        if self.entry is None:
            return told
        return told + say("shape.by_entry", language, entry=self.entry)


@dataclass(frozen=True, slots=True)
class _Seen:
    """The columns of a file's first rows, each with the number of rows that have it."""

    rows: Sequence[Row]
    counts: Mapping[str, int]

    def half(self, count: int) -> bool:
        """Tell whether so many are at least half of the rows, so that spoilt ones hide nothing."""
        return 2 * count >= len(self.rows)

    def names(self) -> dict[str, str]:
        """Return the usual spelling of a column that half of the rows have → its spelling here.

        Header names in a spreadsheet come in any case, with blanks around.
        """
        present = [column for column, count in self.counts.items() if self.half(count)]
        return {column.strip().lower(): column for column in reversed(present)}

    def optional(self, shape: Shape) -> Shape:
        """Return the shape with the columns that a single row suffices to show."""
        names = {column.strip().lower(): column for column in reversed(list(self.counts))}
        taken = set(shape.columns.values())
        more = {}
        for target in OPTIONAL_OF.get(shape.name, ()):
            found = next((names[name] for name in OPTIONAL[target] if name in names), None)
            if target not in shape.columns and found is not None and found not in taken:
                more[target] = found
        return replace(shape, columns={**shape.columns, **more})


def detect_shape(
    rows: Sequence[Row],
    columns: Mapping[str, str] | None = None,
    file: str = "",
    entry: Entry | None = None,
) -> Shape:
    """Return the shape of a file by its first rows (a few hundred are enough).

    ``columns`` (target → column) is taken as given, and ``entry`` of LLaMA-Factory's
    registry as far as it goes.

    Raises:
        DataError: nothing fits, a named column is not there, or the file holds preferences.
    """
    tool = annotated.tool_of(rows)
    if tool is not None:
        unfolded, columns_of_answers = annotated.unfold(rows, tool)
        inner = _detect(_see(unfolded), columns, file, None, columns_of_answers)
        return Shape(tool, inner.columns, inner=inner)
    return _detect(_see(rows), columns, file, entry, ())


def _see(rows: Sequence[Row]) -> _Seen:
    return _Seen(rows, Counter(column for row in rows for column in row))


def _detect(
    seen: _Seen,
    columns: Mapping[str, str] | None,
    file: str,
    entry: Entry | None,
    answers: Sequence[str],
) -> Shape:
    if columns:
        return _given_shape(columns, list(seen.counts), file)
    if (entry and entry.ranking) or _is_preference(seen, entry):
        raise DataError("error.preference_data", file=file)
    if seen.half(sum(_is_ours(row) for row in seen.rows)):
        ours = [column for column in ("messages", "text") if column in seen.counts]
        return Shape("weitiao", {column: column for column in ours or ("messages",)})
    names = _with_answers(seen.names(), answers)
    if entry is not None:
        names = _with_entry(names, entry, seen, file)
    for find in _FINDERS:
        if found := find(names, seen):
            shape = _named(seen.optional(found), seen)
            return _of_entry(shape, entry) if entry else shape
    texts = [c for c in seen.counts if any(isinstance(row.get(c), str) for row in seen.rows)]
    example = f"{texts[0]},{texts[-1]}" if len(texts) > 1 else "QUESTION,ANSWER"
    shown = ", ".join(list(seen.counts)[:20])
    raise DataError("error.no_shape", file=file, columns=shown, example=example)


def _is_ours(row: Row) -> bool:
    origin = row.get("origin")
    return isinstance(origin, dict) and origin.keys() == {"file", "line"}


def _is_preference(seen: _Seen, entry: Entry | None) -> bool:
    full = Counter(c for row in seen.rows for c, value in row.items() if value is not None)
    there = {column for column, count in full.items() if seen.half(count)}
    if entry and {"chosen", "rejected", "kto_tag"} & entry.columns.keys():
        return True
    if any(marks <= there for marks in PREFERENCE):
        return True
    likes = sum(isinstance(row.get(LABEL), bool) for row in seen.rows)
    return bool(likes) and seen.half(likes) and "text" not in there


def _find_conversation(names: Mapping[str, str], seen: _Seen) -> Shape | None:
    for name in CONVERSATION_COLUMNS:
        column = names.get(name, name)
        turns = sum(column in row for row in seen.rows)
        passages = sum("text" in row and column not in row for row in seen.rows)
        if turns and seen.half(turns + passages):
            return Shape("conversation", {"messages": column})
    return None


def _find_alpaca(names: Mapping[str, str], seen: _Seen) -> Shape | None:
    columns = _match(names, ("instruction",), ("output",))
    if columns is None and "input" in names:
        columns = _match(names, ("instruction",), ANSWERS)
    return Shape("alpaca", columns) if columns else None


def _find_instruction(names: Mapping[str, str], seen: _Seen) -> Shape | None:
    columns = _match(names, ("instruction",), ("response",))
    return Shape("instruction", columns) if columns else None


def _find_exchange(names: Mapping[str, str], seen: _Seen) -> Shape | None:
    columns = _match(names, QUESTIONS, ANSWERS)
    return Shape("exchange", columns) if columns else None


def _find_text(names: Mapping[str, str], seen: _Seen) -> Shape | None:
    return Shape("text", {"text": names["text"]}) if "text" in names else None


_FINDERS: tuple[Callable[[Mapping[str, str], _Seen], Shape | None], ...] = (
    _find_conversation,
    _find_alpaca,
    _find_instruction,
    _find_exchange,
    _find_text,
)


def _match(
    names: Mapping[str, str], questions: Sequence[str], answers: Sequence[str]
) -> dict[str, str] | None:
    """Return the columns of the likeliest question and answer, if there are both."""
    question = next((names[name] for name in questions if name in names), None)
    answer = next((names[name] for name in answers if name in names), None)
    return {"prompt": question, "response": answer} if question and answer else None


def _named(shape: Shape, seen: _Seen) -> Shape:
    """Return a conversation under the name of the tool whose way of writing turns it has."""
    if shape.name != "conversation":
        return shape
    column = shape.columns["messages"]
    lists = [row[column] for row in seen.rows if isinstance(row.get(column), list)]
    turns = [turn for found in lists for turn in found if isinstance(turn, dict)]
    fields = {name for turn in turns for name in turn}
    name = "conversation"
    if any(isinstance(p, dict) and "value" in p for t in turns for p in _parts(t)):
        name = "llamafactory"
    elif "tool_calls" in fields or "weight" in fields:
        name = "openai"
    elif {"loss", "loss_scale"} & fields or "channel" in seen.counts:
        name = "ms-swift"
    return replace(shape, name=name)


def _parts(turn: Row) -> list[object]:
    content = turn.get("content")
    return content if isinstance(content, list) else []


def _with_answers(names: dict[str, str], answers: Sequence[str]) -> dict[str, str]:
    """Return the names as if what reviewers wrote stood in a column of answers.

    The question may then stand in a column ``text``, as it does in most labelling projects.
    """
    if not answers:
        return names
    written = next((a for known in ANSWERS for a in answers if a.lower() == known), answers[0])
    others = {name: column for name, column in names.items() if name not in ANSWERS}
    if "text" in others and not set(QUESTIONS) & others.keys():
        others["question"] = others.pop("text")
    return {**others, "output": written}


_LLAMAFACTORY = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
    "system": "system",
    "tools": "tools",
    "messages": "conversations",
}
"""A column's name in LLaMA-Factory's registry → the name it has here without one."""


def _with_entry(names: Mapping[str, str], entry: Entry, seen: _Seen, file: str) -> dict[str, str]:
    """Return the names as if the columns that the entry names were called as usual."""
    named = {_LLAMAFACTORY[key]: c for key, c in entry.columns.items() if key in _LLAMAFACTORY}
    for usual, column in named.items():
        required = usual in ("instruction", "output", "conversations")
        if required and column not in seen.counts:
            raise DataError(
                "error.registry_column",
                path=entry.registry,
                entry=entry.name,
                column=column,
                file=file,
                columns=", ".join(list(seen.counts)[:20]),
            )
    there = {usual: column for usual, column in named.items() if column in seen.counts}
    others = {n: column for n, column in names.items() if column not in there.values()}
    # A passage for pretraining is called a prompt there, and it has no answer.
    if set(there) == {"instruction"} and not set(ANSWERS) & others.keys():
        return {"text": there["instruction"]}
    instead: set[str] = set()
    if "instruction" in there:
        instead |= {*QUESTIONS, *CONVERSATION_COLUMNS} - {"input"}
    if "output" in there:
        instead |= {*ANSWERS, *CONVERSATION_COLUMNS}
    return {**{name: c for name, c in others.items() if name not in instead}, **there}


def _of_entry(shape: Shape, entry: Entry) -> Shape:
    named = {_LLAMAFACTORY.get(key, ""): column for key, column in entry.columns.items()}
    named = {target: column for target, column in named.items() if target in OPTIONAL}
    columns = {**shape.columns, **(named if shape.name in OPTIONAL_OF else {})}
    media = tuple(c for key, c in entry.columns.items() if key in ("images", "videos", "audios"))
    return replace(
        shape,
        columns=columns,
        entry=entry.name,
        tags=needed_tags(entry.tags),
        media=media,
    )


def _given_shape(columns: Mapping[str, str], seen: Sequence[str], file: str) -> Shape:
    for column in columns.values():
        if column not in seen:
            near = difflib.get_close_matches(column, seen, n=1) or seen
            raise DataError("error.column_missing", file=file, column=column, near=", ".join(near))
    return Shape("given", dict(columns))

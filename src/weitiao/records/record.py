"""The one form in which every row of every file goes on: a :class:`Record`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import xxhash

from weitiao.words import Language, say

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row stood: the file's name and its line, counted from 1."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row is rejected: a name to count by, and the values of its sentence.

    The catalogue holds ``reason.<name>``, what is wrong, and ``hint.<name>``, what to do.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def sentence(self, language: Language | None = None) -> str:
        """Return what is wrong, in ``language``."""
        return say(f"reason.{self.name}", language, **self.values)

    def hint(self, language: Language | None = None) -> str:
        """Return what the user can do about it, in ``language``."""
        return say(f"hint.{self.name}", language, **self.values)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. ``loss`` false: the turn is context only, even if the assistant says it.

    ``metadata`` holds the turn's other fields, such as ``name`` and ``tool_call_id``.
    """

    role: Role
    content: str
    loss: bool = True
    tool_calls: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


OWN = "weitiao"
"""The metadata field that is ours; it goes with the row through every format."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a row comes from that no person wrote.

    ``parent``: the :attr:`Record.id` of the row, or the place of the passage, it was made
    from; ``method``: synonyms, paraphrase, back_translation or draft; ``draft``: it waits
    for review; ``reviewers``: who accepted it in another tool.
    """

    parent: str | None = None
    method: str | None = None
    draft: bool = False
    reviewers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return only what is said."""
        all_of_it = {name: getattr(self, name) for name in self.__slots__}
        return {name: list(v) if name == "reviewers" else v for name, v in all_of_it.items() if v}


@dataclass(frozen=True, slots=True)
class Record:
    """A conversation (``messages``) or a passage for continued pretraining (``text``).

    Exactly one of the two is given. ``metadata`` holds the row's other columns;
    ``tools`` the function signatures offered to the model, in OpenAI's shape.
    ``metadata["weitiao"]`` is our own: see :class:`Lineage`.
    """

    origin: Origin
    messages: tuple[Message, ...] = ()
    text: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The turns before the last assistant turn; all of them where there is none."""
        for i in range(len(self.messages) - 1, -1, -1):
            if self.messages[i].role == "assistant":
                return self.messages[:i]
        return self.messages

    @property
    def answer(self) -> str:
        """What the last assistant turn says; empty where there is none."""
        return next((m.content for m in reversed(self.messages) if m.role == "assistant"), "")

    @property
    def asked(self) -> str:
        """What is said before the last answer, the system prompt aside; empty for a passage."""
        return "\n".join(m.content for m in self.prompt if m.role != "system")

    @property
    def id(self) -> str:
        """32 hexadecimal digits that are equal for records that say the same, blanks aside."""
        return self.fingerprint().hex()

    def fingerprint(self) -> bytes:
        """Return :attr:`id` as 16 bytes."""
        said = [self.text or ""]
        for message in self.messages:
            said += (message.role, message.content)
            if message.tool_calls:
                said.append(json.dumps(message.tool_calls, sort_keys=True, default=str))
        if self.tools:
            said.append(json.dumps(self.tools, sort_keys=True, default=str))
        text = "\0".join([" ".join(part.split()) for part in said])
        return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass"))

    @property
    def lineage(self) -> Lineage:
        """Where the row comes from if no person wrote it."""
        own = self.metadata.get(OWN)
        if not isinstance(own, Mapping):
            return Lineage()
        reviewers = own.get("reviewers") or ()
        return Lineage(
            own.get("parent"), own.get("method"), bool(own.get("draft")), tuple(reviewers)
        )

    def with_lineage(self, lineage: Lineage) -> "Record":
        """Return the record with ``lineage`` in its metadata."""
        return replace(self, metadata={**self.metadata, OWN: lineage.to_json()})

    def to_json(self) -> dict[str, Any]:
        """Return the row of ``kept.jsonl``: only the fields that hold something."""
        row: dict[str, Any] = {"origin": {"file": self.origin.file, "line": self.origin.line}}
        if self.text is not None:
            row["text"] = self.text
        if self.messages:
            row["messages"] = [_message_json(m) for m in self.messages]
        if self.tools:
            row["tools"] = [dict(t) for t in self.tools]
        if self.metadata:
            row["metadata"] = dict(self.metadata)
        return row

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> "Record":
        """Return the record that :meth:`to_json` wrote."""
        return Record(
            origin=Origin(row["origin"]["file"], row["origin"]["line"]),
            messages=tuple(
                Message(
                    m["role"],
                    m["content"],
                    m.get("loss", True),
                    tuple(m.get("tool_calls", ())),
                    m.get("metadata", {}),
                )
                for m in row.get("messages", ())
            ),
            text=row.get("text"),
            metadata=row.get("metadata", {}),
            tools=tuple(row.get("tools", ())),
        )


def _message_json(message: Message) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if not message.loss:
        out["loss"] = False
    if message.tool_calls:
        out["tool_calls"] = [dict(c) for c in message.tool_calls]
    if message.metadata:
        out["metadata"] = dict(message.metadata)
    return out

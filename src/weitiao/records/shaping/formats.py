"""Records as rows of other tools' files: one function for each format.

A row says all that the record says, as far as the format has words for it. Whether nothing
is lost is not decided here: ``writing.py`` reads each row back and compares.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from weitiao.records.record import Message, Reason, Record
from weitiao.records.shaping.columns import KNOWN
from weitiao.records.shaping.shapes import Shape
from weitiao.records.shaping.turns import THOUGHT, UnfitError

Format = Literal["alpaca", "conversation", "openai", "ms-swift", "llamafactory", "weitiao"]

SHAPES: Mapping[Format, Shape] = {
    "alpaca": Shape("alpaca", {"prompt": "instruction", "response": "output"}),
    "conversation": Shape("conversation", {"messages": "conversations"}),
    "openai": Shape("openai", {"messages": "messages"}),
    "ms-swift": Shape("ms-swift", {"messages": "messages"}),
    "llamafactory": Shape("llamafactory", {"messages": "messages"}),
    "weitiao": Shape("weitiao", {"messages": "messages"}),
}
"""Format → the shape in which its rows are read again."""

_TURN_FIELDS = frozenset({"role", "from", "content", "value", "metadata", "tool_calls"})
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
_SHAREGPT_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "system_tag": "system",
}
_THOUGHT = re.compile(re.escape(THOUGHT).replace(r"\{\}", "(.*?)"), re.DOTALL)


def row_of(record: Record, form: Format, aside: bool) -> dict[str, Any]:
    """Return the record as a row of ``form``.

    ``aside``: all metadata stand in fields of their own, ``metadata``, and calls of tools in
    OpenAI's words; for rows whose metadata or turns would else be taken for something else.

    Raises:
        UnfitError: the format has no place for what the record holds.
    """
    if form == "weitiao":
        return record.to_json()
    if record.text is not None:
        if form in ("alpaca", "conversation"):
            raise unheld(form, "text")
        row: dict[str, Any] = {"text": record.text}
    elif form == "alpaca":
        row = _alpaca(record)
    else:
        turns = [
            turn
            for i, message in enumerate(record.messages)
            for turn in _TURNS[form](message, i, aside)
        ]
        row = {SHAPES[form].columns["messages"]: turns}
    if record.tools:
        tools = [dict(tool) for tool in record.tools]
        # A list of objects of many kinds is no column of a table: those tools want its text.
        row["tools"] = tools if form == "openai" else _json(tools)
    return {**row, **beside(record.metadata, KNOWN, aside)}


def registry_fields(tools: bool, passages: bool) -> dict[str, Any]:
    """Return the entry of LLaMA-Factory's registry for a file of rows of that format."""
    if passages:
        return {"columns": {"prompt": "text"}}
    columns = {"messages": "messages", **({"tools": "tools"} if tools else {})}
    return {"formatting": "sharegpt", "columns": columns, "tags": _SHAREGPT_TAGS}


def unheld(form: str, what: str) -> UnfitError:
    """Return the error for a record of which the format cannot hold ``what``."""
    return UnfitError("not_in_format", format=form, what=what)


def beside(metadata: Mapping[str, Any], known: frozenset[str], aside: bool) -> dict[str, Any]:
    """Return metadata as fields of a row or turn; those whose names mean something, aside."""
    inner = {
        name: value
        for name, value in metadata.items()
        if aside or name.strip().lower() in known or ".responses" in name
    }
    outer = {name: value for name, value in metadata.items() if name not in inner}
    return {**outer, "metadata": inner} if inner else outer


def _alpaca(record: Record) -> dict[str, Any]:
    messages = record.messages
    system = messages[0].content if messages and messages[0].role == "system" else None
    first = 0 if system is None else 1
    for i, message in enumerate(messages):
        due = "system" if i < first else ("user", "assistant")[(i - first) % 2]
        if message.role != due:
            raise unheld("alpaca", f"messages[{i}].role")
        _plain(message, i, "alpaca")
        if message.metadata:
            raise unheld("alpaca", f"messages[{i}].metadata")
    said = [message.content for message in messages[first:]]
    if not said or len(said) % 2:
        raise unheld("alpaca", f"messages[{max(len(messages) - 1, 0)}]")
    row: dict[str, Any] = {"instruction": said[-2], "input": "", "output": said[-1]}
    if system is not None:
        row["system"] = system
    if len(said) > 2:
        row["history"] = [[said[i], said[i + 1]] for i in range(0, len(said) - 2, 2)]
    return row


def _plain(message: Message, i: int, form: str, calls: bool = False) -> None:
    """Refuse a turn with a loss, or with calls, where the format has no field for them."""
    if not message.loss:
        raise unheld(form, f"messages[{i}].loss")
    if message.tool_calls and not calls:
        raise unheld(form, f"messages[{i}].tool_calls")


def _sharegpt_turns(message: Message, i: int, aside: bool) -> list[dict[str, Any]]:
    _plain(message, i, "conversation", calls=True)
    more = beside(message.metadata, _TURN_FIELDS, aside)
    if not message.tool_calls:
        return [{"from": _SHAREGPT[message.role], "value": message.content, **more}]
    if message.content:
        raise unheld("conversation", f"messages[{i}].content")
    calls = [_short(call) for call in message.tool_calls]
    value = _json(calls[0] if len(calls) == 1 else calls)
    return [{"from": "function_call", "value": value, **more}]


def _openai_turns(message: Message, i: int, aside: bool) -> list[dict[str, Any]]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["content"] = message.content or None
        turn["tool_calls"] = [_with_text(call) for call in message.tool_calls]
    if not message.loss:
        turn |= {"weight": 0} if message.role == "assistant" else {"loss": False}
    return [{**turn, **beside(message.metadata, _TURN_FIELDS, aside)}]


def _swift_turns(message: Message, i: int, aside: bool) -> list[dict[str, Any]]:
    loss = {} if message.loss else {"loss": False}
    more = {**loss, **beside(message.metadata, _TURN_FIELDS, aside)}
    if aside and message.tool_calls:
        calls = list(message.tool_calls)
        return [{"role": message.role, "content": message.content, "tool_calls": calls, **more}]
    said = [{"role": message.role, "content": message.content}]
    if message.tool_calls and not message.content:
        said = []
    said += [{"role": "tool_call", "content": _json(_short(call))} for call in message.tool_calls]
    return [{**said[0], **more}, *({**turn, **loss} for turn in said[1:])]


def _factory_turns(message: Message, i: int, aside: bool) -> list[dict[str, Any]]:
    scored = message.role == "assistant" and message.loss
    turn: dict[str, Any] = {
        "role": message.role,
        "content": _parts(message),
        "loss_weight": 1.0 if scored else 0.0,
    }
    if not message.loss and message.role != "assistant":
        turn["loss"] = False
    return [{**turn, **beside(message.metadata, _TURN_FIELDS, aside)}]


def _parts(message: Message) -> list[dict[str, str]]:
    text, parts = message.content, []
    if message.role == "assistant" and (thought := _THOUGHT.match(text)):
        parts.append({"type": "reasoning", "value": thought[1]})
        text = text[thought.end() :]
    if text or not (parts or message.tool_calls):
        parts.append({"type": "text", "value": text})
    calls = [{"type": "tool_call", "value": _json(_short(call))} for call in message.tool_calls]
    return parts + calls


_TURNS: Mapping[str, Callable[[Message, int, bool], list[dict[str, Any]]]] = {
    "conversation": _sharegpt_turns,
    "openai": _openai_turns,
    "ms-swift": _swift_turns,
    "llamafactory": _factory_turns,
}


def _short(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a call as {name, arguments}; one that says more, with that beside or as it is."""
    function = call.get("function")
    if call.get("type") != "function" or not isinstance(function, dict):
        return call
    if function.keys() != {"name", "arguments"}:
        return call
    rest = {name: value for name, value in call.items() if name not in ("type", "function")}
    return {**rest, **function}


def _with_text(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call with its arguments as JSON text, as OpenAI's files have them."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), dict):
        return dict(call)
    return {**call, "function": {**function, "arguments": _json(function["arguments"])}}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def difference(before: Record, after: Record | Reason) -> str:
    """Return the field of ``before`` that ``after``, the same row read again, lacks."""
    if isinstance(after, Reason) or before.text != after.text:
        return "text" if before.text is not None else "messages"
    for i, message in enumerate(before.messages):
        again = after.messages[i] if i < len(after.messages) else None
        if again is None or again.role != message.role:
            return f"messages[{i}]"
        for name in ("content", "loss", "tool_calls", "metadata"):
            if getattr(message, name) != getattr(again, name):
                return f"messages[{i}].{name}"
    if len(before.messages) != len(after.messages):
        return "messages"
    if before.tools != after.tools:
        return "tools"
    lost = (
        n for n, v in before.metadata.items() if n not in after.metadata or after.metadata[n] != v
    )
    return f"metadata.{next(lost, '')}".rstrip(".")

"""Lists of turns, as other tools write them, into messages."""

import json
from collections.abc import Mapping
from typing import Any, get_args

from weitiao.records.record import Message, Reason, Role

ROLES: dict[str, Role] = {
    **{role: role for role in get_args(Role)},
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""What other tools call the speakers → what they are here."""

_CALLS = ("function_call", "tool_call")
_MEDIA = ("image", "audio", "video")


class UnfitError(Exception):
    """A row that does not fit its file's shape, with the reason."""

    def __init__(self, name: str, **values: Any) -> None:
        super().__init__(name)
        self.reason = Reason(name, values)


def to_messages(turns: Any, column: str) -> tuple[Message, ...]:
    """Return a list of {role, content} or {from, value} as messages.

    Raises:
        UnfitError: it is no such list, or holds a role or a content that is not known.
    """
    if not isinstance(turns, list):
        raise UnfitError("wrong_type", column=column, type=type(turns).__name__)
    return tuple(_message(turn, f"{column}[{i}]") for i, turn in enumerate(turns))


def to_tools(tools: Any, column: str) -> tuple[Mapping[str, Any], ...]:
    """Return function signatures, a list or its JSON text, in OpenAI's shape.

    Raises:
        UnfitError: it is no list of objects.
    """
    if isinstance(tools, str):
        try:
            tools = json.loads(tools) if tools.strip() else []
        except ValueError:
            raise UnfitError("wrong_type", column=column, type="str") from None
    if not isinstance(tools or [], list) or not all(isinstance(t, dict) for t in tools or []):
        raise UnfitError("wrong_type", column=column, type=type(tools).__name__)
    return tuple(
        tool if "function" in tool else {"type": "function", "function": tool}
        for tool in tools or []
    )


def _message(turn: Any, place: str) -> Message:
    if not isinstance(turn, dict):
        raise UnfitError("wrong_type", column=place, type=type(turn).__name__)
    said_by = turn.get("role", turn.get("from"))
    role = ROLES.get(str(said_by).strip().lower())
    if role is None:
        raise UnfitError("unknown_role", column=place, role=said_by)
    calls = turn.get("tool_calls") or ()
    content = _content(turn, place, optional=bool(calls))
    if said_by in _CALLS:
        content, calls = "", [_call(content, place)]
    return Message(role, content, turn.get("loss") is not False, tuple(calls))


def _content(turn: Mapping[str, Any], place: str, optional: bool) -> str:
    content = turn.get("content", turn.get("value"))
    if content is None and (optional or "content" in turn or "value" in turn):
        return ""
    if isinstance(content, list) and any(
        kind in str(part.get("type"))
        for part in content
        if isinstance(part, dict)
        for kind in _MEDIA
    ):
        raise UnfitError("media", column=place)
    if content is None:
        raise UnfitError("missing_column", column=f"{place}.content")
    if not isinstance(content, str):
        raise UnfitError("wrong_type", column=place, type=type(content).__name__)
    return content


def _call(content: str, place: str) -> dict[str, Any]:
    """Return ShareGPT's call, the JSON text of a name and arguments, in OpenAI's shape."""
    try:
        call = json.loads(content)
        function = {"name": call["name"], "arguments": call["arguments"]}
    except (ValueError, TypeError, LookupError):
        raise UnfitError("wrong_type", column=place, type="str") from None
    return {"type": "function", "function": function}

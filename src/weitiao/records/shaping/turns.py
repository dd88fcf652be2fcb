"""Lists of turns, as other tools write them, into messages."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from weitiao.records.record import Message, Reason, Role
from weitiao.records.shaping.columns import MEDIA, with_inner_metadata

ROLES: dict[str, Role] = {
    **{role: role for role in get_args(Role)},
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "function": "tool",
    "observation": "tool",
    "observations": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
"""What other tools call the speakers → what they are here."""

NOTHING: Mapping[str, Any] = {}
"""The metadata of all that have none; shared, because making one for each turn takes time."""

THOUGHT = "<think>\n{}\n</think>\n\n"
"""How reasoning stands before its answer."""

_CALLS = ("function_call", "tool_call")
_WEIGHTS = ("loss", "loss_scale", "loss_weight", "weight")
_FIELDS = frozenset({*_WEIGHTS, "tool_calls", "function_call"})


class UnfitError(Exception):
    """A row that does not fit its file's shape, with the reason."""

    def __init__(self, name: str, **values: Any) -> None:
        super().__init__(name)
        self.reason = Reason(name, values)


def wrong_type(column: str, value: Any) -> UnfitError:
    """Return the error for a field that holds something else than what is due there."""
    return UnfitError("wrong_type", column=column, type=type(value).__name__)


def to_messages(
    turns: Any, column: str, tags: Mapping[str, str] | None = None
) -> tuple[Message, ...]:
    """Return a list of turns, or its JSON text, as messages.

    A turn is {role, content}, {from, value}, or a pair {human, assistant}; its content is a
    text or a list of parts. A turn that is a call of a tool joins the assistant's turn
    before it, as in ms-swift. ``tags`` are those of LLaMA-Factory's registry.

    Raises:
        UnfitError: it is no such list, or holds a role or a content that is not known.
    """
    turns = parsed(turns)
    if not isinstance(turns, list):
        raise wrong_type(column, turns)
    messages: list[Message] = []
    for i, turn in enumerate(turns):
        place = f"{column}[{i}]"
        if not isinstance(turn, dict):
            raise wrong_type(place, turn)
        if tags:
            turn = _retagged(turn, tags)
        speaker = _speaker(turn.get("role", turn.get("from")))
        if speaker is None and (pair := _pair(turn, place)):
            messages += pair
            continue
        message = _message(turn, speaker, place)
        if speaker in _CALLS and messages and _continues(messages[-1], message):
            calls = (*messages[-1].tool_calls, *message.tool_calls)
            messages[-1] = replace(messages[-1], tool_calls=calls)
        else:
            messages.append(message)
    return tuple(messages)


def to_tools(tools: Any, column: str) -> tuple[Mapping[str, Any], ...]:
    """Return function signatures, a list or its JSON text, in OpenAI's shape.

    Raises:
        UnfitError: it is no list of objects.
    """
    found = parsed(tools) or []
    if isinstance(found, str) and not found.strip():
        found = []
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise wrong_type(column, tools)
    return tuple(
        tool if "function" in tool else {"type": "function", "function": tool} for tool in found
    )


def parsed(value: Any) -> Any:
    """Return what a JSON text of an object or list says; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _speaker(said_by: Any) -> str | None:
    """Return the key of ``ROLES`` that is meant; None where there is none."""
    if not isinstance(said_by, str):
        return None
    name = said_by if said_by in ROLES else said_by.strip().lower().replace("-", "_")
    return name if name in ROLES else None


def _message(turn: Mapping[str, Any], speaker: str | None, place: str) -> Message:
    if speaker is None:
        raise UnfitError("unknown_role", column=place, role=turn.get("role", turn.get("from")))
    role = ROLES[speaker]
    content_field = "content" if "content" in turn else "value"
    content = turn.get(content_field)
    if len(turn) == 2 and type(content) is str and speaker not in _CALLS:
        return Message(role, content, True, (), NOTHING)
    if media := next((name for name in turn if name in MEDIA and turn[name]), None):
        raise UnfitError("media", column=f"{place}.{media}")
    used = _FIELDS | {"role" if "role" in turn else "from", content_field}
    rest = with_inner_metadata({name: turn[name] for name in turn if name not in used})
    if speaker in _CALLS:
        text, calls = "", _short_calls(content, place)
    else:
        text, calls = _content(content, place)
        calls += _calls(turn, place)
        if content is None and content_field not in turn and not calls:
            raise UnfitError("missing_column", column=f"{place}.content")
    loss, weights = _loss(turn, role, place)
    return Message(role, text, loss, calls, {**weights, **rest})


def _content(content: Any, place: str) -> tuple[str, tuple[Mapping[str, Any], ...]]:
    """Return a turn's text and the calls in it; null is ''."""
    if isinstance(content, str):
        return content, ()
    if content is None:
        return "", ()
    if not isinstance(content, list):
        raise wrong_type(place, content)
    text: list[str] = []
    calls: list[Mapping[str, Any]] = []
    for part in content:
        if not isinstance(part, dict):
            raise wrong_type(place, part)
        kind, value = str(part.get("type")), part.get("value", part.get("text"))
        if any(medium in kind for medium in MEDIA):
            raise UnfitError("media", column=place)
        if kind in ("tool_call", "tool_calls"):
            calls += _short_calls(value, place)
        elif kind in ("text", "reasoning") and isinstance(value, str):
            text.append(value if kind == "text" else THOUGHT.format(value))
        else:
            raise wrong_type(f"{place}.{kind}", value)
    return "".join(text), tuple(calls)


def _calls(turn: Mapping[str, Any], place: str) -> tuple[Mapping[str, Any], ...]:
    """Return the calls in OpenAI's fields of a turn."""
    if isinstance(turn.get("function_call"), dict):
        return _short_calls(turn["function_call"], place)
    calls = turn.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise wrong_type(f"{place}.tool_calls", calls)
    return tuple(map(_call, calls))


def _short_calls(value: Any, place: str) -> tuple[Mapping[str, Any], ...]:
    """Return ShareGPT's calls, the JSON text of a name and arguments, in OpenAI's shape."""
    found = parsed(value)
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) for call in calls):
        raise wrong_type(place, value)
    return tuple(_from_short(call, place) for call in calls)


def _from_short(call: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    if not {"name", "arguments"} <= call.keys():
        if "type" in call:
            return _call(call)
        raise wrong_type(place, call)
    function = {"name": call["name"], "arguments": call["arguments"]}
    rest = {name: call[name] for name in call if name not in function}
    return _call({"type": "function", **rest, "function": function})


def _call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a call with its arguments as an object, which is what chat templates write out.

    OpenAI's own files hold them as JSON text, and a template would quote that once more. The
    fields stand in one order, so that equal calls have one fingerprint.
    """
    function = call.get("function")
    if isinstance(function, dict):
        arguments = parsed(function.get("arguments"))
        if isinstance(arguments, dict):
            call = {**call, "function": {**function, "arguments": arguments}}
    first = [name for name in ("id", "type", "function") if name in call]
    return {name: call[name] for name in (*first, *(n for n in call if n not in first))}


def _loss(turn: Mapping[str, Any], role: Role, place: str) -> tuple[bool, dict[str, float]]:
    """Return whether the turn is scored, and the weights that are neither 0 nor 1.

    ms-swift says ``loss`` and ``loss_scale``, LLaMA-Factory ``loss_weight`` and OpenAI
    ``weight``. Only an assistant's turns are ever scored: a 0 elsewhere says nothing.
    """
    loss, kept = True, {}
    for name in _WEIGHTS:
        weight = turn.get(name)
        if weight is None:
            continue
        if not isinstance(weight, (int, float)):
            raise wrong_type(f"{place}.{name}", weight)
        if role == "assistant" or (name == "loss" and weight is False):
            loss = loss and weight != 0
        if weight != 0 and not (weight == 1 and (role == "assistant" or name == "loss")):
            kept[name] = weight
    return loss, kept


def _pair(turn: Mapping[str, Any], place: str) -> list[Message]:
    """Return the question and answer of ms-swift's {human: …, assistant: …}."""
    speakers = {ROLES[speaker]: name for name in turn if (speaker := _speaker(name))}
    if not {"user", "assistant"} <= speakers.keys():
        return []
    asked, answered = speakers["user"], speakers["assistant"]
    rest = {name: value for name, value in turn.items() if name not in (asked, answered)}
    return [
        _message({"content": turn[asked]}, "user", place),
        _message({"content": turn[answered], **rest}, "assistant", place),
    ]


def _continues(before: Message, call: Message) -> bool:
    return before.role == "assistant" and before.loss == call.loss and not call.metadata


_TAGS: Mapping[str, tuple[str, ...]] = {
    "role_tag": ("role", "from"),
    "content_tag": ("content", "value"),
    "function_tag": _CALLS,
    **{
        f"{tag}_tag": tuple(name for name in ROLES if ROLES[name] == role and name not in _CALLS)
        for tag, role in (
            *(("user", "user"), ("assistant", "assistant")),
            *(("observation", "tool"), ("system", "system")),
        )
    },
}
"""Tag of LLaMA-Factory's registry → the names that are understood without it, ours first."""


def needed_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return those tags of LLaMA-Factory's registry that say more than is known anyway."""
    return {tag: name for tag, name in tags.items() if tag in _TAGS and name not in _TAGS[tag]}


def _retagged(turn: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    """Return the turn with the fields and speakers of ``tags`` under their usual names."""
    usual = {name: _TAGS[tag][0] for tag, name in tags.items()}
    fields = {tags[tag] for tag in ("role_tag", "content_tag") if tag in tags}
    told = {usual[name] if name in fields else name: value for name, value in turn.items()}
    for field in ("role", "from"):
        said_by = told.get(field)
        if isinstance(said_by, str) and said_by not in fields:
            told[field] = usual.get(said_by, said_by)
    return told

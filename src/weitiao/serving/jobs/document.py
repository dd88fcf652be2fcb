"""What the OpenAPI document tells of a request for a job: which kind needs what."""

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from weitiao.evaluation.suite import suite_names
from weitiao.serving.wire import ChatRequest, CompletionRequest, GenerateRequest, SamplingFields

CHAT = "/v1/chat/completions"
ROUTES: dict[str, type[SamplingFields]] = {
    CHAT: ChatRequest,
    "/v1/completions": CompletionRequest,
    "/generate": GenerateRequest,
}
"""What can be asked in a job, as by itself."""

_Told = dict[str, Any]
Shown = Callable[[type[BaseModel]], _Told]
_NAME = {"type": ["string", "null"]}
# That each line is JSON, no schema tells.
_LINES = {"type": "string", "minLength": 1, "contentMediaType": "application/x-ndjson"}


def kinds(shown: Shown, row: type[BaseModel]) -> _Told:
    """Return a schema of all kinds of jobs; ``shown`` tells of a model, not by a reference."""
    asks = [told for url in ROUTES for told in _request(shown, url)]
    needed: dict[str, _Told] = {
        "batch": {"requests": _lines_or({"anyOf": [{"type": "string"}, *asks]})},
        "dialogue": {"turns": _filled({"type": "string"})},
        "evaluation": {"rows": _lines_or(_row(shown, row))},
    }
    also = {"evaluation": {"suite": {"enum": [*suite_names(), None]}}}
    each = [
        {
            "properties": {"kind": {"const": kind}, **fields, **also.get(kind, {})},
            "required": ["kind", *fields],
        }
        for kind, fields in needed.items()
    ]
    return {"anyOf": each}


def _request(shown: Shown, url: str) -> list[_Told]:
    """Tell of a request by itself, and as a line of OpenAI's batch files."""
    body, named = shown(ROUTES[url]), ["url"]
    if ROUTES[url] is CompletionRequest:
        body = _with(body, {"echo": {"enum": [False, None]}})
    else:
        # What is in these tells where they go.
        named = []
    held = {"custom_id": _NAME, "url": {"enum": [url] if named else [url, None]}}
    line = {"type": "object", "properties": {**held, "body": body}, "required": [*named, "body"]}
    return [_with(body, held, named), line]


def _with(told: _Told, properties: _Told, required: Sequence[str] = ()) -> _Told:
    return {
        **told,
        "properties": {**told["properties"], **properties},
        "required": [*told.get("required", ()), *required],
    }


def _row(shown: Shown, row: type[BaseModel]) -> _Told:
    text, turns = {"type": "string"}, {"type": "array", "minItems": 1}
    ways: list[_Told] = [
        {"prompt": text, "reference": text},
        {"messages": turns, "reference": text},
        # The last is the answer.
        {"messages": {"type": "array", "minItems": 2}},
    ]
    each = [{"properties": way, "required": list(way)} for way in ways]
    return {**shown(row), "anyOf": each}


def _filled(items: _Told) -> _Told:
    return {"type": "array", "minItems": 1, "items": items}


def _lines_or(items: _Told) -> _Told:
    return {"anyOf": [_LINES, _filled(items)]}

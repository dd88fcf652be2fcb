"""From a request for a job to the asks it is made of; all of them are looked at before it begins.

An ask is what is sent: ``url`` and ``body``, with the ``custom_id`` and ``reference`` it came with.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from weitiao.errors import WeitiaoError
from weitiao.evaluation.suite import DEFAULT, require_suite, suite_names
from weitiao.serving.desk import Desk
from weitiao.serving.faults import RequestError, refusal
from weitiao.serving.jobs.document import CHAT, ROUTES
from weitiao.serving.jobs.faults import JobRequestError
from weitiao.serving.jobs.shapes import EvaluationRow, JobRequest
from weitiao.serving.wire import ChatRequest, CompletionRequest, GenerateRequest, SamplingFields
from weitiao.words import Language

_NEEDS = {"batch": "requests", "dialogue": "turns", "evaluation": "rows"}
_ALONE = {"stream", "stream_options"}
"""Fields that say how an answer is sent."""

Body = TypeVar("Body", bound=BaseModel)
Ask = dict[str, Any]


def asks_of(
    desk: Desk, asked: JobRequest, most: int, tongue: Language
) -> tuple[dict[str, Any], list[Ask]]:
    """Return what holds for the whole job, and its asks.

    Raises:
        RequestError: something is missing, too much, or cannot be understood.
    """
    field = _NEEDS[asked.kind]
    given = getattr(asked, field)
    if not given:
        raise JobRequestError("jobs.error.missing", param=field, kind=asked.kind, field=field)
    given = _lines(given, field, most) if isinstance(given, str) else given
    if len(given) > most:
        raise JobRequestError("jobs.error.items", param=field, items=len(given), most=most)
    model = desk.find(asked.model).name
    common = {
        name: value
        for name in SamplingFields.model_fields
        if (value := getattr(asked, name)) is not None
    }
    spec: dict[str, Any] = {"model": model}
    make = {"batch": _request, "dialogue": _turn, "evaluation": _row}[asked.kind]
    if asked.kind == "evaluation":
        spec["suite"] = _suite(asked.suite)
    if asked.kind == "dialogue" and asked.system is not None:
        spec["system"] = asked.system
    asks = []
    for place, one in enumerate(given):
        made = make(one, {"model": model, **common}, (field, place), tongue)
        desk.find(made["body"]["model"])
        asks.append(made)
    return spec, asks


def _lines(text: str, field: str, most: int) -> list[Any]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            why = getattr(error, "msg", "") or type(error).__name__
            raise JobRequestError("jobs.error.line", param=field, line=number, why=why) from error
    if not found:
        raise JobRequestError("jobs.error.line", param=field, line=1, why="–")
    return found


_Place = tuple[str, int]


def _request(given: Any, common: Mapping[str, Any], at: _Place, tongue: Language) -> Ask:
    """Read a question, a request with its custom_id, or a line of OpenAI's batch files."""
    if isinstance(given, str):
        given = {"prompt": given}
    if not isinstance(given, dict):
        raise JobRequestError("jobs.error.shape", param=_name(at), field=_name(at))
    custom, url, body = given.get("custom_id"), given.get("url"), given.get("body", given)
    if url is None and isinstance(body, dict):
        url = CHAT if "messages" in body else "/generate"
    understood = isinstance(body, dict) and isinstance(custom, str | None)
    if not (understood and isinstance(url, str) and url in ROUTES):
        raise JobRequestError("jobs.error.shape", param=_name(at), field=_name(at))
    # A name for the answer's length is as good as another: the common one must not win.
    named = {"max_tokens"} if {"max_completion_tokens", "max_new_tokens"} & body.keys() else set()
    held = {name: value for name, value in common.items() if name not in named}
    own = {name: value for name, value in body.items() if value is not None}
    read = _read(ROUTES[url], {**held, **own}, at, tongue)
    if isinstance(read, CompletionRequest) and read.echo:
        raise RequestError("serve.error.unsupported", param=_name(at, "echo"), field="echo")
    if isinstance(read, GenerateRequest) and read.prompt is None and read.query is None:
        raise RequestError("serve.error.no_prompt", param=_name(at, "prompt"))
    return {"custom_id": custom, "url": url, "body": _dumped(read)}


def _turn(given: Any, common: Mapping[str, Any], at: _Place, tongue: Language) -> Ask:
    turn = {"role": "user", "content": given}
    read = _read(ChatRequest, {**common, "messages": [turn]}, at, tongue)
    return {"url": CHAT, "body": _dumped(read)}


def _row(given: Any, common: Mapping[str, Any], at: _Place, tongue: Language) -> Ask:
    row = _read(EvaluationRow, given, at, tongue)
    turns = [turn.model_dump(exclude_unset=True) for turn in row.messages or ()]
    if row.prompt is not None and not turns:
        turns = [{"role": "user", "content": row.prompt}]
    reference = row.reference
    if reference is None and turns and turns[-1]["role"] == "assistant":
        reference = turns.pop().get("content")
    if not isinstance(reference, str) or not turns:
        raise JobRequestError("jobs.error.reference", param=_name(at), field=_name(at))
    read = _read(ChatRequest, {**common, "messages": turns}, at, tongue)
    ask = {"custom_id": row.custom_id, "url": CHAT, "body": _dumped(read)}
    return {**ask, "reference": reference}


def _suite(name: str | None) -> str:
    # By its name only: a path would be read from the disk.
    if name is not None and name not in suite_names():
        known = ", ".join(suite_names())
        raise JobRequestError("jobs.error.suite", param="suite", suite=name[:60], known=known)
    try:
        require_suite(name or DEFAULT)
    except WeitiaoError as error:
        raise RequestError("serve.error.template", param="suite", why=error) from error
    return name or DEFAULT


def _read(shape: type[Body], given: Any, at: _Place, tongue: Language) -> Body:
    try:
        return shape.model_validate(given)
    except ValidationError as error:
        field, place = at
        faults = [
            {**fault, "loc": ("body", field, place, *fault["loc"])} for fault in error.errors()
        ]
        # As many places as the item's own, so that it is found where it stood.
        body = {field: [None] * place + [given]}
        raise refusal(faults, body, tongue) from error


def _dumped(read: BaseModel) -> dict[str, Any]:
    return read.model_dump(exclude_unset=True, exclude=_ALONE)


def _name(at: Sequence[object], field: str = "") -> str:
    return ".".join(str(part) for part in (*at, field) if part != "")

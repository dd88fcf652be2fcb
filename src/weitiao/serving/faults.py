"""What is refused and why: one sentence, in OpenAI's shape."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from weitiao.errors import WeitiaoError
from weitiao.words import Language, language, say

_INVALID = "invalid_request_error"
Kinds = Mapping[str, tuple[int, str, str | None]]
"""Key of a sentence → status, OpenAI's type, OpenAI's code."""

_KINDS: Kinds = {
    "serve.error.value": (400, _INVALID, None),
    "serve.error.unsupported": (400, _INVALID, "unsupported_parameter"),
    "serve.error.json": (400, _INVALID, None),
    "serve.error.echo_logprobs": (400, _INVALID, "unsupported_parameter"),
    "serve.error.top_logprobs": (400, _INVALID, "unsupported_parameter"),
    "serve.error.too_many": (400, _INVALID, None),
    "serve.error.token_id": (400, _INVALID, None),
    "serve.error.no_messages": (400, _INVALID, None),
    "serve.error.no_prompt": (400, _INVALID, None),
    "serve.error.tools": (400, _INVALID, "unsupported_parameter"),
    "serve.error.template": (400, _INVALID, None),
    "serve.error.characters": (400, _INVALID, None),
    "serve.error.control_token": (400, _INVALID, "control_token"),
    "serve.error.context": (400, _INVALID, "context_length_exceeded"),
    "serve.error.no_key": (401, "authentication_error", "invalid_api_key"),
    "serve.error.wrong_key": (401, "authentication_error", "invalid_api_key"),
    "serve.error.host": (403, "permission_error", "host_not_allowed"),
    "serve.error.model": (404, _INVALID, "model_not_found"),
    "serve.error.path": (404, _INVALID, "not_found"),
    "serve.error.method": (405, _INVALID, "method_not_allowed"),
    "serve.error.slow": (408, "timeout_error", "request_timeout"),
    "serve.error.body": (413, _INVALID, "request_too_large"),
    "serve.error.content_type": (415, _INVALID, "unsupported_media_type"),
    "serve.error.rate": (429, "rate_limit_error", "rate_limit_exceeded"),
    "serve.error.queue": (429, "rate_limit_error", "queue_full"),
    "serve.error.internal": (500, "server_error", "internal_error"),
    "serve.error.loading": (503, "server_error", "model_loading"),
    "serve.error.engine": (503, "server_error", "engine_failed"),
    "serve.error.deadline": (504, "timeout_error", "deadline_exceeded"),
}
"""The status of each refusal, and OpenAI's ``type`` and ``code``."""


class RequestError(WeitiaoError):
    """A request that is not answered. ``key`` decides its status; ``param`` is what it is about.

    ``retry_after``: seconds after which it may be asked again.
    """

    kinds: ClassVar[Kinds] = _KINDS

    def __init__(
        self,
        key: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        **values: object,
    ) -> None:
        super().__init__(key, **values)
        self.param, self.retry_after = param, retry_after
        self.status, self.type, self.code = self.kinds[key]

    def body(self, tongue: Language | None = None) -> dict[str, Any]:
        """Return what is answered, its sentence in ``tongue``."""
        told = {"type": self.type, "param": self.param, "code": self.code}
        return {"error": {"message": self.sentence(tongue), **told}}


class ClientGoneError(Exception):
    """Who asked has closed the connection."""


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every refusal."""

    error: ErrorDetail


def tongue_of(accepted: str | None) -> Language:
    """Return the first of our languages in an ``Accept-Language``; else the server's own."""
    weighed: list[tuple[float, str]] = []
    for part in (accepted or "").lower().split(","):
        tag, _, weight = part.strip().partition(";")
        found = re.fullmatch(r"\s*q=([01](?:\.\d+)?)\s*", weight)
        weighed.append((float(found[1]) if found else 1.0, tag))
    for importance, tag in sorted(weighed, key=lambda w: -w[0]):
        if importance and tag.startswith("zh"):
            return "zh"
        if importance and tag.startswith("en"):
            return "en"
    return language()


UNSUPPORTED = frozenset(
    ("frequency_penalty", "presence_penalty", "logit_bias", "response_format", "best_of", "suffix")
)
"""Fields that can be asked for in OpenAI's protocol, and are taken only where they say nothing."""

_EXPECTED = {
    "int": "expected.whole_number",
    "float": "expected.number",
    "bool": "expected.bool",
    "string": "expected.text",
    "list": "expected.list",
    "dict": "serve.expected.object",
    "model": "serve.expected.object",
    "greater": "expected.at_least",
    "less": "expected.at_most",
    "missing": "serve.expected.value",
}
"""What is said of pydantic's error types, by their first word."""


def refusal(faults: Sequence[Mapping[str, Any]], body: object, tongue: Language) -> RequestError:
    """Return the sentence about the first faulty field of ``body``."""
    if faults[0]["type"] == "json_invalid":
        why = faults[0]["ctx"]["error"]
        return RequestError("serve.error.json", why=why, place=faults[0]["loc"][-1])
    path = _path(faults[0], body)
    alike = [fault for fault in faults if _path(fault, body) == path]
    field, first = ".".join(map(str, path)), str(path[0]) if path else ""
    if first in UNSUPPORTED:
        return RequestError("serve.error.unsupported", param=field, field=first)
    wanted = dict.fromkeys(_wanted(fault, tongue) for fault in alike)
    return RequestError(
        "serve.error.value",
        param=field or None,
        field=field or "body",
        expected=say("expected.or", tongue).join(wanted),
        value=_shown(faults[0]),
    )


def _path(fault: Mapping[str, Any], body: object) -> tuple[str | int, ...]:
    """Leave out the names of union branches, which are not in the request."""
    path: list[str | int] = []
    for part in fault["loc"][1:]:
        in_list = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if in_list or (isinstance(body, dict) and part in body):
            body = body[part]  # type: ignore[index]
        elif fault["type"] != "missing" or part != fault["loc"][-1]:
            continue
        path.append(part)
    return tuple(path)


def _wanted(fault: Mapping[str, Any], tongue: Language) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "literal_error":
        choices = ", ".join(re.findall(r"'([^']*)'", str(context["expected"])))
        return say("expected.one_of", tongue, choices=choices or context["expected"])
    bounds = ("ge", "le", "gt", "lt", "min_length", "max_length")
    bound = next((context[name] for name in bounds if name in context), "")
    if kind.endswith("too_short"):
        return say("serve.expected.longer", tongue, bound=bound)
    if kind.endswith("too_long"):
        return say("serve.expected.shorter", tongue, bound=bound)
    key = _EXPECTED.get(kind.split("_")[0])
    return say(key, tongue, bound=bound) if key else str(fault["msg"])


def _shown(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "missing":
        return "–"
    shown = fault["input"] if isinstance(fault["input"], str) else repr(fault["input"])
    # Half of a character, which JSON can hold, could not be sent back.
    shown = shown[:61].encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= 60 else f"{shown[:57]}…"

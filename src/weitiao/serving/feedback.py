"""What people say of answers: POST /v1/feedback."""

from typing import Any, Literal

import orjson
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from weitiao.serving.answering import seen_of
from weitiao.serving.app import allowed
from weitiao.serving.bodies import LargeBodyRoute
from weitiao.serving.faults import ErrorBody, Kinds, RequestError
from weitiao.serving.request_log import Feedback, RequestLog, Thumb
from weitiao.serving.wire import ChatMessage

_KINDS: Kinds = {
    "feedback.error.unknown": (404, "invalid_request_error", "request_not_found"),
    "feedback.error.store": (503, "server_error", "store_failed"),
}
_REFUSALS = {
    400: "The request is not understood.",
    401: "The key is missing or unknown.",
    403: "The Host header is none of this computer's names.",
    404: "There is no such answer, or another key asked for it.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too often; Retry-After tells when to come back.",
    503: "The feedback could not be written down.",
}


class FeedbackRequestError(RequestError):
    """Feedback that is not taken; see :class:`RequestError`."""

    kinds = _KINDS


class FeedbackRequest(BaseModel):
    """All that somebody says of an answer. Of several on one answer the last counts.

    One that says nothing takes back what was said before.
    """

    model_config = ConfigDict(strict=True, extra="ignore", use_attribute_docstrings=True)

    request_id: str = Field(min_length=1, max_length=200)
    """The answer's id (chatcmpl-…), or the X-Request-Id that came with it."""

    thumb: Thumb | None = None
    """Whether the answer is good."""

    correction: str | None = None
    """What should have been answered."""

    comment: str | None = None
    """Anything else."""

    messages: list[ChatMessage] | None = None
    """What was asked, where the server does not write questions down; the model's own system prompt
    need not be told."""

    answer: str | None = None
    """What was answered, where the server does not write answers down."""


class FeedbackKept(BaseModel):
    """The feedback is written down."""

    id: str
    object: Literal["feedback"]
    request_id: str


def feedback_router(log: RequestLog) -> APIRouter:
    """Return the route by which feedback comes into ``log``."""
    router = APIRouter(route_class=LargeBodyRoute)

    @router.post(
        "/v1/feedback",
        dependencies=[Depends(allowed)],
        responses={
            200: {"model": FeedbackKept},
            **{status: {"model": ErrorBody, "description": t} for status, t in _REFUSALS.items()},
            "4XX": {"model": ErrorBody, "description": "Any other refusal."},
        },
    )
    async def feedback(request: Request, given: FeedbackRequest) -> Response:
        """Keep what somebody says of an answer."""
        number = await log.add(given.request_id, _said(given), seen_of(request).owner)
        if number is None:
            raise FeedbackRequestError("feedback.error.store", retry_after=30)
        if not number:
            raise FeedbackRequestError(
                "feedback.error.unknown", param="request_id", id=given.request_id
            )
        told = {"id": f"fb-{number}", "object": "feedback", "request_id": given.request_id}
        return Response(orjson.dumps(told), media_type="application/json")

    return router


def _said(given: FeedbackRequest) -> Feedback:
    messages: tuple[dict[str, Any], ...] | None = None
    if given.messages:
        messages = tuple(message.model_dump(exclude_none=True) for message in given.messages)
    return Feedback(
        given.thumb,
        (given.correction or "").strip() or None,
        (given.comment or "").strip() or None,
        messages,
        (given.answer or "").strip() or None,
    )

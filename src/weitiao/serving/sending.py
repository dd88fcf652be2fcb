"""Answers on their way out: in one piece, or as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from weitiao.serving.answering import Answer, parts, seen_of, unix_time
from weitiao.serving.asking import Questions
from weitiao.serving.desk import LOG, Desk
from weitiao.serving.faults import ClientGoneError, RequestError
from weitiao.serving.hooks import Answered
from weitiao.serving.shapes import Shape, Whole


class EventStream(Response):
    """Sends events as they come. Whatever ends it, the events are closed."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of them."""
        async with aclosing(self._events):
            head = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **head})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def whole(desk: Desk, request: Request, questions: Questions, shape: Whole) -> Response:
    """Return the answer in one piece.

    Raises:
        RequestError: it cannot be given.
        ClientGoneError: nobody listens any more.
    """
    answers = [Answer() for _ in questions.asks]
    async with aclosing(parts(desk, request, questions)) as coming:
        async for part in coming:
            answers[part.index].add(part)
    _record(desk, request, questions, shape, answers)
    return Response(orjson.dumps(shape.whole(answers)), media_type="application/json")


async def streamed(desk: Desk, request: Request, questions: Questions, shape: Shape) -> Response:
    """Return the answer as a stream, once its first part is there.

    Raises:
        RequestError: it cannot be begun; what goes wrong later is told in the stream.
        ClientGoneError: nobody listens any more.
    """
    chunks = _chunks(desk, request, questions, shape)
    first = await anext(chunks)
    return EventStream(_events(request, first, chunks))


async def _chunks(
    desk: Desk, request: Request, questions: Questions, shape: Shape
) -> AsyncGenerator[dict[str, Any], None]:
    answers = [Answer() for _ in questions.asks]
    begun = False
    async with aclosing(parts(desk, request, questions)) as coming:
        async for part in coming:
            answers[part.index].add(part)
            if not begun:
                begun = True
                for chunk in shape.opening():
                    yield chunk
            for chunk in shape.part(part):
                yield chunk
    for chunk in shape.closing(answers):
        yield chunk
    _record(desk, request, questions, shape, answers)


async def _events(
    request: Request, first: dict[str, Any], rest: AsyncGenerator[dict[str, Any], None]
) -> AsyncGenerator[bytes, None]:
    seen = seen_of(request)
    async with aclosing(rest):
        yield _event(first)
        try:
            async for chunk in rest:
                yield _event(chunk)
        except RequestError as error:
            seen.code, seen.status = error.code, error.status
            yield _event(error.body(seen.tongue))
            return
        except ClientGoneError:
            seen.status = 499
            return
        except Exception:
            LOG.exception("defect", extra={"fields": {"id": seen.id}})
            defect = RequestError("serve.error.internal", id=seen.id)
            seen.code, seen.status = defect.code, defect.status
            yield _event(defect.body(seen.tongue))
            return
    yield b"data: [DONE]\n\n"


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _record(
    desk: Desk, request: Request, questions: Questions, shape: Whole, answers: list[Answer]
) -> None:
    seen = seen_of(request)
    if desk.options.log_prompts:
        seen.texts = {"question": questions.said, "answers": [a.text for a in answers]}
    if desk.service.recorder is not None:
        own = {"role": "system", "content": questions.served.system}
        first = questions.said[:1]
        answered = Answered(
            id=shape.id,
            request_id=seen.id,
            time=unix_time(),
            seconds=asyncio.get_running_loop().time() - seen.arrived,
            route=request.url.path,
            model=questions.served.name,
            question=questions.said,
            answers=tuple(answer.text for answer in answers),
            finishes=tuple(answer.finish for answer in answers),
            prompt_tokens=questions.prompt_tokens,
            completion_tokens=sum(answer.tokens for answer in answers),
            owner=seen.owner,
            system=questions.served.system if first == [own] else None,
        )
        desk.service.recorder.record(answered)

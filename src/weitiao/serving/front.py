"""What every request goes through: its id, its key, the size of its body, the log of it."""

import asyncio
import re
import uuid
from collections.abc import Mapping

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weitiao.serving.answering import SEEN
from weitiao.serving.desk import LOG, Desk, Seen
from weitiao.serving.faults import ClientGoneError, RequestError, tongue_of
from weitiao.serving.keys import check_host

_GUARDED = ("/v1/", "/generate", "/tokenize", "/metrics", "/openapi.json")
"""The beginnings of paths that need a key."""

_BODY_SECONDS = 60
"""How long a body may take to arrive."""

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Front:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app, self._desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        seen = self._seen(request)
        scope[SEEN] = seen
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun, seen.status = True, message["status"]
                message["headers"] = [*message["headers"], *_added(message["headers"], seen)]
            await send(message)

        try:
            await self._pass(request, seen, sending)
        except ClientGoneError:
            seen.status = 499
        except RequestError as error:
            await answer_of(error, seen)(scope, receive, sending)
        except Exception:
            LOG.exception("defect", extra={"fields": {"id": seen.id}})
            if begun:
                raise
            defect = RequestError("serve.error.internal", id=seen.id)
            await answer_of(defect, seen)(scope, receive, sending)
        finally:
            self._told(scope, seen)

    def _seen(self, request: Request) -> Seen:
        given = request.headers.get("x-request-id", "")
        id_ = given if re.fullmatch(r"[\w.:-]{1,64}", given, re.ASCII) else uuid.uuid4().hex
        tongue = tongue_of(request.headers.get("accept-language"))
        return Seen(id_, tongue, asyncio.get_running_loop().time())

    async def _pass(self, request: Request, seen: Seen, send: Send) -> None:
        check_host(self._desk.options, request.headers.get("host", ""))
        path = request.scope["path"]
        if path.startswith(_GUARDED):
            given = request.headers.get("authorization", "")
            seen.asker, seen.owner = self._desk.keys.name(given), self._desk.keys.owner(given)
        if not seen.asker and request.client is not None:
            seen.asker = request.client.host
        body = await self._body(request)
        handed = False

        async def receive() -> Message:
            nonlocal handed
            if handed:
                return await request.receive()
            handed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(request.scope, receive, send)

    def _most(self, request: Request) -> int:
        """Return how many bytes a body may have: a path may have a limit of its own."""
        own: Mapping[str, int] = getattr(request.app.state, "body_limits", {})
        return own.get(request.url.path, self._desk.options.max_body_bytes)

    async def _body(self, request: Request) -> bytes:
        most, body = self._most(request), bytearray()
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise RequestError("serve.error.body", most=most)
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                more = True
                while more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise RequestError("serve.error.body", most=most)
        except TimeoutError as error:
            raise RequestError("serve.error.slow", seconds=_BODY_SECONDS) from error
        return bytes(body)

    def _told(self, scope: Scope, seen: Seen) -> None:
        """Count and log a request that is over."""
        seen.route = getattr(scope.get("route"), "path", seen.route)
        seconds = asyncio.get_running_loop().time() - seen.arrived
        metrics = self._desk.metrics
        metrics.requests.labels(seen.route, seen.status, seen.model).inc()
        metrics.seconds.labels(seen.route).observe(seconds)
        if seen.code:
            metrics.errors.labels(seen.code).inc()
        fields = {
            "id": seen.id,
            "asker": seen.asker,
            "route": seen.route,
            "status": seen.status,
            "code": seen.code,
            "model": seen.model,
            "seconds": round(seconds, 4),
            "first_token_seconds": seen.first_token and round(seen.first_token, 4),
            "prompt_tokens": seen.prompt_tokens,
            "output_tokens": seen.output_tokens,
            **seen.texts,
        }
        LOG.info("request", extra={"fields": fields})


def answer_of(error: RequestError, seen: Seen) -> Response:
    """Return a refusal, in the language of who asked."""
    seen.code = error.code
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = orjson.dumps(error.body(seen.tongue))
    return Response(body, error.status, headers, "application/json")


def _added(headers: list[tuple[bytes, bytes]], seen: Seen) -> list[tuple[bytes, bytes]]:
    there = {name.lower() for name, _ in headers}
    added = {**_HEADERS, "x-request-id": seen.id}
    pairs = [(name.encode(), value.encode()) for name, value in added.items()]
    return [pair for pair in pairs if pair[0] not in there]

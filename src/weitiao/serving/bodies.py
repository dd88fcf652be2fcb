"""Large bodies, read and checked beside the event loop, on which everybody's answers come."""

import asyncio
import gc
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import Response

_LARGE = 65_536
"""Bytes; reading a smaller body takes a millisecond or two."""

_MOST_FAULTS = 1000
"""Of these only the first is told."""

_NEVER = 2**31 - 1
_LOCK = threading.Lock()
_THRESHOLDS: list[tuple[int, int, int]] = []

T = TypeVar("T")


class LargeBodyRoute(APIRoute):
    """A route whose large bodies are parsed and validated in a thread.

    It is the ``route_class`` of every router that takes bodies.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer, field = super().get_route_handler(), self.body_field
        if field is None:
            return answer

        async def handle(request: Request) -> Response:
            read = _Read(request, field)
            try:
                return await answer(read)
            except RequestValidationError as error:
                if read.faults:
                    raise RequestValidationError(read.faults, body=read.raw) from error
                raise

        return handle


class _Read(Request):
    """A request whose JSON is, where it is large, the model that FastAPI would make of it.

    Where it is no such model it is None, which is found faulty as fast, but only after the
    dependencies (keys, rates) were asked; ``faults`` tells what is wrong with it in truth.
    """

    def __init__(self, request: Request, field: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._field = field
        self.faults: list[Any] = []
        self.raw: Any = None

    async def json(self) -> Any:
        """Return what the body is."""
        body = await self.body()
        if len(body) < _LARGE:
            return await super().json()
        return await asyncio.to_thread(self._validated, body)

    def _validated(self, body: bytes) -> Any:
        raw = json.loads(body, object_hook=let_others)
        made, faults = self._field.validate(raw, {}, loc=("body",))
        if not faults:
            return made
        self.faults, self.raw = faults[:_MOST_FAULTS], raw
        return None


def let_others(read: T) -> T:
    """Do nothing: a call of Python code is where a parser or pydantic lets other threads go on."""
    return read


@contextmanager
def full_collections_put_off() -> Iterator[None]:
    """Within, the garbage collector looks at what is new only.

    Else it looks at all that a large body is made of, several times, and everybody waits for it.
    It is for what is over in seconds; threads may overlap.
    """
    with _LOCK:
        _THRESHOLDS.append(gc.get_threshold())
        gc.set_threshold(*_THRESHOLDS[0][:2], _NEVER)
    try:
        yield
    finally:
        with _LOCK:
            # The first is the usual one, and is left for the last to go.
            gc.set_threshold(*_THRESHOLDS.pop())

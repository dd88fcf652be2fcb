"""How a job's prompts are asked: within the server, or of a server over HTTP."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson
from starlette.requests import Request
from starlette.types import Message

from weitiao.serving import asking
from weitiao.serving.answering import SEEN
from weitiao.serving.desk import LOG, Desk, Seen
from weitiao.serving.faults import RequestError
from weitiao.serving.jobs.document import ROUTES
from weitiao.serving.jobs.store import Job
from weitiao.serving.jobs.turns import Turns
from weitiao.serving.keys import owner_of
from weitiao.serving.sending import whole
from weitiao.serving.shapes import ChatShape, PlainShape, TextShape
from weitiao.serving.wire import ChatRequest, CompletionRequest, GenerateRequest
from weitiao.words import language

Asker = Callable[[str, Mapping[str, Any], float], Coroutine[Any, Any, dict[str, Any]]]
"""Takes a route and a body, returns the answer's; see :class:`RefusedError` for what it raises.

The number is how many times as long as the server's deadline the answer may take.
"""

_LOOK_SECONDS = 0.05
_GIVES_WAY_SECONDS = 30.0
_LONGEST_ANSWER = 3600.0


class RefusedError(Exception):
    """What was asked is not answered: the status, or 0 where nobody could be asked, and why."""

    def __init__(
        self, status: int, error: Mapping[str, Any], retry_after: int | None = None
    ) -> None:
        super().__init__(status, error)
        self.status, self.error, self.retry_after = status, error, retry_after


class _Patient:
    """A desk whose requests may take so many times as long."""

    def __init__(self, desk: Desk, times: float) -> None:
        seconds = desk.options.deadline_seconds * times
        self._desk = desk
        self.options = desk.options.model_copy(update={"deadline_seconds": seconds})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk, name)


def within(desk: Desk, turns: Turns, owner: str) -> Asker:
    """Ask the engine as a request of the owner's does, but in turn with the jobs of others.

    Requests that wait for the engine go first. Each ask takes one from the rate limit of the
    owner's key, and waits until there is one.
    """
    # The owner passed with this key. Where it is gone since, or there are none, all the same.
    keys = (key for key in desk.options.api_keys if desk.keys and owner_of(key) == owner)
    asker = next((desk.keys.name(f"Bearer {key}") for key in keys), owner)

    async def ask(url: str, body: Mapping[str, Any], times: float) -> dict[str, Any]:
        await _take_one(desk, asker)
        async with turns.turn(owner):
            await _give_way(desk)
            return await _asked(cast("Desk", _Patient(desk, times)), owner, url, body)

    return ask


async def _asked(desk: Desk, owner: str, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    now = asyncio.get_running_loop().time()
    seen = Seen(uuid.uuid4().hex, language(), now, "jobs", owner=owner)
    scope = {"type": "http", "method": "POST", "path": url, "query_string": b"", "headers": []}
    request = Request({**scope, SEEN: seen}, _silence)
    try:
        return await _answered(desk, request, url, body)
    except RequestError as error:
        refused = error
    except Exception:
        # As at the front: a defect that one prompt meets does not end the others.
        LOG.exception("defect", extra={"fields": {"id": seen.id}})
        refused = RequestError("serve.error.internal", id=seen.id)
    raise RefusedError(refused.status, refused.body()["error"], refused.retry_after)


async def _answered(
    desk: Desk, request: Request, url: str, body: Mapping[str, Any]
) -> dict[str, Any]:
    asked = ROUTES[url].model_validate(body)
    shape: ChatShape | TextShape | PlainShape
    if isinstance(asked, ChatRequest):
        questions = await asking.of_chat(desk, asked)
        shape = ChatShape(questions, bool(asked.logprobs), False)
    elif isinstance(asked, CompletionRequest):
        questions = await asking.of_text(desk, asked)
        shape = TextShape(questions, (), asked.logprobs is not None, False)
    else:
        questions = await asking.of_question(desk, cast("GenerateRequest", asked))
        shape = PlainShape(questions)
    response = await whole(desk, request, questions, shape)
    return cast("dict[str, Any]", orjson.loads(response.body))


async def _take_one(desk: Desk, asker: str) -> None:
    """Wait until the asker may ask again, and count it."""
    while True:
        try:
            return desk.rate.take(asker)
        except RequestError as error:
            await asyncio.sleep(error.retry_after or 1)


async def _give_way(desk: Desk) -> None:
    """Wait until nobody does, but not for ever: a job on a busy server still gets on."""
    try:
        async with asyncio.timeout(_GIVES_WAY_SECONDS):
            while desk.service.engine.load().waiting:
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        return


async def _silence() -> Message:
    """Be a client that never goes away."""
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def over_http(server: str, job: Job) -> AsyncIterator[Asker]:
    """Yield what has the server at that address ask as it would itself, for who holds the job."""
    import httpx2

    headers = {"authorization": f"Bearer {job.worker}", "content-type": "application/json"}
    timeout = httpx2.Timeout(_LONGEST_ANSWER, connect=10.0)
    async with httpx2.AsyncClient(
        base_url=server, headers=headers, timeout=timeout, trust_env=False
    ) as client:

        async def ask(url: str, body: Mapping[str, Any], times: float) -> dict[str, Any]:
            try:
                asked = json.dumps({"url": url, "body": body, "times": times}, ensure_ascii=False)
                # Half of a character is refused by the server, not by ourselves.
                content = asked.encode("utf-8", "surrogatepass")
                reply = await client.post(f"/jobs/{job.id}/ask", content=content)
                told = reply.json()
            except (httpx2.HTTPError, ValueError) as error:
                raise RefusedError(0, {"message": str(error) or type(error).__name__}) from error
            if reply.status_code == 200:
                return cast("dict[str, Any]", told)
            given = told.get("error") if isinstance(told, dict) else None
            # What stands between may answer, too, and in a shape of its own.
            why = given if isinstance(given, dict) else {"message": reply.text[:200]}
            after = reply.headers.get("retry-after", "")
            raise RefusedError(reply.status_code, why, int(after) if after.isdecimal() else None)

        yield ask

"""The routes of jobs: begin, look, fetch, cancel, retry, delete; and ask, for workers."""

import asyncio
import hmac
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, cast

import orjson
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from weitiao.serving.answering import seen_of
from weitiao.serving.app import OurDesk, allowed
from weitiao.serving.bodies import LargeBodyRoute, full_collections_put_off
from weitiao.serving.faults import ClientGoneError, ErrorBody
from weitiao.serving.jobs.asking import RefusedError, within
from weitiao.serving.jobs.asks import asks_of
from weitiao.serving.jobs.faults import JobRequestError
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.shapes import Deleted, JobList, JobRequest, JobTold, told
from weitiao.serving.jobs.store import Job, Store
from weitiao.serving.jobs.turns import Turns


class _Route(LargeBodyRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def handle(request: Request) -> Response:
            with full_collections_put_off():
                return await answer(request)

        return handle


ROUTER = APIRouter(prefix="/v1/jobs", route_class=_Route)
"""Needs a :class:`Board` as ``state.jobs`` of the application."""

WORKERS = APIRouter(prefix="/jobs", include_in_schema=False)
"""What workers elsewhere ask; it needs no key, but the token of the job that is being done."""

_REFUSALS = {
    400: "The request is not understood.",
    401: "The key is missing or unknown.",
    403: "The Host header is none of this computer's names.",
    404: "There is no such job, or it is another key's.",
    409: "The job's state does not allow it.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Too many jobs wait, or too many requests came; Retry-After tells when to come back.",
}
_LINES = {"application/x-ndjson": {"schema": {"type": "string"}}}
_JSON = "application/json"
_COME_BACK = 30


@dataclass(frozen=True, slots=True)
class Board:
    """The table, what may stand in it, and what is called when a job is queued."""

    store: Store
    options: JobOptions
    wake: Callable[[], None]
    turns: Turns


def _board(request: Request) -> Board:
    return cast("Board", request.app.state.jobs)


_Board = Annotated[Board, Depends(_board)]


def _owned(request: Request, board: _Board, job: str) -> Job:
    found = board.store.get(job)
    if found is None or found.owner != seen_of(request).owner:
        raise JobRequestError("jobs.error.unknown", job=job[:100])
    return found


_Job = Annotated[Job, Depends(_owned)]


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    told: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": _REFUSALS[status]} for status in statuses
    }
    return {**told, "4XX": {"model": ErrorBody, "description": "Any other refusal."}}


# None is async: the table's file is waited for in a thread, and no other request waits for it.
@ROUTER.post(
    "",
    status_code=202,
    dependencies=[Depends(allowed)],
    responses={202: {"model": JobTold}, **_refusals(400, 401, 403, 404, 413, 415, 429)},
)
def begin(request: Request, desk: OurDesk, board: _Board, asked: JobRequest) -> Response:
    """Queue a job."""
    spec, asks = asks_of(desk, asked, board.options.max_items, seen_of(request).tongue)
    owner = seen_of(request).owner
    waiting = board.store.unfinished(owner)
    if waiting >= board.options.max_jobs:
        raise JobRequestError("jobs.error.full", retry_after=_COME_BACK, waiting=waiting)
    job = board.store.add(owner, asked.kind, spec, asks)
    board.wake()
    return _told(request, job, 202)


@ROUTER.get("", responses={200: {"model": JobList}, **_refusals(400, 401, 403)})
def newest(
    request: Request, board: _Board, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """Tell of the last jobs, the newest first."""
    tongue = seen_of(request).tongue
    data = [told(job, tongue) for job in board.store.newest(seen_of(request).owner, limit)]
    return _json({"object": "list", "data": data})


@ROUTER.get("/{job}", responses={200: {"model": JobTold}, **_refusals(401, 403, 404)})
def one(request: Request, job: _Job) -> Response:
    """Tell how far a job is."""
    return _told(request, job)


@ROUTER.get(
    "/{job}/result",
    response_class=StreamingResponse,
    responses={200: {"content": _LINES}, **_refusals(400, 401, 403, 404, 409)},
)
def result(board: _Board, job: _Job, partial: bool = False) -> Response:
    """Send the results, a line of JSON each, in the order of the asks.

    Those of a job that is not done are sent with partial=true.
    """
    if job.state != "done" and not partial:
        raise _wrong_state(job)
    lines = (line.encode() + b"\n" for line in board.store.results(job.id))
    return StreamingResponse(lines, media_type="application/x-ndjson")


@ROUTER.post("/{job}/cancel", responses={200: {"model": JobTold}, **_refusals(401, 403, 404, 409)})
def cancel(request: Request, board: _Board, job: _Job) -> Response:
    """End a job; one that runs, at its next answer."""
    if not board.store.cancel(job.id):
        raise _wrong_state(job)
    return _told(request, _owned(request, board, job.id))


@ROUTER.post("/{job}/retry", responses={200: {"model": JobTold}, **_refusals(401, 403, 404, 409)})
def retry(request: Request, board: _Board, job: _Job) -> Response:
    """Queue a job again, for what has failed or is left of it."""
    if not board.store.retry(job.id):
        raise _wrong_state(job)
    board.wake()
    return _told(request, _owned(request, board, job.id))


@ROUTER.delete("/{job}", responses={200: {"model": Deleted}, **_refusals(401, 403, 404)})
def delete(board: _Board, job: _Job) -> Response:
    """End a job if it runs, and forget it and its results."""
    board.store.delete(job.id)
    return _json({"id": job.id, "object": "job", "deleted": True})


@WORKERS.post("/{job}/ask")
async def ask(request: Request, desk: OurDesk, board: _Board, job: str) -> Response:
    """Ask for who does a job as the server does for its own; see over_http."""
    held = await asyncio.to_thread(_held, board, job, request.headers.get("authorization", ""))
    # Not orjson, which takes no half of a character: that is for the prompt's own refusal.
    asked = await asyncio.to_thread(json.loads, await request.body())
    asker = within(desk, board.turns, held.owner)
    doing = asyncio.create_task(asker(asked["url"], asked["body"], asked["times"]))
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((doing, gone), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientGoneError
        return _json(doing.result())
    except RefusedError as error:
        headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        return Response(orjson.dumps({"error": error.error}), error.status, headers, _JSON)
    finally:
        for task in (doing, gone):
            task.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)


def _held(board: Board, job: str, authorization: str) -> Job:
    found, token = board.store.get(job), authorization.partition(" ")[2]
    # New with every claim, it stands nowhere but in the table.
    known = (found.worker if found and found.state == "running" else None) or ""
    if not (found and known and hmac.compare_digest(known.encode(), token.encode())):
        raise JobRequestError("jobs.error.not_held", job=job[:100])
    return found


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _wrong_state(job: Job) -> JobRequestError:
    return JobRequestError("jobs.error.state", job=job.id, state=job.state)


def _told(request: Request, job: Job, status: int = 200) -> Response:
    return _json(told(job, seen_of(request).tongue), status)


def _json(told: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(told), status, media_type=_JSON)

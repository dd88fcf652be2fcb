"""Servers with jobs, and how they are asked."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving.counting import CountingEngine, echo, encode, last_said, service, wait_for
from weitiao.serving.app import create_app
from weitiao.serving.engine import Ask
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.running import add_jobs

QUESTION = {"role": "user", "content": "一"}
BATCH = {"kind": "batch", "requests": ["一"]}
MINE, THEIRS = ({"authorization": f"Bearer {key}"} for key in ("one", "other"))


def until(happened: Callable[[], object]) -> None:
    """Wait for it, however slow the machine is."""
    wait_for(happened, 100)


def made(
    path: Path,
    engine: CountingEngine | None = None,
    jobs: JobOptions | None = None,
    **options: Any,
) -> FastAPI:
    app = create_app(service(engine, **options))
    add_jobs(app, path / "jobs.sqlite", jobs or JobOptions(stale_seconds=20))
    return app


@contextmanager
def served(
    path: Path,
    engine: CountingEngine | None = None,
    jobs: JobOptions | None = None,
    **options: Any,
) -> Iterator[TestClient]:
    app = made(path, engine, jobs, **options)
    with TestClient(app, base_url="http://127.0.0.1", headers={"accept-language": "en"}) as client:
        until(lambda: client.get("/ready").status_code == 200)
        yield client


@contextmanager
def listening(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve in a thread of this process; yields the address."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started and app.state.desk.state == "ready")
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(100)


def stalls(engine: CountingEngine, after: int) -> None:
    """Let the engine answer so many asks, or nearly, and then nothing to anybody."""

    def reply(ask: Ask) -> Sequence[int]:
        if len(engine.asks) > after:
            engine.pace = 1000
        return echo(ask)

    engine.reply = reply


def shut() -> CountingEngine:
    """An engine that begins to answer, one at a time, when it is asked 开始."""

    def reply(ask: Ask) -> Sequence[int]:
        if last_said(ask) == "开始":
            engine._slots.release()
        return echo(ask)

    engine = CountingEngine(reply, slots=0)
    return engine


def begin(client: TestClient, headers: Any = None, **asked: Any) -> str:
    """Begin a job; returns its place."""
    reply = client.post("/v1/jobs", json=asked, headers=headers)
    assert reply.status_code == 202, reply.text
    return f"/v1/jobs/{reply.json()['id']}"


def told_of(client: TestClient, place: str, headers: Any = None) -> dict[str, Any]:
    told: dict[str, Any] = client.get(place, headers=headers).json()
    return told


def ended(client: TestClient, place: str, headers: Any = None) -> dict[str, Any]:
    until(lambda: told_of(client, place, headers)["state"] not in ("queued", "running"))
    return told_of(client, place, headers)


def results(client: TestClient, place: str, query: str = "") -> list[dict[str, Any]]:
    reply = client.get(f"{place}/result{query}")
    assert reply.status_code == 200, reply.text
    return [orjson.loads(line) for line in reply.text.splitlines()]


def content(line: dict[str, Any]) -> str:
    return str(line["response"]["body"]["choices"][0]["message"]["content"])


def fails_on(word: str) -> Callable[[Ask], list[int]]:
    """Break while a question holds the word."""

    def reply(ask: Ask) -> list[int]:
        if word in last_said(ask):
            raise RuntimeError("a defect of the test's engine")
        return encode(last_said(ask))

    return reply

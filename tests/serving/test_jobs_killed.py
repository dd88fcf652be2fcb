"""kill -9 in the middle of a job: it goes on, and every result is there once."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from serving.counting import CountingEngine, echo
from serving.jobs_use import ended, listening, made, stalls, told_of, until
from serving.redis_use import free_port, redis_at, worker
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.options import ServeOptions
from weitiao.serving.running import run_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a server is forked, then killed")

QUESTIONS = [f"第{i}题的标记是{i * 7919}" for i in range(24)]
BATCH = {"kind": "batch", "requests": QUESTIONS}
ANSWERED = 8
"""After so many asks, nearly, who does the job is killed."""


def options(broker: str | None = None) -> JobOptions:
    return JobOptions(stale_seconds=1, broker=broker)


def serve(folder: Path, port: int, answers: int) -> None:
    engine = CountingEngine()
    stalls(engine, answers)
    run_server(made(folder, engine, options(), port=port), ServeOptions(port=port))


@contextmanager
def server(folder: Path, port: int, after: int) -> Iterator[tuple[Any, httpx.Client]]:
    """A server in a process of its own, which begins with all that is loaded here."""
    started = multiprocessing.get_context("fork").Process(target=serve, args=(folder, port, after))
    started.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=100) as client:
            until(lambda: answers(lambda: client.get("/ready").status_code == 200))
            yield started, client
    finally:
        started.kill()
        started.join()


def answers(asked: Callable[[], bool]) -> bool:
    try:
        return asked()
    except httpx.TransportError:
        return False


def begun(client: httpx.Client, fewest: int = 3) -> str:
    """Begin the batch; returns when some of it is done, but not all."""
    job = client.post("/v1/jobs", json=BATCH)
    assert job.status_code == 202, job.text
    place = f"/v1/jobs/{job.json()['id']}"
    until(lambda: told_of(client, place)["progress"]["done"] >= fewest)
    return place


def lines(client: httpx.Client, place: str) -> list[dict[str, Any]]:
    found = client.get(f"{place}/result?partial=true")
    return [orjson.loads(line) for line in found.text.splitlines()]


def check_all_once(client: httpx.Client, place: str, before: list[dict[str, Any]]) -> None:
    after = lines(client, place)
    assert [line["index"] for line in after] == list(range(len(QUESTIONS)))
    assert [line["response"]["body"]["response"] for line in after] == QUESTIONS
    # What was answered before was not answered again: each answer has an id of its own.
    ids = {line["index"]: line["response"]["body"]["id"] for line in after}
    assert 0 < len(before) < len(QUESTIONS)
    assert all(ids[line["index"]] == line["response"]["body"]["id"] for line in before)
    assert len(set(ids.values())) == len(QUESTIONS)


def check_went_on(client: Any, place: str, before: list[dict[str, Any]]) -> None:
    told = ended(client, place)
    # On a slow machine, who lives may be taken for dead, too: that does no harm.
    assert (told["state"], told["attempts"] >= 2) == ("done", True)
    check_all_once(client, place, before)


def test_a_server_killed_in_mid_job_goes_on_after_its_restart(tmp_path: Path) -> None:
    port = free_port()
    with server(tmp_path, port, ANSWERED) as (running, client):
        place = begun(client)
        before = lines(client, place)
        running.kill()
        running.join()
    with server(tmp_path, port, 1000) as (_, client):
        check_went_on(client, place, before)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    with redis_at(tmp_path) as address:
        yield address


def test_a_celery_worker_killed_in_mid_job_is_followed_by_another(
    tmp_path: Path, broker: str
) -> None:
    engine = CountingEngine()
    stalls(engine, ANSWERED)
    app = made(tmp_path, engine, options(broker))
    with listening(app) as address, httpx.Client(base_url=address, timeout=100) as client:
        with worker(broker, tmp_path, address) as first:
            place = begun(client)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            before = lines(client, place)
        # What it had asked is given up, so that others are answered.
        until(lambda: engine.load().running == 0)
        engine.reply, engine.pace = echo, 0
        with worker(broker, tmp_path, address):
            check_went_on(client, place, before)

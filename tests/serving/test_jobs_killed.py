"""kill -9 in the middle of a job: it goes on, and every result is there once."""

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from fastapi import FastAPI

from serving.counting import CountingEngine, service, wait_for
from weitiao.serving.app import create_app
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.running import add_jobs
from weitiao.serving.options import ServeOptions
from weitiao.serving.running import run_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a server is forked, then killed")

QUESTIONS = [f"第{i}题的标记是{i * 7919}" for i in range(24)]
BATCH = {"kind": "batch", "requests": QUESTIONS}
PACE = 0.01


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def made(table: Path, port: int, broker: str | None = None) -> FastAPI:
    app = create_app(service(CountingEngine(pace=PACE), port=port))
    add_jobs(app, table, JobOptions(stale_seconds=1, broker=broker))
    return app


def serve(table: Path, port: int) -> None:
    run_server(made(table, port), ServeOptions(port=port))


@contextmanager
def server(table: Path, port: int) -> Iterator[tuple[Any, httpx.Client]]:
    """A server in a process of its own, which begins with all that is loaded here."""
    started = multiprocessing.get_context("fork").Process(target=serve, args=(table, port))
    started.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            wait_for(lambda: answers(lambda: client.get("/ready").status_code == 200), 60)
            yield started, client
    finally:
        started.kill()
        started.join()


def answers(asked: Callable[[], bool]) -> bool:
    try:
        return asked()
    except httpx.TransportError:
        return False


@contextmanager
def process(*command: str, **env: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A program in a group of its own, killed with all of its children at the end."""
    started = subprocess.Popen(command, env={**os.environ, **env}, start_new_session=True)
    try:
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def begun(client: httpx.Client, fewest: int = 3) -> str:
    """Begin the batch; returns when some of it is done, but not all."""
    job = client.post("/v1/jobs", json=BATCH)
    assert job.status_code == 202, job.text
    place = f"/v1/jobs/{job.json()['id']}"
    wait_for(lambda: client.get(place).json()["progress"]["done"] >= fewest, 60)
    return place


def lines(client: httpx.Client, place: str) -> list[dict[str, Any]]:
    found = client.get(f"{place}/result?partial=true")
    return [orjson.loads(line) for line in found.text.splitlines()]


def finished(client: httpx.Client, place: str) -> dict[str, Any]:
    wait_for(lambda: client.get(place).json()["state"] not in ("queued", "running"), 60)
    told: dict[str, Any] = client.get(place).json()
    return told


def check_all_once(client: httpx.Client, place: str, before: list[dict[str, Any]]) -> None:
    after = lines(client, place)
    assert [line["index"] for line in after] == list(range(len(QUESTIONS)))
    assert [line["response"]["body"]["response"] for line in after] == QUESTIONS
    # What was answered before was not answered again: each answer has an id of its own.
    ids = {line["index"]: line["response"]["body"]["id"] for line in after}
    assert 0 < len(before) < len(QUESTIONS)
    assert all(ids[line["index"]] == line["response"]["body"]["id"] for line in before)
    assert len(set(ids.values())) == len(QUESTIONS)


def test_a_server_killed_in_mid_job_goes_on_after_its_restart(tmp_path: Path) -> None:
    table, port = tmp_path / "jobs.sqlite", free_port()
    with server(table, port) as (running, client):
        place = begun(client)
        before = lines(client, place)
        running.kill()
        running.join()
    with server(table, port) as (_, client):
        told = finished(client, place)
        assert (told["state"], told["attempts"]) == ("done", 2)
        check_all_once(client, place, before)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    redis = shutil.which("redis-server")
    if redis is None:
        pytest.skip("redis-server is not installed")
    pytest.importorskip("celery")
    client = pytest.importorskip("redis")
    port = free_port()
    here = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", "")
    with process(redis, *here, "--loglevel", "warning"):
        with client.Redis(port=port) as connected:
            refused = client.ConnectionError

            def pong() -> bool:
                try:
                    return bool(connected.ping())
                except refused:
                    return False

            wait_for(pong, 20)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def listening(table: Path, port: int, broker: str) -> Iterator[httpx.Client]:
    """A server in a thread, which leaves the jobs to others."""
    running = uvicorn.Server(uvicorn.Config(made(table, port, broker), port=port, log_config=None))
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        wait_for(lambda: running.started, 20)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client
    finally:
        running.should_exit = True
        thread.join(10)


def worker(broker: str, table: Path, port: int) -> Any:
    module = "weitiao.serving.jobs.celery_app"
    alone = ("--concurrency", "1", "--without-gossip", "--without-mingle", "-l", "ERROR")
    return process(
        *(sys.executable, "-m", "celery", "-A", module, "worker", *alone),
        OMP_NUM_THREADS="1",
        WEITIAO_JOBS=broker,
        WEITIAO_JOBS_FILE=str(table),
        WEITIAO_JOBS_SERVER=f"http://127.0.0.1:{port}",
    )


def test_a_celery_worker_killed_in_mid_job_is_followed_by_another(
    tmp_path: Path, broker: str
) -> None:
    table, port = tmp_path / "jobs.sqlite", free_port()
    with listening(table, port, broker) as client:
        with worker(broker, table, port) as first:
            place = begun(client)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            before = lines(client, place)
        with worker(broker, table, port):
            told = finished(client, place)
            assert (told["state"], told["attempts"]) == ("done", 2)
            check_all_once(client, place, before)

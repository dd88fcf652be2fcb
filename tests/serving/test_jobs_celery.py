"""Celery's workers ask the server: as its own jobs do, without a key, and for nobody else."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from serving.counting import CountingEngine, echo
from serving.jobs_use import MINE, THEIRS, content, listening, made, shut, stalls, until
from serving.test_jobs_workers import check_requests_first
from weitiao.serving.gate import RateLimit
from weitiao.serving.jobs.asking import owner_of
from weitiao.serving.jobs.celery_broker import RUNNER
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.store import Job, Store

pytest.importorskip("celery")
pytest.importorskip("redis")

# Nobody listens there: what it would be told, the tests tell it.
ELSEWHERE = JobOptions(broker="redis://127.0.0.1:1/0", parallel=1)
ASK = {"url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "任务"}]}}
Work = Callable[..., None]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Does the next job as a worker that was told that there is work."""
    from weitiao.serving.jobs.celery_app import app, do_next

    app.conf.broker_url = "memory://"

    def worked(store: Store, address: str, **how: Any) -> None:
        monkeypatch.setenv("WEITIAO_JOBS_FILE", str(store.path))
        monkeypatch.setenv("WEITIAO_JOBS_SERVER", address)
        do_next({**ELSEWHERE.model_dump(exclude={"broker"}), **how})

    return worked


def state(store: Store, job: Job) -> tuple[str, str | None]:
    found = store.get(job.id)
    assert found is not None
    return found.state, found.reason and found.reason[0]


def test_a_worker_needs_no_key_and_counts_for_whose_job_it_is(tmp_path: Path, work: Work) -> None:
    app = made(tmp_path, jobs=ELSEWHERE, api_keys=("one", "other"))
    app.state.desk.rate = RateLimit(3, lambda: 0.0)
    store = Store(tmp_path / "jobs.sqlite")
    job = store.add(owner_of("one"), "batch", {}, [ASK] * 3)
    with listening(app) as address:
        work(store, address)

        def asked(headers: dict[str, str]) -> int:
            url = f"{address}/generate"
            return httpx.post(url, json={"prompt": "一"}, headers=headers).status_code

        assert (asked(MINE), asked(THEIRS)) == (429, 200)
    assert state(store, job) == ("done", None)
    assert [content(orjson.loads(line)) for line in store.results(job.id)] == ["任务"] * 3


def test_who_does_not_do_the_job_is_refused(tmp_path: Path) -> None:
    app = made(tmp_path, jobs=ELSEWHERE)
    store = Store(tmp_path / "jobs.sqlite")
    for owner in ("one", "other"):
        store.add(owner, "batch", {}, [ASK])
    held, other = (store.claim(RUNNER) for _ in range(2))
    assert held is not None
    assert other is not None
    with listening(app) as address, httpx.Client(base_url=address) as client:

        def asked(job: str, token: str | None) -> int:
            headers = {"authorization": f"Bearer {token}"} if token is not None else {}
            reply = client.post(f"/jobs/{job}/ask", json={**ASK, "times": 1.0}, headers=headers)
            return reply.status_code

        assert asked(held.id, held.worker) == 200
        for token in (None, "None", "x", other.worker):
            assert asked(held.id, token) == 403
        assert asked("job-1", held.worker) == 403
        assert store.cancel(held.id)
        assert not store.beat(held)
        assert asked(held.id, held.worker) == 403
        assert "/jobs/{job}/ask" not in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("how", ["batch", "dialogue"])
def test_a_server_of_another_table_is_told_at_once(tmp_path: Path, work: Work, how: Any) -> None:
    (tmp_path / "other").mkdir()
    store = Store(tmp_path / "other" / "jobs.sqlite")
    job = store.add("", how, {}, [ASK])
    with listening(made(tmp_path, jobs=ELSEWHERE)) as address:
        work(store, address)
    assert state(store, job) == ("failed", "jobs.failed.refused")
    found = store.get(job.id)
    assert found is not None
    assert found.reason is not None
    assert "WEITIAO_JOBS_SERVER" in found.reason[1]["why"]


def test_requests_go_before_the_asks_of_a_worker(tmp_path: Path, work: Work) -> None:
    engine, store = shut(), Store(tmp_path / "jobs.sqlite")
    job = store.add("", "batch", {}, [{"url": "/generate", "body": {"prompt": "任务"}}] * 5)
    with listening(made(tmp_path, engine, ELSEWHERE)) as address:
        # It would ask four at once, but the server has one of a job asked at a time.
        working = threading.Thread(target=work, args=(store, address), kwargs={"parallel": 4})
        working.start()
        until(lambda: len(engine.asks) == 1)
        with httpx.Client(base_url=address, timeout=100) as client:
            check_requests_first(engine, client.post)
        working.join()
    assert state(store, job) == ("done", None)


def test_a_worker_has_more_time_with_each_try(tmp_path: Path, work: Work) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    job = store.add("", "batch", {}, [{"url": "/generate", "body": {"prompt": "一二三四五六"}}])
    app = made(tmp_path, CountingEngine(pace=0.1), ELSEWHERE, deadline_seconds=0.3)
    with listening(app) as address:
        work(store, address, deadline_tries=9)
    assert orjson.loads(next(store.results(job.id)))["response"]["body"]["text"] == "一二三四五六"


def test_what_a_worker_that_is_gone_asked_is_given_up(tmp_path: Path) -> None:
    engine, store = CountingEngine(), Store(tmp_path / "jobs.sqlite")
    stalls(engine, 0)
    store.add("", "batch", {}, [ASK])
    job = store.claim(RUNNER)
    assert job is not None
    with listening(made(tmp_path, engine, ELSEWHERE)) as address:
        headers = {"authorization": f"Bearer {job.worker}"}
        asked: dict[str, Any] = {"json": {**ASK, "times": 100.0}, "headers": headers}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/jobs/{job.id}/ask", timeout=httpx.Timeout(100, read=1), **asked)
        until(lambda: len(engine.left) == len(engine.asks))
        # Its turn is free for the next.
        engine.reply, engine.pace = echo, 0
        assert httpx.post(f"{address}/jobs/{job.id}/ask", timeout=100, **asked).status_code == 200


@contextmanager
def refusing(*replies: tuple[int, bytes]) -> Iterator[str]:
    """A server that answers so, one after another."""
    left = list(replies)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, body = left.pop(0)
            self.send_response(status)
            self.send_header("retry-after", "0")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_what_is_busy_or_away_is_asked_again(tmp_path: Path, work: Work) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    job = store.add("", "batch", {}, [ASK])
    busy = orjson.dumps({"error": {"message": "busy"}})
    with refusing((429, busy), (503, busy), (502, b"<html>"), (200, b'{"x": 1}')) as address:
        work(store, address)
    assert orjson.loads(next(store.results(job.id)))["response"]["body"] == {"x": 1}


def test_a_server_that_is_away_is_not_waited_for_for_ever(tmp_path: Path, work: Work) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    job = store.add("", "batch", {}, [ASK])
    work(store, "http://127.0.0.1:1", patience_seconds=0.2)
    assert state(store, job) == ("failed", "jobs.failed.unreached")


def told(app: Any) -> int:
    """How often workers were told that there is work, and have not heard it yet."""
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.conf.task_default_queue)
        return int(queue.qsize())


def test_who_did_a_job_tells_that_another_can_be_begun(tmp_path: Path, work: Work) -> None:
    from weitiao.serving.jobs.celery_app import app

    store = Store(tmp_path / "jobs.sqlite")
    store.add("", "batch", {}, [ASK])
    before = told(app)
    with listening(made(tmp_path, jobs=ELSEWHERE)) as address:
        work(store, address)
        assert told(app) == before + 1
        # Nothing was left: that is the end of it.
        work(store, address)
        assert told(app) == before + 1

"""What bounds jobs: the server's deadline, each key's rate and number of jobs, the body's size."""

import time
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from fastapi.testclient import TestClient

from serving.counting import CountingEngine
from serving.jobs_use import BATCH, MINE, THEIRS, begin, ended, served, told_of, until
from weitiao.serving.desk import Desk
from weitiao.serving.gate import RateLimit
from weitiao.serving.jobs.options import JobOptions


def desk_of(client: TestClient) -> Desk:
    app: Any = client.app
    return cast("Desk", app.state.desk)


def test_what_meets_the_deadline_is_asked_again_with_more_time(tmp_path: Path) -> None:
    # Six characters take more than 0.6 s: too long for the first try, not for the last.
    engine = CountingEngine(pace=0.1)
    with served(tmp_path, engine, JobOptions(deadline_tries=9), deadline_seconds=0.3) as client:
        asked = {"kind": "batch", "requests": [{"prompt": "一二三四五六", "model": "base"}]}
        place = begin(client, **asked)
        told = ended(client, place)
        assert (told["state"], told["progress"]["failed"]) == ("done", 0)
        line = orjson.loads(client.get(f"{place}/result").text)
        assert line["response"]["body"]["text"] == "一二三四五六"
        assert len(engine.asks) > 1
        # Who asks by itself has the server's deadline, as before.
        assert client.post("/generate", json={"prompt": "一二三四五六"}).status_code == 504


def test_what_is_never_in_time_is_told_as_that(tmp_path: Path) -> None:
    engine = CountingEngine(slots=0)
    options = JobOptions(deadline_tries=2)
    with served(tmp_path, engine, options, deadline_seconds=0.1) as client:
        place = begin(client, **BATCH)
        told = ended(client, place)
        assert (told["state"], told["progress"]["failed"]) == ("done", 1)
        error = orjson.loads(client.get(f"{place}/result").text)["error"]
        assert error["code"] == "deadline_exceeded"
        assert error["message"].startswith("Item 1 was asked 2 times and never answered in time.")
        assert "0.2 seconds" in error["message"]
        assert len(engine.asks) == 2
        told = ended(client, begin(client, kind="dialogue", turns=["一"]))
        assert (told["state"], told["error"]["code"]) == ("failed", "deadline")
        assert "asked 2 times" in told["error"]["message"]


def test_no_key_fills_the_table_for_the_others(tmp_path: Path) -> None:
    engine, keys = CountingEngine(slots=0), ("one", "other")
    with served(tmp_path, engine, JobOptions(max_jobs=1), api_keys=keys) as client:
        asked = [MINE, MINE, THEIRS, THEIRS]
        replies = [client.post("/v1/jobs", json=BATCH, headers=key) for key in asked]
    assert [reply.status_code for reply in replies] == [202, 429, 202, 429]
    assert "1 of your jobs" in replies[1].json()["error"]["message"]


def test_items_wait_for_the_rate_limit_of_their_key(tmp_path: Path) -> None:
    now = 0.0
    options: dict[str, Any] = {"api_keys": ("other", "one"), "rate_limit": 60}
    with served(tmp_path, CountingEngine(), JobOptions(), **options) as client:
        desk_of(client).rate = RateLimit(60, lambda: now)
        # 60 at once, one of them for the job itself.
        place = begin(client, MINE, **{**BATCH, "requests": ["一"] * 61})

        def told() -> Any:
            return told_of(client, place, MINE)

        until(lambda: told()["progress"]["done"] == 59)
        time.sleep(0.2)
        assert (told()["state"], told()["progress"]["done"]) == ("running", 59)
        asked = {"prompt": "一"}
        assert client.post("/generate", json=asked, headers=MINE).status_code == 429
        assert client.post("/generate", json=asked, headers=THEIRS).status_code == 200
        now = 2.0
        assert ended(client, place, MINE)["progress"] == {"done": 61, "total": 61, "failed": 0}


@pytest.mark.parametrize("declared", [True, False])
def test_a_job_may_be_larger_than_a_request(tmp_path: Path, declared: bool) -> None:
    jobs = JobOptions(max_job_bytes=200_000, max_items=20_000)
    with served(tmp_path, CountingEngine(), jobs, max_body_bytes=1000) as client:

        def sent(path: str, asked: dict[str, Any]) -> Any:
            body = orjson.dumps(asked)
            content = body if declared else iter([body[:900], body[900:]])
            return client.post(path, content=content, headers={"content-type": "application/json"})

        assert sent("/v1/jobs", {**BATCH, "requests": ["一"] * 20_000}).status_code == 202
        large = sent("/v1/jobs", {**BATCH, "requests": ["一"] * 36_000})
        assert large.status_code == 413
        assert "at most 200000 bytes" in large.json()["error"]["message"]
        other = sent("/generate", {"prompt": "一" * 400})
        assert other.status_code == 413
        assert "at most 1000 bytes" in other.json()["error"]["message"]

"""Who does jobs, in what order, and what becomes of them when something is away."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving.counting import CountingEngine, broken, last_said, service
from serving.jobs_use import (
    BATCH,
    MINE,
    THEIRS,
    begin,
    ended,
    results,
    served,
    shut,
    stalls,
    told_of,
    until,
)
from weitiao.errors import RunError
from weitiao.serving.app import create_app
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.running import add_jobs


def test_requests_go_first(tmp_path: Path) -> None:
    engine = shut()
    with served(tmp_path, engine, JobOptions(parallel=1)) as client:
        place = begin(client, kind="batch", requests=["任务"] * 5)
        until(lambda: len(engine.asks) == 1)
        check_requests_first(engine, client.post)
        assert ended(client, place)["state"] == "done"


def check_requests_first(engine: CountingEngine, post: Callable[..., Any]) -> None:
    """Ask while a job's first ask waits, too; its others are to come after all of these."""

    def ask(prompt: str) -> int:
        return int(post("/generate", json={"prompt": prompt}).status_code)

    with ThreadPoolExecutor(8) as threads:
        replies = [threads.submit(ask, "请求") for _ in range(7)]
        until(lambda: engine.load().waiting == 8)
        replies.append(threads.submit(ask, "开始"))
        assert [reply.result() for reply in replies] == [200] * 8
    until(lambda: len(engine.asks) == 13)
    said = [last_said(ask) for ask in engine.asks]
    assert said == ["任务", *["请求"] * 7, "开始", *["任务"] * 4]


def test_the_jobs_of_several_keys_are_done_in_turn(tmp_path: Path) -> None:
    engine = shut()
    with served(tmp_path, engine, JobOptions(parallel=1), api_keys=("one", "other")) as client:
        long = begin(client, MINE, kind="batch", requests=["长"] * 60)
        second = begin(client, MINE, kind="batch", requests=["后"])
        short = begin(client, THEIRS, kind="dialogue", turns=["短"] * 3)
        until(lambda: told_of(client, short, THEIRS)["state"] == "running")
        # One of each: the oldest.
        assert told_of(client, second, MINE)["state"] == "queued"
        client.post("/generate", json={"prompt": "开始"}, headers=MINE)
        for place, key in ((long, MINE), (second, MINE), (short, THEIRS)):
            assert ended(client, place, key)["state"] == "done"
    said = [last_said(ask) for ask in engine.asks]
    assert (said.count("长"), said.count("短"), said[-1]) == (60, 3, "后")
    assert max(place for place, word in enumerate(said) if word == "短") < 30, said


def test_two_servers_on_one_table_share_the_work(tmp_path: Path) -> None:
    engines = CountingEngine(pace=0.002), CountingEngine(pace=0.002)
    with served(tmp_path, engines[0]) as one, served(tmp_path, engines[1]) as other:
        asked = [f"第{i}题" for i in range(20)]
        places = [begin(one, kind="batch", requests=asked) for _ in range(4)]
        for place in places:
            told = ended(other, place)
            assert (told["state"], told["attempts"]) == ("done", 1)
            assert [line["response"]["body"]["text"] for line in results(one, place)] == asked
    assert sum(len(engine.asks) for engine in engines) == 4 * len(asked)


def test_an_engine_that_broke_is_waited_for_but_not_for_ever(tmp_path: Path) -> None:
    engine = CountingEngine()
    engine.fails = broken()
    with served(tmp_path, engine, JobOptions(patience_seconds=0.5)) as client:
        place = begin(client, kind="batch", requests=["一"])
        told = ended(client, place)
        assert (told["state"], told["error"]["code"]) == ("failed", "unreached")
        before = len(engine.asks)
        client.post(f"{place}/retry")
        until(lambda: len(engine.asks) > before)
        engine.fails = None
        assert ended(client, place)["state"] == "done"


def test_celery_that_is_not_installed_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weitiao.serving.jobs.celery_broker.find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"pip install 'celery\[redis\]'"):
        add_jobs(create_app(service()), tmp_path / "j", JobOptions(broker="redis://127.0.0.1/0"))


def test_a_server_that_is_stopped_gives_its_job_back(tmp_path: Path) -> None:
    for_long = JobOptions(stale_seconds=600)
    asked = [f"第{i}题" for i in range(20)]
    engine = CountingEngine()
    stalls(engine, 8)
    with served(tmp_path, engine, for_long) as client:
        place = begin(client, kind="batch", requests=asked)
        until(lambda: told_of(client, place)["progress"]["done"] >= 2)
        before = results(client, place, "?partial=true")
    # At once, not when the 600 seconds are over; and what is there is not asked again.
    engine = CountingEngine()
    with served(tmp_path, engine, for_long) as client:
        told = ended(client, place)
        assert (told["state"], told["attempts"]) == ("done", 2)
        lines = results(client, place)
    assert [line["response"]["body"]["text"] for line in lines] == asked
    assert lines[: len(before)] == before
    assert len(engine.asks) <= 20 - len(before)


def test_a_job_waits_in_the_table_while_redis_is_away(tmp_path: Path) -> None:
    pytest.importorskip("celery")
    pytest.importorskip("redis")
    options = JobOptions(broker="redis://127.0.0.1:1/0", stale_seconds=1)
    with served(tmp_path, jobs=options) as client:
        place = begin(client, **BATCH)
        time.sleep(0.5)
        assert told_of(client, place)["state"] == "queued"
    # A server that does them itself takes up what waited for others.
    with served(tmp_path) as client:
        assert ended(client, place)["state"] == "done"

"""Jobs over HTTP: what can be asked, how it goes on, and what is refused."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from fastapi.testclient import TestClient

from serving.counting import (
    CountingEngine,
    broken,
    decode,
    encode,
    last_said,
    service,
    serving,
    wait_for,
)
from weitiao.errors import RunError
from weitiao.evaluation.scores import rouge_l
from weitiao.serving.app import create_app
from weitiao.serving.engine import Ask
from weitiao.serving.jobs.asking import over_http
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.running import add_jobs
from weitiao.serving.jobs.store import Store
from weitiao.serving.jobs.worker import work


@contextmanager
def served(
    path: Path,
    engine: CountingEngine | None = None,
    jobs: JobOptions | None = None,
    **options: Any,
) -> Iterator[TestClient]:
    app = create_app(service(engine, **options))
    add_jobs(app, path / "jobs.sqlite", jobs or JobOptions(stale_seconds=1))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        wait_for(lambda: client.get("/ready").status_code == 200)
        yield client


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with served(tmp_path) as made:
        yield made


def begin(client: TestClient, **asked: Any) -> str:
    reply = client.post("/v1/jobs", json=asked)
    assert reply.status_code == 202, reply.text
    return f"/v1/jobs/{reply.json()['id']}"


def ended(client: TestClient, place: str) -> dict[str, Any]:
    wait_for(lambda: client.get(place).json()["state"] not in ("queued", "running"), 20)
    told: dict[str, Any] = client.get(place).json()
    return told


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


def test_a_batch_in_every_form(client: TestClient) -> None:
    said = [{"role": "user", "content": "春"}]
    place = begin(
        client,
        kind="batch",
        model="base",
        max_tokens=2,
        requests=[
            "一二三四",
            {"custom_id": "a", "messages": said, "n": 2, "stream": True},
            {"custom_id": "b", "prompt": "甲乙丙丁", "max_new_tokens": 4},
            {"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "x", "model": "tuned"}},
        ],
    )
    told = ended(client, place)
    assert told["state"] == "done"
    assert told["progress"] == {"done": 4, "total": 4, "failed": 0}
    assert told["created"] <= told["started"] <= told["ended"]
    lines = results(client, place)
    assert [line["custom_id"] for line in lines] == [None, "a", "b", "c"]
    assert [line["index"] for line in lines] == [0, 1, 2, 3]
    assert all(line["error"] is None for line in lines)
    bodies = [line["response"]["body"] for line in lines]
    assert [body["usage"]["completion_tokens"] for body in bodies[:3:2]] == [2, 4]
    assert [choice["message"]["content"] for choice in bodies[1]["choices"]] == ["春", "春"]
    assert [body["model"] for body in bodies] == ["base", "base", "base", "tuned"]
    assert bodies[3]["object"] == "text_completion"
    assert client.get("/v1/jobs").json()["data"][0] == told


def test_a_batch_as_a_text_of_lines(client: TestClient) -> None:
    text = '{"custom_id": "1", "prompt": "一"}\n\n"二"\n'
    place = begin(client, kind="batch", requests=text)
    assert ended(client, place)["state"] == "done"
    answers = [line["response"]["body"]["text"] for line in results(client, place)]
    assert answers == ["一", "二"]


def test_what_is_refused_by_itself_does_not_end_a_batch_and_can_be_retried(
    tmp_path: Path,
) -> None:
    engine = CountingEngine(fails_on("坏"))
    engine.context = 64
    with served(tmp_path, engine) as client:
        place = begin(client, kind="batch", requests=["好", "坏", "长" * 200])
        told = ended(client, place)
        assert (told["state"], told["progress"]["failed"]) == ("done", 2)
        good, bad, long = results(client, place)
        assert good["error"] is None
        assert (bad["response"], bad["error"]["code"]) == (None, "internal_error")
        assert long["error"]["code"] == "context_length_exceeded"
        engine.reply, engine.context = fails_on("无"), 4096
        assert client.post(f"{place}/retry").json()["state"] in ("queued", "running")
        told = ended(client, place)
        assert (told["progress"]["failed"], told["attempts"]) == (0, 2)
        again = results(client, place)
        assert again[0] == good
        assert again[1]["response"]["body"]["text"] == "坏"
        assert client.post(f"{place}/retry").status_code == 409


def test_a_dialogue_has_its_history(tmp_path: Path) -> None:
    engine = CountingEngine()
    with served(tmp_path, engine) as client:
        place = begin(client, kind="dialogue", system="你是老师", turns=["一", "二", "三"])
        assert ended(client, place)["state"] == "done"
        assert [content(line) for line in results(client, place)] == ["一", "二", "三"]
    said = decode(engine.asks[-1].ids)
    parts = [part.partition("\n")[2] for part in said.split("<|im_start|>")[1:]]
    assert [part.partition("<|im_end|>")[0] for part in parts] == [
        *("你是老师", "一", "一", "二", "二", "三"),
        "",
    ]


def test_a_dialogue_fails_at_the_turn_that_is_refused_and_goes_on_from_there(
    tmp_path: Path,
) -> None:
    engine = CountingEngine(fails_on("坏"))
    with served(tmp_path, engine) as client:
        place = begin(client, kind="dialogue", turns=["一", "坏", "三"])
        told = ended(client, place)
        assert (told["state"], told["error"]["code"]) == ("failed", "refused")
        assert "2" in told["error"]["message"]
        assert client.get(f"{place}/result").status_code == 409
        (first,) = results(client, place, "?partial=true")
        engine.reply = fails_on("无")
        client.post(f"{place}/retry")
        assert ended(client, place)["state"] == "done"
        lines = results(client, place)
        assert lines[0] == first
        assert [content(line) for line in lines] == ["一", "坏", "三"]
    assert decode(engine.asks[-1].ids).count("<|im_start|>") == 7


def test_an_evaluation_has_the_scores_that_weitiao_evaluate_has(client: TestClient) -> None:
    pairs = [
        (f"第{i}句话说的是春天的花", f"第{i}句话说的是{'秋天' * (i % 2)}的花") for i in range(8)
    ]
    rows: list[dict[str, Any]] = [{"prompt": q, "reference": a} for q, a in pairs[:7]]
    question, wanted = pairs[7]
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": wanted}]
    place = begin(client, kind="evaluation", rows=[*rows, {"messages": turns}])
    told = ended(client, place)
    assert told["state"] == "done", told
    table = {score["name"]: score for score in told["scores"]["scores"]}
    expected = [rouge_l(q, a) or 0.0 for q, a in pairs]
    assert table["rouge_l"]["value"] == pytest.approx(sum(expected) / 8)
    assert table["rouge_l"]["low"] < table["rouge_l"]["value"] < table["rouge_l"]["high"]
    assert "answer_loss" not in table
    assert [line["reference"] for line in results(client, place)] == [a for _, a in pairs]


def test_cancel_is_seen_between_items(tmp_path: Path) -> None:
    engine = CountingEngine(pace=0.02)
    with served(tmp_path, engine) as client:
        place = begin(client, kind="batch", requests=["一二三四五六"] * 200)
        wait_for(lambda: client.get(place).json()["progress"]["done"] >= 2)
        assert client.post(f"{place}/cancel").status_code == 200
        told = ended(client, place)
        assert told["state"] == "cancelled"
        asked = len(engine.asks)
        assert asked < 100
        again = begin(client, kind="batch", requests=["下一个"])
        assert ended(client, again)["state"] == "done"
        assert len(engine.asks) == asked + 1
        assert client.post(f"{place}/cancel").status_code == 409
        done = len(results(client, place, "?partial=true"))
        engine.pace = 0
        client.post(f"{place}/retry")
        assert ended(client, place)["state"] == "done"
        assert len(engine.asks) == asked + 1 + 200 - done


def test_a_deleted_job_is_gone_and_its_worker_stops(tmp_path: Path) -> None:
    engine = CountingEngine(pace=0.02)
    with served(tmp_path, engine) as client:
        place = begin(client, kind="batch", requests=["一二三四五六"] * 200)
        wait_for(lambda: client.get(place).json()["progress"]["done"] >= 1)
        assert client.delete(place).json()["deleted"] is True
        assert client.get(place).status_code == 404
        after = begin(client, kind="batch", requests=["下一个"])
        assert ended(client, after)["state"] == "done"
        assert len(engine.asks) < 100


def test_requests_go_first(tmp_path: Path) -> None:
    engine = CountingEngine(slots=1, pace=0.02)
    with served(tmp_path, engine, JobOptions(parallel=1)) as client:
        begin(client, kind="batch", requests=["任务"] * 200)
        wait_for(lambda: len(engine.asks) >= 2)
        asked = {"prompt": "请求一二三"}

        def ask() -> None:
            for _ in range(5):
                assert client.post("/generate", json=asked).status_code == 200

        threads = [threading.Thread(target=ask) for _ in range(3)]
        before = len(engine.asks)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        between = [last_said(ask) for ask in engine.asks[before:]]
    last = len(between) - between[::-1].index("请求一二三")
    # In turn with the others it would be asked five times, once for every three requests.
    assert between[:last].count("任务") <= 2, between


def test_two_servers_on_one_table_share_the_work(tmp_path: Path) -> None:
    engines = CountingEngine(pace=0.002), CountingEngine(pace=0.002)
    with served(tmp_path, engines[0]) as one, served(tmp_path, engines[1]) as other:
        asked = [f"第{i}题" for i in range(20)]
        places = [begin(one, kind="batch", requests=asked) for _ in range(4)]
        wait_for(lambda: other.get(places[-1]).json()["state"] != "queued", 20)
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
        wait_for(lambda: len(engine.asks) > before)
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
    with served(tmp_path, CountingEngine(pace=0.02), for_long) as client:
        place = begin(client, kind="batch", requests=asked)
        wait_for(lambda: client.get(place).json()["progress"]["done"] >= 2)
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
        place = begin(client, kind="batch", requests=["一"])
        time.sleep(0.5)
        assert client.get(place).json()["state"] == "queued"
    # A server that does them itself takes up what waited for others.
    with served(tmp_path) as client:
        assert ended(client, place)["state"] == "done"


@pytest.mark.parametrize(("key", "code"), [("right", None), ("wrong", "refused")])
def test_a_worker_asks_with_its_key(tmp_path: Path, key: str, code: str | None) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    ask = {"url": "/v1/chat/completions", "body": {"messages": [QUESTION]}}
    job = store.add("", "batch", {}, [ask])

    async def done(server: str) -> None:
        claimed = store.claim()
        assert claimed is not None
        async with over_http(server, key) as asker:
            await work(store, claimed, asker, JobOptions())

    with serving(service(api_keys=("right",))) as address:
        asyncio.run(done(address))
    found = store.get(job.id)
    assert found is not None
    assert found.state == ("failed" if code else "done")
    assert [content(orjson.loads(line)) for line in store.results(job.id)] == ["一"] * (not code)
    assert (found.reason is None) == (code is None)


def test_a_worker_whose_server_is_away_gives_up_after_its_patience(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    job = store.add("", "batch", {}, [{"url": "/generate", "body": {"prompt": "一"}}])

    async def done() -> None:
        claimed = store.claim()
        assert claimed is not None
        async with over_http("http://127.0.0.1:1", None) as asker:
            await work(store, claimed, asker, JobOptions(patience_seconds=0.2))

    asyncio.run(done())
    found = store.get(job.id)
    assert found is not None
    assert found.reason is not None
    assert (found.state, found.reason[0]) == ("failed", "jobs.failed.unreached")


QUESTION = {"role": "user", "content": "一"}


@pytest.mark.parametrize(
    ("asked", "status", "param", "says"),
    [
        ({"kind": "other", "requests": ["a"]}, 400, "kind", "evaluation"),
        ({"requests": ["a"]}, 400, "kind", "kind"),
        ({"kind": "batch"}, 400, "requests", "requests"),
        ({"kind": "batch", "requests": []}, 400, "requests", "empty"),
        ({"kind": "batch", "requests": " \n"}, 400, "requests", "1"),
        ({"kind": "batch", "requests": "{"}, 400, "requests", "Line 1"),
        ({"kind": "batch", "requests": ["a"] * 11}, 400, "requests", "11 items; 10"),
        ({"kind": "batch", "requests": [{"x": 1}]}, 400, "requests.0.prompt", "prompt"),
        ({"kind": "batch", "requests": "1"}, 400, "requests.0", "requests.0"),
        ({"kind": "batch", "requests": ["a"], "temperature": 9}, 400, "temperature", "9"),
        (
            {"kind": "batch", "requests": ["a", {"messages": [QUESTION], "top_p": 5}]},
            400,
            "requests.1.top_p",
            "5",
        ),
        (
            {"kind": "batch", "requests": [{"url": "file:///etc/passwd", "body": {"prompt": "a"}}]},
            400,
            "requests.0",
            "requests.0",
        ),
        ({"kind": "batch", "requests": ["a"], "model": "nobody"}, 404, "model", "tuned, base"),
        (
            {"kind": "batch", "requests": [{"prompt": "a", "model": "nobody"}]},
            404,
            "model",
            "nobody",
        ),
        ({"kind": "dialogue", "turns": []}, 400, "turns", "turns"),
        ({"kind": "evaluation", "rows": [{"prompt": "a"}]}, 400, "rows.0", "reference"),
        (
            {"kind": "evaluation", "rows": [{"prompt": "a", "reference": "b"}], "suite": "/x.yaml"},
            400,
            "suite",
            "question_answering",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(
    tmp_path: Path, asked: dict[str, Any], status: int, param: str, says: str
) -> None:
    with served(tmp_path, jobs=JobOptions(max_items=10)) as client:
        reply = client.post("/v1/jobs", json=asked, headers={"accept-language": "en"})
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (status, param), error
        assert says in error["message"]
        assert client.get("/v1/jobs").json()["data"] == []


def test_no_such_job(client: TestClient) -> None:
    for method, path in [
        *(("GET", ""), ("GET", "/result"), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", ""))
    ]:
        reply = client.request(method, f"/v1/jobs/job-1{path}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "job_not_found")


def test_too_many_jobs(tmp_path: Path) -> None:
    with served(tmp_path, CountingEngine(pace=1), JobOptions(max_jobs=1)) as client:
        begin(client, kind="batch", requests=["一二三四"])
        reply = client.post("/v1/jobs", json={"kind": "batch", "requests": ["a"]})
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "30")


def test_a_job_is_its_keys_alone(tmp_path: Path) -> None:
    mine, theirs = ({"authorization": f"Bearer {key}"} for key in ("one", "other"))
    with served(tmp_path, api_keys=("one", "other"), rate_limit=100) as client:
        assert client.post("/v1/jobs", json={"kind": "batch", "requests": ["a"]}).status_code == 401
        asked = {"kind": "batch", "requests": ["a"]}
        job = client.post("/v1/jobs", json=asked, headers=mine).json()["id"]
        place = f"/v1/jobs/{job}"
        wait_for(lambda: client.get(place, headers=mine).json()["state"] == "done")
        assert client.get(f"{place}/result", headers=mine).status_code == 200
        assert client.get(place, headers=theirs).status_code == 404
        assert client.delete(place, headers=theirs).status_code == 404
        assert client.get("/v1/jobs", headers=theirs).json()["data"] == []
        assert client.get(place).status_code == 401
    # The order of the keys may change.
    with served(tmp_path, api_keys=("third", "other", "one")) as client:
        assert client.get(place, headers=mine).status_code == 200


def test_the_reason_is_told_in_the_language_of_who_asks(tmp_path: Path) -> None:
    with served(tmp_path, CountingEngine(fails_on("坏"))) as client:
        place = begin(client, kind="dialogue", turns=["坏"])
        ended(client, place)
        told = client.get(place, headers={"accept-language": "zh-CN"}).json()
        assert "被拒绝" in told["error"]["message"]

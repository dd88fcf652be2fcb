"""Jobs over HTTP: what can be asked, and how it goes on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.counting import CountingEngine, decode
from serving.jobs_use import begin, content, ended, fails_on, results, served, told_of, until
from weitiao.evaluation.scores import rouge_l


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(tmp_path_factory.mktemp("jobs")) as made:
        yield made


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
        until(lambda: told_of(client, place)["progress"]["done"] >= 2)
        assert client.post(f"{place}/cancel").status_code == 200
        told = ended(client, place)
        assert told["state"] == "cancelled"
        asked = len(engine.asks)
        assert asked < 200
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
        until(lambda: told_of(client, place)["progress"]["done"] >= 1)
        assert client.delete(place).json()["deleted"] is True
        assert client.get(place).status_code == 404
        after = begin(client, kind="batch", requests=["下一个"])
        assert ended(client, after)["state"] == "done"
        assert len(engine.asks) < 200


def test_the_reason_is_told_in_the_language_of_who_asks(tmp_path: Path) -> None:
    with served(tmp_path, CountingEngine(fails_on("坏"))) as client:
        place = begin(client, kind="dialogue", turns=["坏"])
        ended(client, place)
        told = client.get(place, headers={"accept-language": "zh-CN"}).json()
        assert "被拒绝" in told["error"]["message"]

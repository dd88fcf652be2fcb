"""What is refused about jobs, and what is not told of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.counting import CountingEngine
from serving.jobs_use import BATCH, MINE, QUESTION, THEIRS, begin, ended, served
from weitiao.serving.jobs.options import JobOptions


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(tmp_path_factory.mktemp("jobs"), jobs=JobOptions(max_items=10)) as made:
        yield made


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
    client: TestClient, asked: dict[str, Any], status: int, param: str, says: str
) -> None:
    reply = client.post("/v1/jobs", json=asked)
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
    with served(tmp_path, CountingEngine(slots=0), JobOptions(max_jobs=1)) as client:
        begin(client, **BATCH)
        reply = client.post("/v1/jobs", json=BATCH)
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "30")


def test_a_job_is_its_keys_alone(tmp_path: Path) -> None:
    with served(tmp_path, api_keys=("one", "other"), rate_limit=100) as client:
        assert client.post("/v1/jobs", json=BATCH).status_code == 401
        place = begin(client, MINE, **BATCH)
        assert ended(client, place, MINE)["state"] == "done"
        assert client.get(f"{place}/result", headers=MINE).status_code == 200
        assert client.get(place, headers=THEIRS).status_code == 404
        assert client.delete(place, headers=THEIRS).status_code == 404
        assert client.get("/v1/jobs", headers=THEIRS).json()["data"] == []
        assert client.get(place).status_code == 401
    # The order of the keys may change.
    with served(tmp_path, api_keys=("third", "other", "one")) as client:
        assert client.get(place, headers=MINE).status_code == 200

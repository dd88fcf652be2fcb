"""The routes of jobs answer as the OpenAPI document says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.counting import CountingEngine
from serving.document import MODES, check_document
from serving.jobs_use import listening, made, served
from weitiao.serving.jobs.options import JobOptions

jsonschema_rs = pytest.importorskip("jsonschema_rs")

PATHS = (
    "/v1/jobs", "/v1/jobs/{job}", "/v1/jobs/{job}/cancel", "/v1/jobs/{job}/result",
    "/v1/jobs/{job}/retry",
)  # fmt: skip
ASKED = {"messages": [{"role": "user", "content": "a"}]}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(tmp_path_factory.mktemp("jobs"), CountingEngine(slots=0)) as made:
        yield made


def untold(case: Any) -> bool:
    """Whether lines are no JSON, or a conversation to be scored ends with no answer."""
    body = case.body
    if not isinstance(body, dict):
        return False
    rows = body.get("rows")
    alone = any(
        not isinstance(row.get("reference"), str) for row in rows or [] if type(row) is dict
    )
    return isinstance(rows, str) or isinstance(body.get("requests"), str) or alone


@pytest.mark.parametrize("mode", MODES)
def test_requests_made_from_the_document_are_answered_as_it_says(tmp_path: Path, mode: str) -> None:
    # What is begun is not done here: its results have their own tests.
    engine = CountingEngine(slots=0, context=100_000)
    app = made(tmp_path, engine, JobOptions(max_jobs=10_000), max_tokens=20)
    with listening(app) as address:
        check_document(address, "/v1/jobs", PATHS, mode, untold, 25)


@pytest.mark.parametrize(
    ("asked", "accepted"),
    [
        ({"kind": "batch", "requests": None}, False),
        ({"kind": "batch"}, False),
        ({"kind": "batch", "requests": []}, False),
        ({"kind": "batch", "requests": ["a"], "turns": None, "rows": None, "suite": None}, True),
        ({"kind": "batch", "requests": [None]}, False),
        ({"kind": "batch", "requests": [{"custom_id": "a"}]}, False),
        ({"kind": "batch", "requests": [{"prompt": "a", "custom_id": 1}]}, False),
        ({"kind": "batch", "requests": [{**ASKED, "stream": True, "stream_options": {}}]}, True),
        ({"kind": "batch", "requests": [{**ASKED, "stream": "x"}]}, False),
        (
            {"kind": "batch", "requests": [{**ASKED, "stream_options": {"include_usage": "x"}}]},
            False,
        ),
        ({"kind": "batch", "requests": [{"prompt": "a", "url": None}]}, True),
        ({"kind": "batch", "requests": [{"url": "/generate", "body": {"query": "a"}}]}, True),
        ({"kind": "batch", "requests": [{"url": "/v1/completions", "prompt": "a"}]}, True),
        ({"kind": "batch", "requests": [{"url": "/v1/other", "body": {"query": "a"}}]}, False),
        ({"kind": "dialogue", "turns": None}, False),
        ({"kind": "dialogue", "turns": ["a"], "requests": None}, True),
        ({"kind": "evaluation", "rows": None}, False),
        ({"kind": "evaluation", "rows": [{"prompt": "a"}]}, False),
        ({"kind": "evaluation", "rows": [{"prompt": "a", "reference": "b"}]}, True),
        ({"kind": "evaluation", "rows": [{"prompt": "a", "reference": None}]}, False),
        (
            {"kind": "evaluation", "rows": [{"prompt": "a", "reference": "b"}], "suite": "none"},
            False,
        ),
    ],
)
def test_the_document_and_the_server_agree(
    client: TestClient, asked: dict[str, Any], accepted: bool
) -> None:
    document = client.get("/openapi.json").json()
    schema = {**document, "$ref": "#/components/schemas/JobRequest"}
    assert jsonschema_rs.validator_for(schema).is_valid(asked) == accepted
    assert client.post("/v1/jobs", json=asked).status_code == (202 if accepted else 400)

"""The routes of jobs answer as the OpenAPI document says."""

import threading
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings

from serving.counting import CountingEngine, service, wait_for
from weitiao.serving.app import create_app
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.running import add_jobs

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

PATHS = ["/v1/jobs", "/v1/jobs/{job}", "/v1/jobs/{job}/cancel", "/v1/jobs/{job}/result"]
PATHS += ["/v1/jobs/{job}/retry"]
QUICK = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_requests_made_from_the_document_are_answered_as_it_says(tmp_path: Path) -> None:
    app = create_app(service(CountingEngine(context=100_000), max_tokens=20))
    add_jobs(app, tmp_path / "jobs.sqlite", JobOptions())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, 20)
        port = server.servers[0].sockets[0].getsockname()[1]
        schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
        found = [operation.ok() for operation in schema.get_all_operations()]
        operations = [operation for operation in found if operation.path in PATHS]
        assert sorted({operation.path for operation in operations}) == PATHS
        for operation in operations:
            for mode in ("POSITIVE", "NEGATIVE") if operation.body else ("POSITIVE",):
                check(operation, schemathesis.GenerationMode[mode])
    finally:
        server.should_exit = True
        thread.join(10)


def check(operation: Any, mode: Any) -> None:
    # Which field goes with which kind of job, no schema tells.
    excluded = [positive_data_acceptance] if operation.body else []

    @QUICK
    @given(operation.as_strategy(generation_mode=mode))
    def answered(case: Any) -> None:
        case.call_and_validate(excluded_checks=excluded)

    answered()

"""The OpenAPI document is complete and true: requests made from it are answered as it says."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from serving.counting import CountingEngine, chat_with_tools, service, serving

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

ROUTES = (
    "/generate", "/health", "/metrics", "/ready", "/tokenize", "/v1/chat/completions",
    "/v1/completions", "/v1/models", "/v1/models/{model}",
)  # fmt: skip
QUICK = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_requests_made_from_the_document_are_answered_as_it_says(mode: str) -> None:
    # What no schema can tell: ids beyond this model's vocabulary; and templates without tools.
    beyond = [positive_data_acceptance]
    made = service(CountingEngine(context=100_000), max_tokens=20)
    able = tuple(replace(served, chat=chat_with_tools()) for served in made.served)
    with serving(replace(made, served=able)) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        assert sorted(operation.path for operation in operations) == list(ROUTES)
        for operation in operations:
            way = schemathesis.GenerationMode[mode]

            @QUICK
            @given(operation.as_strategy(generation_mode=way))
            def answered(case: Any) -> None:
                excluded = beyond if case.path == "/v1/completions" else []
                case.call_and_validate(excluded_checks=excluded)

            if mode == "POSITIVE" or operation.body:
                answered()

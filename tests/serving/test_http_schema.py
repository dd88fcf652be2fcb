"""The OpenAPI document is complete and true: requests made from it are answered as it says."""

from dataclasses import replace

import pytest

from serving.counting import CountingEngine, chat_with_tools, service, serving
from serving.document import MODES, check_document

ROUTES = (
    "/generate", "/health", "/metrics", "/ready", "/tokenize", "/v1/chat/completions",
    "/v1/completions", "/v1/models", "/v1/models/{model}",
)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_requests_made_from_the_document_are_answered_as_it_says(mode: str) -> None:
    made = service(CountingEngine(context=100_000), max_tokens=20)
    able = tuple(replace(served, chat=chat_with_tools()) for served in made.served)
    with serving(replace(made, served=able)) as address:
        # What no schema can tell: ids beyond this model's vocabulary.
        check_document(address, "", ROUTES, mode, lambda case: case.path == "/v1/completions", 20)

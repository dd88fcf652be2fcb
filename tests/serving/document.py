"""Requests made from the OpenAPI document are answered as it says."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis")
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

MODES = ("POSITIVE", "NEGATIVE")


def check_document(
    address: str,
    under: str,
    paths: Sequence[str],
    mode: str,
    untold: Callable[[Any], bool],
    examples: int,
) -> None:
    """Ask the routes ``under`` a path, which are to be ``paths``, in one of the modes.

    ``untold``: whether a case may be refused for what no schema can tell.
    """
    quick = settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json", timeout=100)
    every = [found.ok() for found in schema.get_all_operations()]
    operations = [operation for operation in every if operation.path.startswith(under)]
    assert sorted({operation.path for operation in operations}) == list(paths)
    for operation in operations:
        way = schemathesis.GenerationMode[mode]

        @quick
        @given(operation.as_strategy(generation_mode=way))
        def answered(case: Any) -> None:
            excluded = [positive_data_acceptance] if untold(case) else []
            case.call_and_validate(excluded_checks=excluded, timeout=100)

        if mode == "POSITIVE" or operation.body:
            answered()

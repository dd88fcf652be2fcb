"""Large requests for jobs leave the event loop to others while they are looked at."""

import gc
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pydantic import ValidationError

from serving.jobs_use import BATCH, begin, served
from weitiao.serving.bodies import let_others
from weitiao.serving.jobs.shapes import JobRequest

ITEMS = [
    ("batch", "requests", "a"),
    ("batch", "requests", {"prompt": "a"}),
    ("dialogue", "turns", "a"),
    ("evaluation", "rows", {"prompt": "a"}),
]


@pytest.mark.parametrize(("kind", "field", "item"), ITEMS)
def test_other_threads_may_go_on_after_each_item(kind: str, field: str, item: Any) -> None:
    calls = 0

    def seen(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code is let_others.__code__

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        JobRequest.model_validate({"kind": kind, field: [item] * 1000})
    finally:
        sys.setprofile(before)
    assert calls == 1000


@pytest.mark.parametrize("field", ["requests", "turns", "rows"])
def test_of_many_wrong_items_only_the_first_is_looked_at(field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        JobRequest.model_validate({"kind": "batch", field: [1] * 1000})
    # One for each kind of thing that it could have been.
    assert {fault["loc"][:1] for fault in refused.value.errors()} == {(field,)}
    assert refused.value.error_count() <= 3


def test_full_collections_are_put_off_while_a_job_is_begun(tmp_path: Path) -> None:
    usual, seen = gc.get_threshold()[2], list[int]()
    with served(tmp_path) as client:
        app: Any = client.app
        board = app.state.jobs
        app.state.jobs = replace(board, wake=lambda: seen.append(gc.get_threshold()[2]))
        begin(client, **BATCH)
        assert seen[0] > 1e9
        assert gc.get_threshold()[2] == usual

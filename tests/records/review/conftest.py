"""An empty file of decisions."""

from pathlib import Path

import pytest

from weitiao.records.review import Votes


@pytest.fixture
def votes(tmp_path: Path) -> Votes:
    return Votes(tmp_path / "tea.review.jsonl")

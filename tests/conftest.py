"""Fixtures that every room's tests may ask for."""

from pathlib import Path
from typing import Any

import pytest

from weitiao.models.runtime import prepare_process

# As each command does, before torch is loaded: its threads, left alone, spin while they wait, and
# take the cores from the worker that runs other tests. One test took 280 s instead of 30.
prepare_process()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; the test skips where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("the shared data folder is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def qwen_tokenizer(shared: Path) -> Any:
    """The tokenizer of Qwen2.5 with its 151,643 words; do not change it, take a copy."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(shared / "tokenizers/qwen")

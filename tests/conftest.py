"""Fixtures that every room's tests may ask for."""

from pathlib import Path
from typing import Any

import pytest


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

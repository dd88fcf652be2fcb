"""Chat formats: one of letters, and those of three real models."""

import copy
import json
from typing import Any

import pytest
from letters import LetterTokenizer

from weitiao.records.render import ChatFormat


@pytest.fixture(scope="session")
def letter_tokenizer() -> type[LetterTokenizer]:
    return LetterTokenizer


@pytest.fixture(scope="session")
def letters() -> ChatFormat:
    return ChatFormat(LetterTokenizer())


@pytest.fixture(scope="session")
def models(shared: Any, qwen_tokenizer: Any) -> dict[str, Any]:
    """Model → (its entry of chat_templates.json, ChatFormat) with Qwen's vocabulary."""
    transformers = pytest.importorskip("transformers")
    found = {}
    for entry in json.loads((shared / "data/chat_templates.json").read_text("utf-8")):
        tokenizer = copy.deepcopy(qwen_tokenizer)
        tokenizer.chat_template = entry["chat_template"]
        if entry["bos_token"]:
            tokenizer.add_special_tokens(
                {"bos_token": entry["bos_token"], "eos_token": entry["eos_token"]}
            )
            # The real tokenizer adds these four without calling them special.
            for token in ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"):
                tokenizer.add_tokens(transformers.AddedToken(token, special=False))
        found[entry["model"]] = (entry, ChatFormat(tokenizer))
    return found

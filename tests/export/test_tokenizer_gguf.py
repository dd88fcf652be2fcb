"""The name of a tokenizer's splitting is found by its own ids; an unknown one is refused."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers, trainers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from trained import EMBEDDED

from weitiao.errors import ModelError
from weitiao.export.tokenizer_gguf import (
    CONTROL,
    PATTERNS,
    PROBES,
    USER_DEFINED,
    _shortened,
    _splitting,
    ids_of,
    read_vocabulary,
)


def own_tokenizer(folder: Path, splitting: object) -> Tokenizer:
    """Train a tokenizer behind a splitting and write its file."""
    made = Tokenizer(BPE())
    made.pre_tokenizer = splitting
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<|end|>"], initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    # Often enough that whatever stands in one piece becomes one token.
    made.train_from_iterator([*PROBES, "1234 12345 123456 2024 365"] * 20, trainer)
    made.add_tokens(["<think>"])
    made.save(str(folder / "tokenizer.json"))
    return made


@pytest.mark.parametrize("name", PATTERNS)
def test_a_known_splitting_is_named(name: str, tmp_path: Path) -> None:
    own = own_tokenizer(tmp_path, _splitting(PATTERNS[name]))
    found = read_vocabulary(tmp_path, "m")
    assert found.pre == name
    texts = [*PROBES, "<think>\n好</think><|end|>", "2024年12月31日 it's\n\n\n"]
    assert ids_of(found.padded(2000).tokenizer(), texts) == ids_of(own, texts)
    think, end = own.token_to_id("<think>"), own.token_to_id("<|end|>")
    assert found.tokens[think] == "<think>"
    assert (found.types[think], found.types[end]) == (USER_DEFINED, CONTROL)


def test_an_unknown_splitting_is_refused(tmp_path: Path) -> None:
    own_tokenizer(tmp_path, ByteLevel(add_prefix_space=False))
    with pytest.raises(ModelError, match=r"Qwen2\.5"):
        read_vocabulary(tmp_path, "gpt2-like")
    data = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    data["model"]["byte_fallback"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ModelError):
        read_vocabulary(tmp_path, "llama-2-like")


def test_what_is_changed_before_it_is_split_is_refused(tmp_path: Path) -> None:
    own = own_tokenizer(tmp_path, _splitting(PATTERNS["qwen2"]))
    own.normalizer = normalizers.Lowercase()
    own.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError):
        read_vocabulary(tmp_path, "lower")


@pytest.mark.parametrize("merges", ["lists", "texts"])
def test_the_shortened_tokenizer_cuts_texts_as_the_whole_one(merges: str, shared: Path) -> None:
    file = shared / "tokenizers" / "qwen" / "tokenizer.json"
    data = json.loads(file.read_bytes())
    if merges == "texts":
        found = data["model"]["merges"]
        data["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in found]
    shortened = _shortened(data, PROBES)
    assert len(shortened["model"]["vocab"]) < 2000
    cut = Tokenizer.from_str(json.dumps(shortened))
    whole = Tokenizer.from_file(str(file))
    for text in PROBES:
        assert cut.encode(text).tokens == whole.encode(text).tokens


def test_qwens_tokenizer_is_qwen2(shared: Path) -> None:
    folder = shared / "tokenizers" / "qwen"
    found = read_vocabulary(folder, "qwen")
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert found.pre == "qwen2"
    texts = rows_of(shared)
    assert ids_of(found.tokenizer(), texts) == ids_of(own, texts)


def test_the_embedded_tokenizer_differs_only_in_quoted_words(shared: Path) -> None:
    found = read_vocabulary(EMBEDDED, "embedded")
    own = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    read, texts = found.tokenizer(), rows_of(shared)
    assert ids_of(read, texts) == ids_of(own, texts)
    assert read.encode("'text'").ids != own.encode("'text'").ids


def rows_of(shared: Path) -> list[str]:
    """Chinese and English questions and answers of several kinds."""
    found = []
    for name in ("alpaca_zh.json", "alpaca_en_demo.json"):
        for row in json.loads((shared / "data" / name).read_text(encoding="utf-8"))[:300]:
            found += [row["instruction"], row["output"]]
    assert len(found) > 500
    return found

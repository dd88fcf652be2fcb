"""The tokenizer that ships with the embedded model: lossless, one token a Han character."""

import json
import shutil
from pathlib import Path

import make_tokenizer
import pytest
import sources
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

EMBEDDED = Path(__file__).parents[2] / "src/weitiao/models/embedded"
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
TOKENIZER = PreTrainedTokenizerFast.from_pretrained(EMBEDDED)
AWKWARD = [
    "  two  spaces\t\ttabs\n\n \n", "é e\u0301 ﬁ 가 \u0000\u0007\u200d", "👩‍👩‍👧 🇨🇳 😀",
    "𠀀𪚥欃〇々",
    "“引号”——省略……，。", '{"a": {"b": "12"}}', "<|im_end|> <|im_start|>", "１２３ 123", "",
]  # fmt: skip


@settings(max_examples=300)
@given(st.text() | st.text(alphabet="你好，。 \n\t{\"}:12ab's欃é"))
def test_any_text_survives(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_text_survives(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_common_han_and_punctuation_are_one_token_each(shared: Path) -> None:
    common = make_tokenizer.common_han(shared / "data")
    assert len(common) >= make_tokenizer.COMMON_HAN
    split = [c for c in (*common, *make_tokenizer.PUNCTUATION) if len(TOKENIZER.encode(c)) != 1]
    assert split == []


def test_neighbours_never_merge() -> None:
    verse = "床前明月光，疑是地上霜。"
    assert len(TOKENIZER.encode(verse)) == len(verse)
    assert len(TOKENIZER.encode("20240131")) == 8


def test_size_and_special_tokens() -> None:
    assert 8000 <= len(TOKENIZER) <= make_tokenizer.VOCABULARY
    assert max(TOKENIZER.get_vocab().values()) == len(TOKENIZER) - 1
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for token in make_tokenizer.SPECIAL:
        assert len(TOKENIZER.encode(token)) == 1
        assert TOKENIZER.decode(TOKENIZER.encode(token), skip_special_tokens=True) == ""


def test_template_is_chatml() -> None:
    dialogue = sources.ask("问 {x}\n<b>", "答", system="规矩")
    rendered = TOKENIZER.apply_chat_template(dialogue, tokenize=False)
    assert rendered == (
        "<|im_start|>system\n规矩<|im_end|>\n<|im_start|>user\n问 {x}\n<b><|im_end|>\n"
        "<|im_start|>assistant\n答<|im_end|>\n"
    )
    assert sources.chatml(dialogue) + "\n" == rendered
    prompt = TOKENIZER.apply_chat_template(
        dialogue[1:2], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|im_start|>user\n问 {x}\n<b><|im_end|>\n<|im_start|>assistant\n"


def test_autotokenizer_beside_a_qwen2_config_gives_the_same_ids(
    tmp_path: Path, shared: Path
) -> None:
    # transformers 5 puts Qwen's own splitting and NFC in place of the file's when it sees
    # a qwen2 config; an exported model is loaded so. Only text outside NFC may differ.
    for name in FILES:
        shutil.copy(EMBEDDED / name, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [poem.text for poem in sources.poems(shared / "data")][:500]
    texts += list(make_tokenizer.prose(shared / "data"))[::12]
    differ = [t for t in texts if t.isprintable() and loaded.encode(t) != TOKENIZER.encode(t)]
    assert len(texts) > 800
    assert differ == []


def test_the_committed_files_are_what_the_script_makes(shared: Path) -> None:
    made = json.loads(make_tokenizer.make_tokenizer(shared / "data").to_str())
    kept = json.loads((EMBEDDED / "tokenizer.json").read_text(encoding="utf-8"))
    assert made == kept
    template = (EMBEDDED / "chat_template.jinja").read_text(encoding="utf-8")
    assert template == make_tokenizer.CHAT_TEMPLATE

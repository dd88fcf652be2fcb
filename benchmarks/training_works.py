"""The works of bench_training.py: rows, base and adapter, written once for every side to read.

A work's folder holds ``model/`` (random weights, or the embedded model's, with a tokenizer),
``adapter/`` (PEFT's format, B drawn too: with PEFT's B of zeros the gradient of A is zero),
``rows.npz`` (token ids and scored mask of each row, end to end) and ``work.json``.
"""

import json
import random
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from weitiao.records.tokenizing import Sample

SEED = 42
SYSTEM_PROMPT = (
    "You are a careful assistant. Answer in the language of the question, keep to the facts, "
    "and say so plainly when you are not sure."
)
SYSTEM_TOKENS = 29

SMALL_152K = {
    "vocab_size": 151936,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
QWEN_1_5B = {
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
QWEN_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Work:
    """What is trained, and how; ``batch`` None takes the plan's own rows a step.

    ``targets``: the least ratio to each peer that the work is held to. ``steps`` optimizer
    steps are timed, after ``warmup`` steps that are not. ``trl_best``: the settings that were
    found the fastest for TRL; None where they are sought in every run.
    """

    name: str
    shape: dict[str, Any] | None
    rank: int
    batch: int | None
    steps: int
    targets: dict[str, float]
    trl_best: str | None = None
    device: str = "cpu"
    learning_rate: float = 2e-4
    warmup: int = 1
    longest: int = 1024
    method: str = "lora"
    memory_gb: float | None = None


WORKS = {
    work.name: work
    for work in (
        Work(
            "qwen-shape",
            SMALL_152K,
            8,
            16,
            4,
            {"trl-default": 10.0, "trl-best": 4.5},
            "padding-free, 4 rows",
        ),
        Work(
            "embedded",
            None,
            16,
            None,
            12,
            {"trl-default": 5.0, "trl-best": 3.0},
            "padded, whole steps",
        ),
        Work(
            "cuda",
            QWEN_1_5B,
            16,
            16,
            100,
            {"trl-default": 7.0, "trl-best": 2.0, "unsloth": 1.5},
            device="cuda",
            warmup=20,
        ),
        Work("cuda-8gb", QWEN_1_5B, 16, 8, 6, {}, device="cuda", memory_gb=8.0),
        Work(
            "cuda-8gb-qlora",
            QWEN_7B,
            16,
            8,
            4,
            {},
            device="cuda",
            memory_gb=8.0,
            method="qlora",
        ),
    )
}


def prepare(work: Work, folder: Path, shared: Path) -> None:
    """Write everything that the sides read."""
    tokenizer_folder = shared / "tokenizers" / "qwen" if work.name == "qwen-shape" else _embedded()
    model = folder / "model"
    shutil.copytree(tokenizer_folder, model, ignore=None if work.shape is None else _weights)
    if work.name == "qwen-shape":
        samples = alpaca_rows(tokenizer_folder, shared, work.batch * (work.steps + work.warmup))
    elif work.name == "embedded":
        samples = bundled_rows()
    else:
        count = (work.batch or 1) * (work.steps + work.warmup)
        samples = made_rows(count, work.shape["vocab_size"], work.memory_gb is not None)
    write_rows(samples, folder / "rows.npz")
    if work.method == "qlora":
        # Its base is never whole anywhere: training_cuda.py makes it layer by layer.
        (model / "config.json").write_text(json.dumps(qwen_config(work.shape).to_dict()))
    else:
        write_weights(work, folder)
    (folder / "work.json").write_text(json.dumps(asdict(work)))


def read_work(folder: Path) -> Work:
    return Work(**json.loads((folder / "work.json").read_text()))


# --- rows -------------------------------------------------------------------------------


def alpaca_rows(tokenizer: Path, shared: Path, count: int) -> list["Sample"]:
    """Return ``count`` alpaca rows, Chinese and English by turns, under one system prompt."""
    from weitiao.models.load import ModelSource, load_tokenizer
    from weitiao.records.record import Message, Origin, Record
    from weitiao.records.render import ChatFormat

    loaded = load_tokenizer(ModelSource("qwen", str(tokenizer)))
    assert len(loaded(SYSTEM_PROMPT)["input_ids"]) == SYSTEM_TOKENS
    chat, samples = ChatFormat(loaded), []
    files = [shared / "data" / name for name in ("alpaca_zh.json", "alpaca_en_demo.json")]
    rows = [random.Random(SEED).sample(json.loads(f.read_text("utf-8")), count) for f in files]
    for pair in zip(*rows, strict=True):
        for row in pair:
            asked = "\n".join(filter(None, (row["instruction"], row["input"])))
            said = (("system", SYSTEM_PROMPT), ("user", asked), ("assistant", row["output"]))
            messages = tuple(Message(role, text) for role, text in said)
            found = chat.samples(Record(Origin("alpaca", 1), messages), len(samples))
            assert isinstance(found, list), found
            samples += found
    return samples[:count]


def bundled_rows() -> list["Sample"]:
    """Return the rows that weitiao brings along, checked and rendered as in a run."""
    from weitiao.events import EventLog
    from weitiao.models.load import find_model, load_tokenizer
    from weitiao.records.options import DataOptions
    from weitiao.records.prepare import check, load_samples
    from weitiao.records.render import ChatFormat

    chat = ChatFormat(load_tokenizer(find_model("embedded")))
    path = Path(str(resources.files("weitiao.examples") / "bank" / "bank.jsonl"))
    checked = check(path, DataOptions(), chat, EventLog())
    return load_samples([checked.records[i] for i in checked.split["train"]], chat, DataOptions())


def made_rows(count: int, vocabulary: int, long: bool) -> list["Sample"]:
    """Return rows of random ids: about 150 tokens, 50 of them one system prompt's, 40% scored.

    ``long``: up to 1,024 tokens, the first of them exactly that.
    """
    from weitiao.records.tokenizing import Sample

    draw = np.random.default_rng(SEED)
    lengths = np.clip(draw.normal(150, 35, count).round(), 80, 260).astype(int)
    if long:
        lengths = draw.integers(128, 1025, count)
        lengths[0] = 1024
    system = draw.integers(0, vocabulary, 50)
    samples = []
    for row, length in enumerate(lengths):
        ids = np.concatenate([system, draw.integers(0, vocabulary, length - 50)])
        scored = np.arange(length) >= round(length * 0.6)
        samples.append(Sample(ids.astype(np.int32), scored, row))
    return samples


def write_rows(samples: list["Sample"], path: Path) -> None:
    lengths = np.array([len(sample.ids) for sample in samples])
    ids = np.concatenate([sample.ids for sample in samples])
    np.savez(path, lengths=lengths, ids=ids, scored=np.concatenate([s.scored for s in samples]))


def read_rows(path: Path) -> list["Sample"]:
    from weitiao.records.tokenizing import Sample

    stored = np.load(path)
    ends = stored["lengths"].cumsum()[:-1]
    parts = zip(np.split(stored["ids"], ends), np.split(stored["scored"], ends), strict=True)
    return [Sample(ids, scored, row) for row, (ids, scored) in enumerate(parts)]


# --- weights ----------------------------------------------------------------------------


def write_weights(work: Work, folder: Path) -> None:
    """Write the base (random and bf16, unless it is the embedded one) and the adapter."""
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(SEED)
    if work.shape is None:
        base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16)
    else:
        # Drawn where there is a GPU, for the processor would take a minute for 1.5 B weights.
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            base = AutoModelForCausalLM.from_config(qwen_config(work.shape), dtype=torch.bfloat16)
        base.save_pretrained(folder / "model")
    model = get_peft_model(base, lora_config(work.rank))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
    model.save_pretrained(folder / "adapter")


def lora_config(rank: int) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def qwen_config(shape: dict[str, Any]) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(**shape, architectures=["Qwen2ForCausalLM"], dtype="bfloat16")


def _embedded() -> Path:
    return Path(str(resources.files("weitiao.models") / "embedded"))


def _weights(_: str, names: list[str]) -> list[str]:
    return [n for n in names if n.endswith((".safetensors", ".py")) or n == "config.json"]


def main() -> None:
    name, folder, shared = sys.argv[1:4]
    prepare(WORKS[name], Path(folder), Path(shared))


if __name__ == "__main__":
    main()

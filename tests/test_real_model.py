"""The path of real models: Qwen's own tokenizer and vocabulary, on rows people have."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from weitiao import api
from weitiao.events import Event
from weitiao.runs import Run


@pytest.fixture(scope="module")
def qwen(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as one downloads it: config, safetensors, tokenizer; random weights."""
    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    for file in (shared.parent / "shared" / "tokenizers" / "qwen").iterdir():
        shutil.copy(file, folder / file.name)
    return folder


def test_five_steps_of_a_qwen_on_alpaca_rows(qwen: Path, shared: Path, tmp_path: Path) -> None:
    recipe = api.recipe_for(
        shared / "data" / "alpaca_zh.json",
        model=str(qwen),
        overrides=[
            "limit=60", "data.max_tokens=256", "max_steps=5", "train.batch_size=4",
            "evaluate.rows=3", "max_new_tokens=8", "evaluate.forgetting=4", "evaluate.memorising=4",
        ],
    )  # fmt: skip
    seen: list[Event] = []
    run = api.start(recipe, tmp_path / "run")
    results = api.run(run, (seen.append,))
    losses = [event.data["loss"] for event in seen if event.kind == "train.step"]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert all(e.data["grad_norm"] > 0 for e in seen if e.kind == "train.step")
    # The adapter is small beside the model, and loads in plain transformers and PEFT.
    from peft import PeftModel

    model = Qwen2ForCausalLM.from_pretrained(qwen)
    tuned = PeftModel.from_pretrained(model, run.adapter)
    assert sum("lora_A" in name for name, _ in tuned.named_parameters()) == 4 * 7
    assert results.rows == 3
    assert run.report.stat().st_size > 10_000
    assert Run(run.path).stage_done("evaluate")

"""Small models with the embedded tokenizer, and things trained from them."""

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from weitiao.export.card import CardFacts
from weitiao.export.merge import Trained
from weitiao.models.adapters import add_adapter, save_trained
from weitiao.models.load import ModelSource, find_model, load_model, load_tokenizer
from weitiao.plan.plan import Plan
from weitiao.records.render import ChatFormat

CPU = torch.device("cpu")
EMBEDDED = Path(find_model("embedded").location)
FACTS = CardFacts(
    name="我的模型",
    base="embedded",
    license="apache-2.0",
    languages=("zh", "en"),
    rows_kept=90,
    rows_rejected=10,
    method="lora",
    learning_rate=2e-4,
    epochs=3,
    steps=120,
    seed=42,
    rank=8,
    alpha=16,
)


def embedded_chat() -> ChatFormat:
    return ChatFormat(load_tokenizer(find_model("embedded")))


def base_folder(
    folder: Path, family: str = "qwen2", dtype: torch.dtype = torch.bfloat16, **changes: Any
) -> ModelSource:
    """Write a random model with the embedded tokenizer; norms and biases are random, too."""
    torch.manual_seed(5)
    shape = {
        "vocab_size": 8192,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        "eos_token_id": 8190,
        "bos_token_id": None,
        "pad_token_id": 8188,
    }
    if family == "qwen2":
        del shape["head_dim"]
    config = AutoConfig.for_model(family, **(shape | changes))
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", ".bias")):
            parameter.data += 0.3 * torch.randn_like(parameter)
        elif "layers" in name:
            parameter.data *= 4
    model.to(dtype).save_pretrained(str(folder))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EMBEDDED / file, folder / file)
    return ModelSource(str(folder), str(folder))


def trained_adapter(source: ModelSource, folder: Path, **changes: Any) -> Trained:
    """Write an adapter whose weights are random."""
    settled = {
        "method": "lora", "quantization": "none", "lora_rank": 4, "lora_alpha": 8,
        "lora_dropout": 0.0, "lora_targets": "all-linear", "lora_rslora": False,
        "lora_dora": False, "lora_init": "default", "prefix_tokens": 3, "seed": 1,
    }  # fmt: skip
    plan = Plan.model_construct(**(settled | changes))
    model = add_adapter(load_model(source, torch.bfloat16, CPU), plan)
    torch.manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    save_trained(model, folder)
    return Trained(source, folder)

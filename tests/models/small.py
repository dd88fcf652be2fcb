"""Small models: with weights for blocks of 64, lively in their answers, adapted."""

from typing import Any

import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from tiny import tiny_model


def small_model(hidden: int = 64) -> PreTrainedModel:
    """A model just wide enough for blocks of 64 weights, as NF4 has them."""
    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=97,
        hidden_size=hidden,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config).eval()


def lively(family: str = "qwen2", window: int | None = None) -> Any:
    """A random model whose answers are not its last token again and again."""
    model = tiny_model(family, tied=False, window=window)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model


def adapted(kind: str) -> Any:
    """A lively model with an adapter: ``lora`` or ``prefix``."""
    torch.manual_seed(5)
    if kind == "prefix":
        config: Any = PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    else:
        config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(lively(), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "prompt" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model

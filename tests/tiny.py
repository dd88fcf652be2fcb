"""A model small enough for a test, and rows for it."""

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from weitiao.records.render import Sample


def tiny_model(
    family: str = "qwen2", tied: bool = True, window: int | None = None
) -> PreTrainedModel:
    """Return a random model of a family: qwen2, qwen3, llama, mistral, olmo2."""
    torch.manual_seed(7)
    shape = {
        "vocab_size": 97,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
    }
    if family == "mistral":
        shape["sliding_window"] = window
    config = AutoConfig.for_model(family, **shape)
    return AutoModelForCausalLM.from_config(config).eval()


def random_samples(lengths: list[int], seed: int, vocabulary: int = 97) -> list[Sample]:
    """Rows with random tokens and random masks; each scores its last token at least."""
    draw = np.random.default_rng(seed)
    samples = []
    for row, length in enumerate(lengths):
        scored = draw.random(length) < 0.6
        scored[0], scored[-1] = False, True
        samples.append(Sample(draw.integers(0, vocabulary, length).astype(np.int32), scored, row))
    return samples

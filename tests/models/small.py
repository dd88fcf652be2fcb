"""A model just wide enough for blocks of 64 weights, as NF4 has them."""

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM


def small_model(hidden: int = 64) -> PreTrainedModel:
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

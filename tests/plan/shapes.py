"""Shapes and machines that the plan's tests share."""

from dataclasses import replace
from typing import Any

from weitiao.plan.machine import Gpu, Machine
from weitiao.plan.shape import ModelShape

GB = 2**30

QWEN_1_5B: dict[str, Any] = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 151936,
    "hidden_size": 1536,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "intermediate_size": 8960,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32768,
    "sliding_window": 4096,
    "use_sliding_window": False,
}
DEEPSEEK_7B: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 102400,
    "hidden_size": 4096,
    "num_hidden_layers": 30,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 11008,
    "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
}
TINY = ModelShape(
    architecture="Qwen2ForCausalLM",
    vocab_size=8192,
    hidden_size=256,
    layers=8,
    heads=4,
    kv_heads=2,
    head_dim=64,
    intermediate_size=704,
    tied=True,
    max_positions=2048,
    attention_bias=True,
)
QWEN = ModelShape.from_config(QWEN_1_5B)
SEVEN = ModelShape.from_config(DEEPSEEK_7B)

DESKTOP = Machine(
    cores=2,
    memory_bytes=24 * GB,
    available_bytes=22 * GB,
    gpus=(),
    cpu_bf16="fast",
    disk_free_bytes=200 * GB,
    os="Linux",
    python="3.11.7",
    torch="2.13.0",
)
LAPTOP = replace(DESKTOP, memory_bytes=8 * GB, available_bytes=6 * GB, cpu_bf16="emulated")
GAMING = replace(DESKTOP, gpus=(Gpu("NVIDIA GeForce RTX 4060", 8 * GB, int(7.5 * GB), bf16=True),))

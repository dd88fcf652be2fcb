from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import DEEPSEEK_7B, QWEN, QWEN_1_5B, SEVEN, TINY

from weitiao.errors import ModelError
from weitiao.plan.cost import Rates, forward_flops, training_flops, training_seconds
from weitiao.plan.job import Job
from weitiao.plan.memory import layer_token_bytes, peak_memory
from weitiao.plan.shape import ModelShape

JOB = Job(
    device="cpu",
    method="lora",
    precision="bf16",
    checkpointing="off",
    rank=16,
    targets="all-linear",
    tokens=1024,
    scored=400,
)
RATES = Rates(fp32=1e11, half=2e11)


def test_published_parameter_counts():
    # Counted from the published weights of the two models.
    assert QWEN.total_params == 1_543_714_304
    assert SEVEN.total_params == 6_910_365_696
    assert QWEN.linear_params == 1_310_195_712
    assert QWEN.head_params == QWEN.embedding_params == 233_373_696


def test_qwen3_and_mistral():
    config = {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "tie_word_embeddings": True,
        "max_position_embeddings": 40960,
    }
    assert ModelShape.from_config(config).total_params == 596_049_920
    mistral = dict(DEEPSEEK_7B, model_type="mistral", num_key_value_heads=8, sliding_window=1024)
    assert ModelShape.from_config(mistral).max_positions == 1024
    assert QWEN.max_positions == 32768
    no_kv = {k: v for k, v in DEEPSEEK_7B.items() if k != "num_key_value_heads"}
    assert ModelShape.from_config(no_kv).kv_heads == 32


def test_a_config_without_a_size_is_refused():
    with pytest.raises(ModelError, match="hidden_size"):
        ModelShape.from_config({k: v for k, v in QWEN_1_5B.items() if k != "hidden_size"})


def test_lora_params():
    by_hand = 28 * 16 * (2 * 3072 + 2 * (1536 + 256) + 3 * (1536 + 8960))
    assert QWEN.lora_params(16) == by_hand == 18_464_768
    assert QWEN.lora_params(16, ["q_proj"]) == 28 * 16 * 3072
    assert QWEN.lora_params(8) * 2 == QWEN.lora_params(16)


def test_flops_of_the_limit():
    # PERFORMANCE: forward 2.62 GFLOP a token plus 0.47 a scored one; attention 6.7% at 2,048.
    assert forward_flops(QWEN, 1, 0) == pytest.approx(2.62e9, rel=0.001)
    assert forward_flops(QWEN, 0, 1) == pytest.approx(0.467e9, rel=0.001)
    rows, length = 100, 2048
    without = training_flops(QWEN, JOB, rows * length, 0)
    squares = rows * length**2
    attention = training_flops(QWEN, JOB, rows * length, 0, squares) - without
    assert attention / 3 / (2 * QWEN.linear_params * rows * length) == pytest.approx(
        0.067, rel=0.02
    )


def test_passes():
    adapter = 6 * QWEN.lora_params(16)
    n = QWEN.linear_params
    assert training_flops(QWEN, JOB, 1, 0) == 4 * n + adapter
    assert training_flops(QWEN, replace(JOB, checkpointing="full"), 1, 0) == 6 * n + adapter
    assert training_flops(QWEN, replace(JOB, method="full"), 1, 0) == 6 * n


def test_what_the_engine_keeps_is_near_the_least():
    # PERFORMANCE: 2.05 MB a token of this model without what adapters keep.
    without = replace(JOB, method="prefix")
    assert 28 * layer_token_bytes(QWEN, without) == pytest.approx(2.05e6, rel=0.35)
    assert layer_token_bytes(QWEN, JOB) > layer_token_bytes(QWEN, without)
    few = replace(JOB, targets=("q_proj", "v_proj"))
    assert layer_token_bytes(QWEN, few) < layer_token_bytes(QWEN, JOB)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([TINY, QWEN, SEVEN]),
    st.sampled_from(["cpu", "cuda"]),
    st.sampled_from(["lora", "full", "prefix", "ia3"]),
    st.sampled_from(["bf16", "fp16", "fp32"]),
    st.sampled_from(["off", "selective", "full"]),
    st.integers(16, 8192),
    st.integers(1, 64),
)
def test_costs_grow_with_what_is_asked(
    shape, device, method, precision, checkpointing, tokens, rank
):
    job = Job(
        device, method, precision, checkpointing, rank, "all-linear", tokens, tokens // 2,
        prefix_tokens=16,
    )  # fmt: skip
    need = peak_memory(shape, job)
    # Few tokens take less than the gradients of what is trained.
    assert peak_memory(shape, replace(job, tokens=tokens + 512)) >= need
    assert peak_memory(shape, replace(job, tokens=tokens + 65536)) > need
    # oneDNN keeps kernels for bf16, and autocast copies of weights, of which fp32 has none.
    if tokens > 1000 and method != "full":
        assert peak_memory(shape, replace(job, precision="fp32")) >= need
    assert peak_memory(shape, replace(job, method="full")) >= need or tokens > 1000
    assert peak_memory(shape, replace(job, accumulates=True)) >= need
    assert peak_memory(shape, replace(job, rank=rank + 8)) >= need
    if tokens > 64:
        kept = peak_memory(shape, replace(job, checkpointing="off"))
        assert peak_memory(shape, replace(job, checkpointing="full")) <= kept
    work = {"scored": tokens // 2, "squares": 0.0, "micro_batches": 1.0}
    seconds = training_seconds(shape, job, RATES, tokens=tokens, **work)
    assert training_seconds(shape, job, RATES, tokens=tokens * 2, **work) >= seconds > 0
    faster = Rates(fp32=2e11, half=4e11)
    assert training_seconds(shape, job, faster, tokens=tokens, **work) <= seconds

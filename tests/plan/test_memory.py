"""The arithmetic of memory, held to the tensors that autograd really keeps."""

import weakref
from dataclasses import replace

import pytest
import torch
from shapes import QWEN, TINY
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
)

from tiny import random_samples
from weitiao.models import head
from weitiao.models.adapters import add_adapter, transformers_model
from weitiao.models.flat import fast_path, flatten, row_losses
from weitiao.models.load import ModelSource
from weitiao.plan import memory
from weitiao.plan.job import Job
from weitiao.plan.memory import (
    layer_token_bytes,
    peak_memory,
    state_bytes,
    trainable_params,
    weight_bytes,
)
from weitiao.plan.plan import Plan
from weitiao.plan.recipe import Optimizer
from weitiao.plan.shape import ModelShape
from weitiao.training.dry_run import kept_share
from weitiao.training.optimizers import allocate_state, make_optimizer

JOB = Job(
    device="cpu",
    method="lora",
    precision="bf16",
    checkpointing="off",
    rank=4,
    targets="all-linear",
    tokens=0,
    scored=0,
)
CONFIG = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "tie_word_embeddings": True,
}
FAMILIES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
}
ARCHITECTURES = {
    Qwen2Config: "Qwen2ForCausalLM",
    Qwen3Config: "Qwen3ForCausalLM",
    LlamaConfig: "LlamaForCausalLM",
    MistralConfig: "MistralForCausalLM",
    Gemma2Config: "Gemma2ForCausalLM",
}
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def plan_of(job, **more):
    return Plan.model_construct(
        method=job.method,
        quantization="none",
        lora_rank=job.rank,
        lora_alpha=8,
        lora_dropout=0.1 if job.dropout else 0.0,
        lora_targets=job.targets,
        lora_rslora=False,
        lora_dora=job.dora,
        lora_init="default",
        prefix_tokens=8,
        seed=0,
        **more,
    )


def model_of(job, layers, family="qwen2"):
    kind, made = FAMILIES[family]
    torch.manual_seed(0)
    model = made(kind(num_hidden_layers=layers, pad_token_id=0, **CONFIG))
    if job.method == "full":
        return model.train()
    return add_adapter(model.to(TYPES[job.precision]), plan_of(job)).train()


class Held:
    """A tensor that the backward pass needs, as long as something in its graph holds on to it."""

    def __init__(self, x):
        self.x = x


def kept(job, layers, rows, family):
    """Bytes that the backward pass of ``rows`` rows of 32 tokens needs, weights left out."""
    model = model_of(job, layers, family)
    inner = transformers_model(model)
    if job.checkpointing != "off":
        every = 2 if job.checkpointing == "selective" else 1
        inner.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=every)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: weakref.WeakSet[Held] = weakref.WeakSet()

    def keep(x):
        held.add(one := Held(x))
        return one

    flat = flatten(random_samples([32] * rows, 0), share=False)
    with fast_path(model), torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one.x):
        loss = row_losses(model, flat, TYPES[job.precision]).sum()
    assert loss.requires_grad
    storages = {one.x.untyped_storage().data_ptr(): one.x.untyped_storage() for one in held}
    return sum(x.nbytes() for place, x in storages.items() if place not in weights)


def kept_per_token_and_layer(job, family="qwen2"):
    """What a layer more keeps of a token more: all that is once a model or a batch falls out."""
    one, two = (kept(job, 4, n, family) - kept(job, 2, n, family) for n in (2, 4))
    return (two - one) / 2 / (2 * 32)


def written(folder, kind, **changes):
    """Write the configuration of a model of a kind; return where it is, and its shape."""
    config = kind(num_hidden_layers=2, architectures=[ARCHITECTURES[kind]], **CONFIG, **changes)
    config.save_pretrained(folder)
    return ModelSource("x", str(folder)), ModelShape.from_config(config.to_dict())


def test_the_engine_keeps_what_is_said():
    shape = ModelShape.from_config(Qwen2Config(num_hidden_layers=2, **CONFIG).to_dict())
    assert kept_per_token_and_layer(JOB) == layer_token_bytes(shape, JOB)


@pytest.mark.parametrize("kind", [Qwen2Config, Qwen3Config, LlamaConfig, MistralConfig])
def test_the_dry_run_agrees_for_lean_architectures(tmp_path, kind):
    source, shape = written(tmp_path, kind)
    assert shape.known
    plan = plan_of(JOB, shape=shape, precision="bf16", device="cpu", optimizer="adamw")
    assert kept_share(source, plan) == 1.0


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp32"},
        {"targets": ("q_proj", "v_proj")},
        {"targets": ("o_proj", "down_proj")},
        {"dropout": True},
        {"dropout": True, "precision": "fp32"},
        {"dora": True},
        {"method": "full"},
        {"method": "full", "precision": "fp32"},
        {"method": "ia3"},
        {"method": "prefix", "prefix_tokens": 8},
    ],
    ids=str,
)
def test_the_dry_run_agrees_for_each_method(tmp_path, changes):
    source, shape = written(tmp_path, Qwen2Config)
    job = replace(JOB, **changes)
    plan = plan_of(
        job, shape=shape, precision=job.precision, device="cpu", optimizer="adamw"
    )  # fmt: skip
    assert kept_share(source, plan) == pytest.approx(1.0, abs=0.02)


def test_other_architectures_keep_more_and_the_dry_run_says_how_much(tmp_path):
    source, shape = written(tmp_path, Gemma2Config, pad_token_id=0)
    assert not shape.known
    plan = plan_of(JOB, shape=shape, precision="bf16", device="cpu", optimizer="adamw")
    said = kept_share(source, plan)
    assert 1.2 < said < 2.5
    assert said * layer_token_bytes(shape, JOB) == kept_per_token_and_layer(JOB, "gemma2")
    job = replace(JOB, tokens=1000, scored=400)
    assert peak_memory(shape, replace(job, kept_share=said)) > peak_memory(shape, job)


def test_checkpointing_keeps_the_layers_inputs():
    shape = ModelShape.from_config(Qwen2Config(num_hidden_layers=2, **CONFIG).to_dict())
    full = kept_per_token_and_layer(replace(JOB, checkpointing="full"))
    assert full == 2 * shape.hidden_size
    half = kept_per_token_and_layer(replace(JOB, checkpointing="selective"))
    assert half == (layer_token_bytes(shape, JOB) + full) / 2


@pytest.mark.parametrize("method", ["lora", "full", "ia3", "prefix"])
def test_trained_weights(method):
    job = replace(JOB, method=method, prefix_tokens=8)
    shape = ModelShape.from_config(Qwen2Config(num_hidden_layers=2, **CONFIG).to_dict())
    model = model_of(job, 2)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trainable_params(shape, job) == sum(p.numel() for p in trained.values())
    everything = [p for n, p in model.named_parameters() if "head" not in n]
    held = sum(p.numel() * p.element_size() for p in everything)
    assert weight_bytes(shape, job) == pytest.approx(held, rel=0.02)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_optimizer_state(optimizer: Optimizer):
    job = replace(JOB, method="full", optimizer=optimizer)
    shape = ModelShape.from_config(Qwen2Config(num_hidden_layers=2, **CONFIG).to_dict())
    trained = {n: p for n, p in model_of(job, 2).named_parameters() if p.requires_grad}
    settings = {"optimizer": optimizer, "weight_decay": 0.0, "learning_rate": 1e-3}
    made = make_optimizer(trained, plan_of(job, objective="sft", **settings))
    allocate_state(made)
    tensors = [x for state in made.state.values() for x in state.values()]
    held = sum(x.nbytes for x in tensors if isinstance(x, torch.Tensor) and x.ndim)
    if optimizer == "adamw":
        assert state_bytes(shape, job) == held
    else:
        # Rows and columns are a larger share of matrices as small as these.
        assert held < weight_bytes(shape, job) / 10


def test_the_head_is_cut_as_the_engine_cuts_it():
    assert memory._CHUNK_TOKENS == head.CHUNK_TOKENS
    assert memory._CHUNK_LOGITS == head.CHUNK_LOGITS
    assert memory._BLOCK_LOGITS == head.BLOCK_LOGITS


def test_what_saves_memory_saves_it():
    job = replace(JOB, device="cuda", tokens=4096, scored=1600)
    whole = peak_memory(QWEN, job)
    assert peak_memory(QWEN, replace(job, checkpointing="selective")) < whole
    quantized = replace(job, method="qlora", quantization="nf4")
    assert weight_bytes(QWEN, quantized) < 0.45 * weight_bytes(QWEN, job)
    assert weight_bytes(QWEN, replace(quantized, quantization="int8")) < weight_bytes(QWEN, job)
    full = replace(job, method="full", checkpointing="full", tokens=512, scored=200)
    needs = [
        peak_memory(QWEN, replace(full, optimizer=optimizer))
        for optimizer in ("adamw", "adamw_8bit", "paged_adamw_8bit")
    ]
    assert needs == sorted(needs, reverse=True)
    assert peak_memory(QWEN, replace(full, share=0.25)) < peak_memory(QWEN, full)
    measured = replace(JOB, tokens=512, scored=100, process_bytes=1 << 30)
    assert peak_memory(TINY, measured) > 1 << 30

"""What only a GPU's works need: its own speed, exactness on it, and a base made in 4 bits.

    python benchmarks/training_cuda.py [cuda|cpu]

prints, as JSON, the measured rate of bf16 matrix products and how far each path of the engine
is from the plain reference there, and fails where one is too far.
"""

import json
import sys
import time
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np

from weitiao.models.runtime import prepare_process

FP32_TOLERANCE = 1e-5
BF16_TOLERANCE = 2.0
"""bf16 may be this many times as far from fp32 as the plain reference's own bf16 is."""


# --- speed ------------------------------------------------------------------------------


def matmul_rate(device: str, size: int) -> float:
    """Return the operations a second of bf16 products of ``size``² matrices, the best of five."""
    import torch

    def settle() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    best = 0.0
    for _ in range(6):
        settle()
        began = time.perf_counter()
        for _ in range(10):
            left @ right
        settle()
        best = max(best, 20 * size**3 / (time.perf_counter() - began))
    return best


def needed_flops(plan: Any, samples: list[Any], executed: int) -> dict[str, float]:
    """Return the operations that training on ``samples`` needs, without any repeated.

    ``computed``: on the tokens that are left once shared beginnings stand once; ``logical``:
    as if every row were computed alone, which is what the peers' time pays for.
    """
    from weitiao.plan.cost import Job, training_flops

    job = Job(
        device=plan.device,
        method=plan.method,
        precision=plan.precision,
        checkpointing="off",
        rank=plan.lora_rank,
        targets=plan.lora_targets,
        tokens=0,
        scored=0,
    )
    lengths = np.array([len(sample.ids) for sample in samples], dtype=np.float64)
    scored = sum(int(sample.scored.sum()) for sample in samples)
    squares = float(np.square(lengths).sum())
    return {
        name: training_flops(plan.shape, job, tokens, scored, squares)
        for name, tokens in (("computed", executed), ("logical", int(lengths.sum())))
    }


# --- exactness --------------------------------------------------------------------------


def checked_paths(device: str) -> list[dict[str, Any]]:
    """Return each path's distance from the plain reference: one row at a time, in fp32.

    Raises:
        AssertionError: one is too far.
    """
    import torch

    samples, found = _nested_rows(), []
    for base in ("whole", "nf4") if find_spec("bitsandbytes") else ("whole",):
        truth, own = (
            _plain(_small_model(device, dtype, base), samples, dtype)
            for dtype in (torch.float32, torch.bfloat16)
        )
        allowed = {
            torch.float32: (FP32_TOLERANCE, FP32_TOLERANCE),
            torch.bfloat16: tuple(BF16_TOLERANCE * error for error in _distance(truth, own)),
        }
        for (dtype, most), share, every in product(allowed.items(), (True, False), (0, 2, 1)):
            model = _small_model(device, dtype, base)
            errors = _distance(truth, _fast(model, samples, dtype, share, every))
            path = {
                "base": base,
                "precision": str(dtype).removeprefix("torch."),
                "share_prefixes": share,
                "checkpointing": ("off", "full", "selective")[every],
                "loss_error": errors[0],
                "gradient_error": errors[1],
                "allowed": most,
            }
            assert errors[0] <= most[0], path
            assert errors[1] <= most[1], path
            found.append(path)
    return found


def _small_model(device: str, dtype: Any, base: str) -> Any:
    """Return a small model of bf16 or NF4 numbers and a drawn fp32 adapter, the same each time."""
    import torch
    from peft import get_peft_model
    from training_works import lora_config, qwen_config
    from transformers import Qwen2ForCausalLM

    shape = {
        "vocab_size": 997,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(3)
    if base == "nf4":
        held = quantized_base(shape, device)
        for module in held.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = module.weight.quant_state.dtype = dtype
    else:
        held = Qwen2ForCausalLM(qwen_config(shape)).to(torch.bfloat16)
    # Only floating-point weights follow: those of 4 bits are whole numbers.
    model = get_peft_model(held.to(dtype), lora_config(8))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.05)
    return model.to(device).train()


def _nested_rows() -> list[Any]:
    """Return rows some of which share 40 tokens, and some of these 25 more."""
    from weitiao.records.tokenizing import Sample

    draw = np.random.default_rng(5)
    first, second = draw.integers(0, 997, 40), draw.integers(0, 997, 25)
    samples = []
    for row in range(12):
        shared = [np.empty(0, int), first, np.concatenate([first, second])][row % 3]
        ids = np.concatenate([shared, draw.integers(0, 997, int(draw.integers(4, 60)))])
        scored = draw.random(len(ids)) < 0.5
        scored[0], scored[-1] = False, True
        samples.append(Sample(ids.astype(np.int32), scored, row))
    return samples


def _plain(model: Any, samples: list[Any], precision: Any) -> tuple[Any, dict[str, Any]]:
    import torch

    from weitiao.models.flat import autocast
    from weitiao.models.reference import reference_loss

    losses = []
    for sample in samples:
        with autocast(model.device, precision):
            loss = reference_loss(model, sample)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).double(), _gradients(model)


def _fast(
    model: Any, samples: list[Any], precision: Any, share: bool, every: int
) -> tuple[Any, dict[str, Any]]:
    from weitiao.models.adapters import transformers_model
    from weitiao.models.flat import fast_path, flatten, row_losses

    if every:
        transformers_model(model).activation_checkpointing_enable(
            {"use_reentrant": False}, every_n_layers=every
        )
    with fast_path(model):
        losses = row_losses(model, flatten(samples, share=share), precision)
        losses.sum().backward()
    return losses.detach().double(), _gradients(model)


def _gradients(model: Any) -> dict[str, Any]:
    found = {name: p.grad.double() for name, p in model.named_parameters() if p.requires_grad}
    assert all(bool(g.abs().sum() > 0) for g in found.values()), "a gradient is zero"
    return found


def _distance(truth: tuple[Any, Any], made: tuple[Any, Any]) -> tuple[float, float]:
    """Return the largest relative error of a row's loss, and of an adapter matrix's gradient."""
    loss = ((made[0] - truth[0]).abs() / truth[0].abs()).max().item()
    errors = [(made[1][n] - g).norm() / g.norm() for n, g in truth[1].items()]
    return loss, max(error.item() for error in errors)


# --- 4 bits -----------------------------------------------------------------------------


def quantized_base(shape: dict[str, Any], device: str) -> Any:
    """Return a model of random NF4 weights, made one decoder layer at a time on ``device``.

    Of the bf16 weights only the embeddings, the head and one layer are ever there.
    """
    import torch
    from training_works import qwen_config
    from transformers import Qwen2ForCausalLM
    from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer

    from weitiao.models.quantized import compute_exactly

    torch.manual_seed(3)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = Qwen2ForCausalLM(qwen_config({**shape, "num_hidden_layers": 0}))
            # The model's own configuration knows its attention; a new one would not.
            config, whole = model.config, qwen_config(shape)
            config.num_hidden_layers = whole.num_hidden_layers
            config.layer_types = whole.layer_types
            for number in range(config.num_hidden_layers):
                layer = Qwen2DecoderLayer(config, number)
                _quantize(layer, device)
                model.model.layers.append(layer)
    finally:
        torch.set_default_dtype(before)
    model.is_loaded_in_4bit = True
    compute_exactly(model)
    return model.requires_grad_(False)


def _quantize(layer: Any, device: str) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, linear in list(layer.named_modules()):
        if type(linear) is not torch.nn.Linear:
            continue
        small = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=False,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
        )
        small.weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
        small.bias = linear.bias
        parent, _, own = name.rpartition(".")
        setattr(layer.get_submodule(parent), own, small.to(device))


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    rate = matmul_rate(device, 8192 if device == "cuda" else 1024)
    paths = checked_paths(device)
    print(json.dumps({"matmul_rate": rate, "paths": paths}))


if __name__ == "__main__":
    prepare_process()
    main()

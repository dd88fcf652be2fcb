"""What a run costs in time: operations by arithmetic on shapes, at rates that are measured.

N parameters of the trunk's linears, D hidden width, I MLP width, Q and K widths of all query
and of all key heads, V vocabulary, r rank of the adapter; a token counts a multiplication and
an addition as two operations (Kaplan et al. 2020, arXiv 2001.08361, table 1).
"""

import time
from dataclasses import dataclass, replace

from weitiao.plan.cards import card_of
from weitiao.plan.job import REPEATED, Job
from weitiao.plan.machine import Machine
from weitiao.plan.memory import answering_weight_bytes, layer_token_bytes, trainable_params
from weitiao.plan.recipe import Device, Optimizer, Precision
from weitiao.plan.shape import ModelShape

EFFICIENCY: dict[Device, float] = {"cpu": 0.85, "cuda": 0.5}
"""The share of the measured matrix-product rate that a model's own products reach.

On a GPU it stands for norms, activations and casts too; on a CPU these are counted apart.
"""

CORE_ACTIVATION_BYTES = 0.35e9
"""Kept activation bytes a second and core: each is written once and passed over many times."""

LAYER_CALL_SECONDS: dict[Device, float] = {"cpu": 0.0012, "cuda": 0.0015}
"""Time of one layer's Python and kernel starts, forward and backward, whatever its size."""

WHOLE_AGAIN_SECONDS: dict[Device, float] = {"cpu": 1.5e-9, "cuda": 5e-12}
"""Time to make one quantised weight whole, which is done in the forward and backward pass."""

UPDATE_BYTES: dict[Optimizer, int] = {
    "adamw": 40,
    "adamw_8bit": 40,
    "paged_adamw": 40,
    "paged_adamw_8bit": 40,
    "adafactor": 120,
}
"""Bytes read and written for each trained parameter at a step, the gradient's norm included."""

VALIDATION_SAMPLES = 256
"""Samples at most in one look at the validation loss: enough for two digits."""

OWN_FORWARD = 1.25
"""DoRA's and dropout's time over plain LoRA's: the layers are PEFT's own (measured)."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations a second of plain matrix products in fp32 and in the fast 16-bit format.

    ``activation_bytes``: kept activations a second; None where the products' efficiency
    stands for them. ``bandwidth``: bytes of weights read a second. ``token_seconds``: of
    training on one token, all told, where a probe measured it.
    """

    fp32: float
    half: float
    bandwidth: float = 15e9
    activation_bytes: float | None = None
    token_seconds: float | None = None

    def of(self, precision: Precision) -> float:
        """Return the rate in ``precision``."""
        return self.fp32 if precision == "fp32" else self.half


# --- operations -------------------------------------------------------------------------


def training_flops(
    shape: ModelShape, job: Job, tokens: int, scored: int, squares: float = 0.0
) -> float:
    """Return the operations for ``tokens`` tokens of which ``scored`` are predicted.

    Forward 2N a token; backward 2N for the inputs and, where weights are trained, 2N for
    them; checkpointing repeats the forward pass. The head multiplies scored tokens only.
    ``squares``: the sum of the rows' squared lengths, for causal attention (2 Q L² a layer).
    """
    passes = (6 if job.method == "full" else 4) + 2 * REPEATED[job.checkpointing]
    total = float(passes) * shape.linear_params * tokens
    total += (6 if job.method == "full" else 4) * shape.head_params * float(scored)
    total += (3 + REPEATED[job.checkpointing]) * 2 * shape.query_size * squares * shape.layers
    if job.adapted:
        total += 6.0 * shape.lora_params(job.rank, job.targets) * tokens
    return total


def forward_flops(shape: ModelShape, tokens: int, scored: int) -> float:
    """Return the operations of a forward pass, the head on ``scored`` tokens only."""
    return 2.0 * shape.linear_params * tokens + 2.0 * shape.head_params * scored


# --- time -------------------------------------------------------------------------------


def training_seconds(
    shape: ModelShape,
    job: Job,
    rates: Rates,
    *,
    tokens: int,
    scored: int,
    squares: float,
    micro_batches: float,
    steps: float = 0.0,
) -> float:
    """Return the time of training on ``tokens`` tokens in so many calls and optimizer steps."""
    if rates.token_seconds is not None:
        return tokens * rates.token_seconds
    flops = training_flops(shape, job, tokens, scored, squares)
    seconds = compute_seconds(flops, micro_batches, shape, job, rates)
    if rates.activation_bytes is not None:
        again = 1 + REPEATED[job.checkpointing] / 2
        kept = float(tokens) * shape.layers * layer_token_bytes(shape, job)
        seconds += again * kept / rates.activation_bytes
    if job.dora or job.dropout:
        seconds *= OWN_FORWARD
    if job.quantization != "none":
        seconds += 2 * micro_batches * shape.linear_params * WHOLE_AGAIN_SECONDS[job.device]
    update = trainable_params(shape, job) * UPDATE_BYTES[job.optimizer] / rates.bandwidth
    return seconds + steps * update


def compute_seconds(
    flops: float, micro_batches: float, shape: ModelShape, job: Job, rates: Rates
) -> float:
    """Return the time of ``flops`` operations in ``micro_batches`` calls of the model."""
    overhead = micro_batches * shape.layers * LAYER_CALL_SECONDS[job.device]
    busy = flops / (rates.of(job.precision) * EFFICIENCY[job.device])
    # A GPU computes while Python prepares the next kernels; a CPU does one after the other.
    return max(busy, overhead) if job.device == "cuda" else busy + overhead


def look_seconds(
    shape: ModelShape, job: Job, rates: Rates, *, tokens: int, scored: int, micro_batches: float
) -> float:
    """Return the time of one look at the validation loss."""
    flops = forward_flops(shape, tokens, scored)
    if rates.token_seconds is None:
        return compute_seconds(flops, micro_batches, shape, job, rates)
    share = flops / max(1.0, training_flops(shape, job, tokens, scored))
    return tokens * rates.token_seconds * share


def generation_seconds(
    shape: ModelShape, job: Job, rates: Rates, *, rows: int, batch: int, prompt: float, new: float
) -> float:
    """Return the time of answering ``rows`` rows, ``batch`` at once, token by token.

    Each step reads all weights once and multiplies ``batch`` rows; whichever takes longer.
    """
    batches = -(-rows // batch)
    step_flops = forward_flops(shape, min(batch, rows), min(batch, rows))
    step = max(
        step_flops / (rates.of(job.precision) * EFFICIENCY[job.device]),
        answering_weight_bytes(shape, job) / rates.bandwidth,
    )
    step += shape.layers * LAYER_CALL_SECONDS[job.device] / 2
    prefill = compute_seconds(
        forward_flops(shape, round(rows * prompt), rows), batches, shape, job, rates
    )
    return batches * new * step + prefill


# --- rates ------------------------------------------------------------------------------

CORE_FP32 = 50e9
"""One ordinary core with AVX2 or AVX-512, operations a second."""

REACHED = 0.8
"""What large products reach of a card's published rate: 790 of an H100's 989 (measured)."""

_GPU_UNKNOWN = Rates(fp32=8e12, half=25e12, bandwidth=250e9)


def default_rates(machine: Machine, device: Device) -> Rates:
    """Return the rates of a device that was not measured: a card's published ones, or rough."""
    if device == "cuda":
        card = card_of(machine.gpus[0].name)
        if card is None:
            return _GPU_UNKNOWN
        return Rates(card.fp32 * REACHED, card.half * REACHED, card.bandwidth * REACHED)
    fp32 = machine.cores * CORE_FP32
    return Rates(
        fp32=fp32,
        half=fp32 * (2.0 if machine.cpu_bf16 == "fast" else 0.5),
        activation_bytes=machine.cores * CORE_ACTIVATION_BYTES,
    )


def measure_rates(machine: Machine, device: Device, width: int) -> Rates:
    """Measure both rates by matrix products of the model's ``width``; under 0.3 s on a CPU.

    Emulated bf16 may be slow enough to be noticed, so it is taken as half of fp32 unseen.
    """
    import torch

    width = min(width, 4096 if device == "cuda" else 1024)
    rows = 4096 if device == "cuda" else 256

    def measured(dtype: torch.dtype) -> float:
        left = torch.randn(rows, width, device=device).to(dtype)
        right = torch.randn(width, 4 * width, device=device).to(dtype)
        left @ right
        # Whatever else runs now makes a burst slower, never faster.
        return max(burst(left, right) for _ in range(5)) * 8.0 * rows * width * width

    def burst(left: torch.Tensor, right: torch.Tensor) -> float:
        """Return products a second."""
        done, seconds = 0, 0.0
        start = time.perf_counter()
        while seconds < 0.02:
            product = left @ right
            if device == "cuda":
                product.sum().item()
            done += 1
            seconds = time.perf_counter() - start
        return done / seconds

    fp32 = measured(torch.float32)
    rates = replace(default_rates(machine, device), fp32=fp32)
    if device == "cuda":
        return replace(rates, half=measured(getattr(torch, machine.gpus[0].half_name)))
    fast = machine.cpu_bf16 == "fast"
    return replace(rates, half=measured(torch.bfloat16) if fast else fp32 / 2)

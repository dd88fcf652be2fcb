"""What a run costs in memory and time: arithmetic on shapes, checked by what runs report.

N parameters of the trunk's linears, D hidden width, I MLP width, Q and K widths of all query
and of all key heads, V vocabulary, r rank of the adapter; a token counts a multiplication and
an addition as two operations (Kaplan et al. 2020, arXiv 2001.08361, table 1).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from weitiao.plan.machine import Machine
from weitiao.plan.recipe import Checkpointing, Device, Method, Precision
from weitiao.plan.shape import ModelShape

BYTES: dict[Precision, int] = {"bf16": 2, "fp32": 4}

PROCESS_BYTES: dict[Device, int] = {"cpu": 450 << 20, "cuda": 600 << 20}
"""What Python and torch hold before a model is loaded: in memory, or as the CUDA context."""

ALLOCATOR_FACTOR: dict[Device, float] = {"cpu": 1.75, "cuda": 1.12}
"""Bytes taken for each byte of activations: the allocators keep and split what is freed."""

EFFICIENCY: dict[Device, float] = {"cpu": 0.8, "cuda": 0.45}
"""The share of the measured matrix-product rate that a model's own products reach.

On a GPU it stands for norms, activations and casts too; on a CPU these are counted apart.
"""

CORE_ACTIVATION_BYTES = 0.2e9
"""Kept activation bytes a second and core: each is written once and passed over many times."""

LAYER_CALL_SECONDS: dict[Device, float] = {"cpu": 0.0012, "cuda": 0.002}
"""Time of one layer's Python and kernel starts, forward and backward, whatever its size."""

REPEATED: dict[Checkpointing, float] = {"off": 0.0, "selective": 0.5, "full": 1.0}
"""The share of the layers whose forward pass checkpointing repeats."""

HEAD_CHUNK_LOGITS = 1 << 21
"""Logits the loss holds at once, in chunks of at least 128 tokens (see models/head.py)."""

VALIDATION_SAMPLES = 256
"""Samples at most in one look at the validation loss: enough for two digits."""

MEMORY_BANDWIDTH: dict[Device, float] = {"cpu": 15e9, "cuda": 800e9}
"""Bytes a second at which weights are read, the limit of generation; ordinary machines."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations a second of plain matrix products in each precision.

    ``activation_bytes``: kept activations a second; None where the products' efficiency
    stands for them.
    """

    fp32: float
    bf16: float
    activation_bytes: float | None = None

    def of(self, precision: Precision) -> float:
        """Return the rate in ``precision``."""
        return self.bf16 if precision == "bf16" else self.fp32


@dataclass(frozen=True, slots=True)
class Job:
    """What decides a run's costs.

    ``tokens`` and ``scored`` are those of the largest micro-batch that will be run.
    """

    device: Device
    method: Method
    precision: Precision
    checkpointing: Checkpointing
    rank: int
    targets: str | Sequence[str]
    tokens: int
    scored: int


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
    if job.method == "lora":
        total += 6.0 * shape.lora_params(job.rank, job.targets) * tokens
    return total


def forward_flops(shape: ModelShape, tokens: int, scored: int) -> float:
    """Return the operations of a forward pass, the head on ``scored`` tokens only."""
    return 2.0 * shape.linear_params * tokens + 2.0 * shape.head_params * scored


# --- memory -----------------------------------------------------------------------------


def trainable_params(shape: ModelShape, job: Job) -> int:
    """Return how many parameters are trained."""
    if job.method == "full":
        return shape.total_params
    return shape.lora_params(job.rank, job.targets)


def weight_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes of weights, gradients and AdamW's two moments.

    A frozen base is held in the precision of the run. What is trained is fp32: weight,
    gradient and two moments, 16 bytes each, and a cast copy where the run is in bf16.
    """
    trained = trainable_params(shape, job) * (16 + (2 if job.precision == "bf16" else 0))
    frozen = 0 if job.method == "full" else shape.total_params * BYTES[job.precision]
    return frozen + trained


def layer_token_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes that one decoder layer keeps of one token for the backward pass.

    Norms keep their input in fp32 (2 D); attention keeps query, key, value and output; the
    gated MLP keeps gate, its activation and up (3 I); a trained linear keeps its input. In
    bf16 PEFT gives every adapter a copy of its input of its own (5 D + Q + I), in fp32
    adapters of the same input share it (2 D + Q + I). Adapters add r for each.
    """
    hidden, inner = shape.hidden_size, shape.intermediate_size
    query, kv = shape.query_size, shape.kv_size
    own_copies = job.method == "lora" and job.precision == "bf16"
    kept = 2 * query + 2 * kv + 3 * inner + (5 if own_copies else 2) * hidden + query + inner
    if job.method == "lora":
        kept += job.rank * len(shape.targeted(job.targets))
    return 4 * 2 * hidden + BYTES[job.precision] * kept


def activation_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes of the largest micro-batch's activations, head chunk included.

    With checkpointing each layer keeps its input only, and one layer at a time is whole.
    """
    width = BYTES[job.precision]
    layer = layer_token_bytes(shape, job)
    if job.checkpointing != "off":
        trunk = job.tokens * (layer + shape.layers * shape.hidden_size * width)
    else:
        trunk = job.tokens * shape.layers * layer
    ends = job.tokens * shape.hidden_size * (4 + width)
    chunk = min(job.scored, max(128, HEAD_CHUNK_LOGITS // shape.vocab_size))
    head = chunk * shape.vocab_size * (8 + 2 * width) + 2 * job.scored * shape.hidden_size * width
    if job.method == "full":
        head += shape.head_params * 4
    return trunk + ends + head


def peak_memory(shape: ModelShape, job: Job) -> int:
    """Return the bytes that training takes at its highest."""
    activations = activation_bytes(shape, job) * ALLOCATOR_FACTOR[job.device]
    return PROCESS_BYTES[job.device] + weight_bytes(shape, job) + round(activations)


def generation_memory(shape: ModelShape, job: Job, rows: int, length: int) -> int:
    """Return the bytes that answering ``rows`` rows of ``length`` tokens at once takes."""
    width = BYTES[job.precision]
    cache = 2 * rows * length * shape.kv_size * shape.layers * width
    logits = rows * shape.vocab_size * 8
    held = shape.total_params * width + round((cache + logits) * ALLOCATOR_FACTOR[job.device])
    return PROCESS_BYTES[job.device] + held


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
) -> float:
    """Return the time of training on ``tokens`` tokens; see :func:`training_flops`."""
    flops = training_flops(shape, job, tokens, scored, squares)
    seconds = compute_seconds(flops, micro_batches, shape, job, rates)
    if rates.activation_bytes is not None:
        kept = float(tokens) * shape.layers * layer_token_bytes(shape, job)
        seconds += kept / rates.activation_bytes
    return seconds


def compute_seconds(
    flops: float, micro_batches: float, shape: ModelShape, job: Job, rates: Rates
) -> float:
    """Return the time of ``flops`` operations in ``micro_batches`` calls of the model."""
    overhead = micro_batches * shape.layers * LAYER_CALL_SECONDS[job.device]
    busy = flops / (rates.of(job.precision) * EFFICIENCY[job.device])
    # A GPU computes while Python prepares the next kernels; a CPU does one after the other.
    return max(busy, overhead) if job.device == "cuda" else busy + overhead


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
        shape.total_params * BYTES[job.precision] / MEMORY_BANDWIDTH[job.device],
    )
    step += shape.layers * LAYER_CALL_SECONDS[job.device] / 2
    prefill = compute_seconds(
        forward_flops(shape, round(rows * prompt), rows), batches, shape, job, rates
    )
    return batches * new * step + prefill


# --- rates ------------------------------------------------------------------------------

_CORE_FP32 = 50e9
"""One ordinary core with AVX2 or AVX-512, operations a second."""

_GPU_BF16 = (
    ("H200", 790e12),
    ("H100", 790e12),
    ("A100", 260e12),
    ("L40", 170e12),
    ("4090", 160e12),
    ("4080", 95e12),
    ("3090", 70e12),
    ("4070", 58e12),
    ("A10", 60e12),
    ("3080", 58e12),
    ("4060", 30e12),
    ("3060", 25e12),
)
_GPU_UNKNOWN = 30e12
_GPU_FP32_SHARE = 0.25


def default_rates(machine: Machine, device: Device) -> Rates:
    """Return rough rates for a device that was not measured."""
    if device == "cuda":
        name = machine.gpus[0].name
        bf16 = next((rate for part, rate in _GPU_BF16 if part in name), _GPU_UNKNOWN)
        fp32 = bf16 * _GPU_FP32_SHARE
        return Rates(fp32=fp32, bf16=bf16 if machine.gpus[0].bf16 else fp32 / 2)
    fp32 = machine.cores * _CORE_FP32
    return Rates(
        fp32=fp32,
        bf16=fp32 * (2.0 if machine.cpu_bf16 == "fast" else 0.5),
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
        done, seconds = 0, 0.0
        start = time.perf_counter()
        while seconds < 0.08:
            product = left @ right
            if device == "cuda":
                product.sum().item()
            done += 1
            seconds = time.perf_counter() - start
        return done * 8.0 * rows * width * width / seconds

    fp32 = measured(torch.float32)
    fast = machine.cpu_bf16 == "fast" if device == "cpu" else machine.gpus[0].bf16
    return replace(
        default_rates(machine, device),
        fp32=fp32,
        bf16=measured(torch.bfloat16) if fast else fp32 / 2,
    )

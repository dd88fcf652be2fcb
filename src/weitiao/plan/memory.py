"""What a run takes in memory: arithmetic on shapes, tensor by tensor of what the engine keeps.

D hidden width, I MLP width, Q and K widths of all query and of all key heads, H query heads,
V vocabulary, r rank, T tokens and S scored tokens of the largest micro-batch, L layers. Tests
count the tensors that autograd keeps of small models and hold :func:`layer_token_bytes` to them.
"""

from collections.abc import Callable
from math import sqrt

from weitiao.plan.job import BYTES, REPEATED, Job
from weitiao.plan.recipe import Device, Optimizer, Quantization
from weitiao.plan.shape import Linear, ModelShape

PROCESS_BYTES: dict[Device, int] = {"cpu": 430 << 20, "cuda": 64 << 20}
"""What Python, torch and peft hold before a model is loaded; on a GPU the libraries' own.

The CUDA context is not in it: it is there already when free memory is asked for.
"""

TOKENIZER_BYTES = 1500
"""What the tokenizer holds for each entry of the vocabulary: 220 MB at 152,000."""

HELD_FACTOR: dict[Device, float] = {"cpu": 1.22, "cuda": 1.08}
"""Bytes held for each byte of activations: allocators keep and split what is freed.

Micro-batches of other sizes leave holes in glibc's heap; PyTorch's own allocator on a GPU
rounds up.
"""

PRODUCT_CACHE_BYTES = 76 << 20
"""oneDNN's bf16 products on a CPU, as many as ``prepare_process`` lets it keep, and the holes that
they leave in the heap; fitted. After some hundred steps each more takes 2 to 3 MB (measured)."""

THREADS_BYTES = 54 << 20
"""What more than one thread adds to them, and to the heap, where one process trains (fitted)."""

FORK_BYTES = 40 << 20
"""What a process made by fork changes of what it was given, and its own buffers (measured)."""

OWN_HELD, DORA_HELD = 1.12, 1.2
"""So many times more where PEFT's layers, and not ours, compute what is trained (fitted, CPU)."""

STATE_BYTES: dict[Optimizer, float] = {
    "adamw": 8,
    "adamw_8bit": 2.03,
    "paged_adamw": 8,
    "paged_adamw_8bit": 2.03,
    "adafactor": 0.02,
}
"""Optimizer state for each trained parameter: two moments in fp32, or in 8 bits with a scale
for each block of 256 (Dettmers et al. 2021, arXiv 2110.02861); Adafactor keeps row and column
means only (Shazeer & Stern 2018, arXiv 1804.04235)."""

WEIGHT_BYTES: dict[Quantization, float] = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "int8": 1.0}
"""Bytes of a quantised linear weight, scales included: NF4 has one of 8 bits for 64 weights."""

_CHUNK_TOKENS: dict[Device, int] = {"cpu": 256, "cuda": 4096}
_CHUNK_LOGITS: dict[Device, int] = {"cpu": 1 << 26, "cuda": 1 << 29}
_BLOCK_LOGITS: dict[Device, int] = {"cpu": 1 << 21, "cuda": 1 << 27}
"""How the head cuts its logits; the same numbers as in models/head.py, which a test compares."""


def trainable_params(shape: ModelShape, job: Job) -> int:
    """Return how many parameters are trained."""
    layers: dict[str, Callable[[], int]] = {
        "full": lambda: shape.total_params,
        "prefix": lambda: 2 * shape.layers * job.prefix_tokens * shape.kv_size,
        "ia3": lambda: shape.layers * (2 * shape.kv_size + shape.intermediate_size),
    }
    if job.method in layers:
        return layers[job.method]()
    count = shape.lora_params(job.rank, job.targets)
    if job.dora:
        count += shape.layers * sum(linear.outputs for linear in shape.targeted(job.targets))
    return count


def weight_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes of the weights: a frozen base in its precision, what is trained in fp32."""
    trained = trainable_params(shape, job)
    if job.method == "full":
        return 4 * trained
    width = BYTES[job.precision]
    rest = shape.total_params - shape.linear_params
    linear = WEIGHT_BYTES.get(job.quantization, width)
    return round(linear * shape.linear_params) + width * rest + 4 * trained


def state_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes of the optimizer's state; paged state is in the computer's own memory."""
    if job.device == "cuda" and job.optimizer.startswith("paged"):
        return 0
    return round(STATE_BYTES[job.optimizer] * trainable_params(shape, job))


def layer_token_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes that one decoder layer keeps of one token for the backward pass.

    Two norms keep their inputs and a rate; attention keeps query, key, value, output and the
    logarithm of its sums; the gated MLP keeps gate and up. What is trained adds its own.
    """
    width = BYTES[job.precision]
    kept = width * (2 * shape.query_size + 2 * shape.kv_size + 2 * shape.intermediate_size)
    kept += 2 * shape.hidden_size * _residual_width(job) + 8 + 4 * shape.heads
    if shape.qk_norm:
        kept += (shape.query_size + shape.kv_size) * width + 4 * (shape.heads + shape.kv_heads)
    return kept + _trained_token_bytes(shape, job)


def _residual_width(job: Job) -> int:
    """Return the bytes of a number between the layers: fp32 where all weights are."""
    return 4 if job.method == "full" else BYTES[job.precision]


def _trained_token_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes of a token that a layer keeps because something in it is trained."""
    width, hidden, inner = BYTES[job.precision], shape.hidden_size, shape.intermediate_size
    if job.method == "prefix":
        # Keys and values once more, behind those of the virtual tokens.
        return 2 * shape.kv_size * width
    if job.method == "ia3":
        # PEFT scales the MLP's units in fp32, and keys and values as they are.
        return 4 * inner + 2 * shape.kv_size * width
    if job.method == "full":
        # Autocast gives each of five linears its copy of a norm's fp32 output.
        return width * inner + (2 * 4 * hidden if width == 4 else 5 * width * hidden)
    targets = shape.targeted(job.targets)
    ranks = width * job.rank * len(targets)
    if job.dora:
        return ranks + width * sum(one.inputs + 2 * one.outputs for one in targets)
    if job.dropout:
        # Its mask, and the input once more: on a CPU a mask is as wide as fp32.
        mask = 4 if job.device == "cpu" else 1
        return ranks + sum((mask + width) * one.inputs for one in targets)
    return ranks + width * sum(_inputs_once(targets).values())


def _inputs_once(targets: tuple[Linear, ...]) -> dict[str, int]:
    """Return the widths of the inputs that adapters keep: layers of the same input share it."""
    shared = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "mlp"}
    shared["up_proj"] = "mlp"
    # Attention keeps its output, the input of o_proj, itself.
    return {shared.get(t.name, t.name): t.inputs for t in targets if t.name != "o_proj"}


def kept_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes of the largest micro-batch that the backward pass needs.

    With checkpointing a layer keeps its input only; one layer at a time is then whole.
    """
    residual = shape.hidden_size * _residual_width(job)
    again = REPEATED[job.checkpointing]
    layer = layer_token_bytes(shape, job) * job.kept_share
    trunk = shape.layers * ((1 - again) * layer + again * residual) + (layer if again else 0)
    return round(job.tokens * (trunk + residual)) + BYTES[job.precision] * job.scored * (
        shape.hidden_size
    )


def passing_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes that come and go beside what is kept: one layer's gradients, or the head's.

    Only one of the two is there at a time. In bf16 on a CPU oneDNN takes buffers for a layer's
    products, and the head's leave holes: the more pieces it is cut into, the more (fitted).
    """
    width = BYTES[job.precision]
    lean = job.method in ("lora", "qlora", "full") and not (job.dora or job.dropout)
    packs = job.device == "cpu" and width == 2
    inner = job.tokens * shape.intermediate_size
    gradients = round(inner * width * (2.5 if lean else 5.5)) + 4 * packs * inner
    if job.quantization != "none":
        gradients += 3 * shape.intermediate_size * shape.hidden_size * width
    most = min(_CHUNK_TOKENS[job.device], _CHUNK_LOGITS[job.device] // shape.vocab_size)
    logits = max(16, min(job.scored, most)) * shape.vocab_size
    head = logits * width + 8 * min(logits, _BLOCK_LOGITS[job.device])
    head += 4 * (2 * job.scored + job.tokens) * shape.hidden_size
    pieces = max(1.0, job.scored / most)
    head += round(packs * (2 * shape.head_params + 4 * logits) * min(1.0, 0.27 * sqrt(pieces)))
    if job.method == "full":
        head += (4 + width) * shape.head_params
    return max(gradients, head)


def training_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes that training adds to weights and optimizer state at its highest.

    Gradients are made while activations are let go of, so the larger of the two counts, but
    for the second micro-batch of a step. At the step itself Adafactor has two copies of the
    largest tensor. Where all weights are trained on a CPU, the heap keeps the place of what has
    gone: two copies and the gradient then lie beside the activations, where the head's own
    gradient was, and gradients that wait for a second micro-batch leave holes as large.
    """
    trained = trainable_params(shape, job)
    gradients = 4 * trained
    activations = kept_bytes(shape, job) + passing_bytes(shape, job)
    if job.method == "full" and BYTES[job.precision] == 2:
        # Autocast's copies of the weights live from the forward to the backward pass.
        activations += 2 * shape.linear_params
    factor = HELD_FACTOR[job.device]
    if job.dora:
        factor *= DORA_HELD
    elif job.dropout or job.method in ("prefix", "ia3"):
        factor *= OWN_HELD
    held, embedding = round(activations * factor), shape.embedding_params
    # glibc keeps the place of what has gone.
    on_heap = job.method == "full" and job.device == "cpu"
    if job.optimizer == "adafactor" and job.method == "full":
        if on_heap:
            held += round((12 - 6 * factor) * embedding)
        held = max(held, gradients + 8 * embedding)
    if not job.accumulates:
        return max(held, gradients)
    return held + gradients * (2 if on_heap else 1)


def process_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes that are held before a model is loaded: as measured, where it was."""
    if job.device == "cuda":
        return PROCESS_BYTES["cuda"]
    measured = job.process_bytes or PROCESS_BYTES["cpu"] + TOKENIZER_BYTES * shape.vocab_size
    return measured + (PRODUCT_CACHE_BYTES if job.precision == "bf16" else 0)


def peak_memory(shape: ModelShape, job: Job) -> int:
    """Return the bytes that training takes at its highest: in each process, or in all forks."""
    weights = weight_bytes(shape, job) + state_bytes(shape, job)
    first = process_bytes(shape, job) + round(weights * job.share) + training_bytes(shape, job)
    if job.device == "cpu" and job.precision == "bf16" and job.forks == 1:
        first += THREADS_BYTES
    return first + (job.forks - 1) * _another_fork(shape, job)


def _another_fork(shape: ModelShape, job: Job) -> int:
    """Return what one more process holds for itself of a training on one CPU."""
    trained = 4 * trainable_params(shape, job) + state_bytes(shape, job)
    products = PRODUCT_CACHE_BYTES if job.precision == "bf16" else 0
    return FORK_BYTES + products + trained + training_bytes(shape, job)


def answering_weight_bytes(shape: ModelShape, job: Job) -> int:
    """Return the bytes of the weights that answer: a model trained whole is held as it is kept."""
    if job.method == "full":
        return shape.total_params * BYTES[job.precision]
    return weight_bytes(shape, job)


def generation_memory(shape: ModelShape, job: Job, rows: int, length: int) -> int:
    """Return the bytes that answering ``rows`` rows of ``length`` tokens at once takes."""
    cache = 2 * rows * length * shape.kv_size * shape.layers * BYTES[job.precision]
    logits = rows * shape.vocab_size * 8
    working = round((cache + logits) * HELD_FACTOR[job.device])
    return process_bytes(shape, job) + answering_weight_bytes(shape, job) + working


def disk_bytes(shape: ModelShape, job: Job, checkpoints: int) -> int:
    """Return what a run keeps on the disk: checkpoints, one more in writing, weights thrice."""
    trained = trainable_params(shape, job)
    checkpoint = round((4 + STATE_BYTES[job.optimizer]) * trained)
    kept = (BYTES[job.precision] if job.method == "full" else 4) * trained
    return (checkpoints + 1) * checkpoint + 3 * kept

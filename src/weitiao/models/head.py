"""The language-model head and its loss, on scored tokens only, in chunks.

Shapes: T tokens, S scored tokens, D hidden width, V vocabulary, R rows of the micro-batch.
"""

from typing import Any

import torch

CHUNK_TOKENS = {"cpu": 256, "cuda": 4096}
"""Scored tokens whose logits are held at once; more would not make the products faster."""

CHUNK_LOGITS = {"cpu": 1 << 26, "cuda": 1 << 29}
"""The most logits held at once, whatever the vocabulary."""

BLOCK_LOGITS = {"cpu": 1 << 21, "cuda": 1 << 27}
"""Logits in fp32 at once; on a CPU they then stay near the size of its caches."""


class _ScoredLoss(torch.autograd.Function):
    """Sum of cross-entropy for each row; the gradient is made while the softmax is at hand.

    Recomputing the logits in the backward pass would cost a third matrix product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: torch.Tensor,
        weight_VD: torch.Tensor,
        source_S: torch.Tensor,
        target_S: torch.Tensor,
        row_S: torch.Tensor,
        rows: int,
        smoothing: float,
    ) -> torch.Tensor:
        head_VD = weight_VD.to(hidden_TD.dtype)
        hidden_SD = hidden_TD.index_select(0, source_S)
        wanted = wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        loss_S = torch.empty(len(target_S), dtype=torch.float32, device=hidden_TD.device)
        grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        chunk = chunk_tokens(hidden_TD.device.type, len(head_VD))
        # The head's own gradient is a sum over tokens, which is large enough as it is.
        scale = error_scale(head_VD.dtype) if not wants_weight else 1.0
        for start in range(0, len(target_S), chunk):
            part = slice(start, start + chunk)
            logits = hidden_SD[part] @ head_VD.T
            loss_S[part] = _loss_and_error(
                logits, target_S[part, None], smoothing, scale if any(wanted) else None
            )
            if grad_VD is not None:
                grad_VD += logits.T @ hidden_SD[part]
            if wants_hidden:
                # Nothing reads these rows again: the gradient takes their place.
                torch.mm(logits, head_VD, out=hidden_SD[part])
        saved = hidden_SD if wants_hidden else None
        ctx.save_for_backward(saved, grad_VD, source_S, row_S)
        ctx.shape, ctx.weight_dtype = hidden_TD.shape, weight_VD.dtype
        ctx.error_scale = scale
        return _summed(loss_S, row_S, rows)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_SD, grad_VD, source_S, row_S = ctx.saved_tensors
        weight_S = grads[0].index_select(0, row_S) / ctx.error_scale
        grad_TD = None
        if grad_SD is not None:
            # A shared token may predict the first token of many rows: summed, in fp32.
            grad_TD = _summed(grad_SD.float() * weight_S[:, None], source_S, ctx.shape[0])
            grad_TD = grad_TD.to(grad_SD.dtype)
        if grad_VD is not None:
            # The weight's gradient is summed over rows already, so they must weigh the same;
            # training weighs every scored token of a step equally.
            grad_VD = (grad_VD * _common(weight_S)).to(ctx.weight_dtype)
        return grad_TD, grad_VD, None, None, None, None, None


def error_scale(dtype: torch.dtype) -> float:
    """Return what the error of the logits is multiplied by while it is held in ``dtype``.

    Most probabilities of a large vocabulary are below what fp16 holds; those of 1 stay
    within it, and so do the products with a head whose weights are below 30.
    """
    return 1024.0 if dtype == torch.float16 else 1.0


def _common(weight_S: torch.Tensor) -> torch.Tensor:
    """Return the weight of all rows, which must be one; a GPU, not to wait, says so by NaN."""
    same = (weight_S == weight_S[0]).all()
    if weight_S.is_cuda:
        return torch.where(same, weight_S[0], torch.nan)
    if not bool(same):
        raise ValueError("a trained head needs the same weight for every row")
    return weight_S[0]


def chunk_tokens(device: str, vocabulary: int) -> int:
    """Return how many scored tokens' logits are held at once."""
    kind = device if device in CHUNK_TOKENS else "cpu"
    return max(16, min(CHUNK_TOKENS[kind], CHUNK_LOGITS[kind] // vocabulary))


def _loss_and_error(
    logits: torch.Tensor, target: torch.Tensor, smoothing: float, scale: float | None
) -> torch.Tensor:
    """Return -log p of each row's target [n]; put ``scale`` d loss / d logits into ``logits``.

    With label smoothing ε the target is (1 - ε) on the token and ε / V on every one. Blocks
    of rows are taken to fp32, in which the softmax is exact whatever the logits are held in.
    """
    vocabulary = logits.shape[1]
    kind = logits.device.type if logits.device.type in BLOCK_LOGITS else "cpu"
    block = max(1, BLOCK_LOGITS[kind] // vocabulary)
    losses = []
    for rows, wanted in zip(logits.split(block), target.split(block), strict=True):
        probability, loss = _softmax(rows, wanted, smoothing)
        losses.append(loss[:, 0])
        if scale is not None:
            probability.scatter_add_(1, wanted, torch.full_like(loss, smoothing - 1.0))
            if smoothing:
                probability.sub_(smoothing / vocabulary)
            if scale != 1:
                probability.mul_(scale)
            rows.copy_(probability)
    return torch.cat(losses)


def _softmax(
    logits: torch.Tensor, target: torch.Tensor, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the probabilities [n, V] and the loss [n, 1], both in fp32."""
    if logits.is_cuda and not smoothing:
        return _softmax_from_top(logits, target)
    if logits.device.type == "cpu" and not smoothing:
        # One pass less over the logits, which the processor notices; where a probability
        # is too small for fp32, its logarithm is taken the other way.
        probability = torch.softmax(logits, dim=1, dtype=torch.float32)
        wanted = probability.gather(1, target)
        if bool((wanted > 1e-30).all()):
            return probability, -wanted.log_()
    log_p = torch.log_softmax(logits, dim=1, dtype=torch.float32)
    loss = -log_p.gather(1, target)
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * log_p.mean(1, keepdim=True)
    return log_p.exp_(), loss


def _softmax_from_top(
    logits: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what :func:`_softmax` does in fewer passes, and exactly, without asking the GPU.

    The largest probability is 1 / V at least, so its logarithm is sound, and the logits say
    how far the target's is below it.
    """
    top, place = logits.max(1, keepdim=True)
    probability = torch.softmax(logits, dim=1, dtype=torch.float32)
    below = top.float() - logits.gather(1, target).float()
    return probability, below - probability.gather(1, place).log_()


def _summed(values: torch.Tensor, place: torch.Tensor, size: int) -> torch.Tensor:
    """Return the sums of ``values`` [S, ...] by ``place``, added up in a fixed order."""
    total = torch.zeros(size, *values.shape[1:], dtype=values.dtype, device=values.device)
    if values.is_cuda:
        # index_add_ is atomic there, and rounds otherwise each time.
        return total.index_put_((place,), values, accumulate=True)
    return total.index_add_(0, place, values)


def scored_loss(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    source_S: torch.Tensor,
    target_S: torch.Tensor,
    row_S: torch.Tensor,
    rows: int,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the sum of -log p(target) in nats over each row's scored tokens: fp32 [rows].

    ``source_S``: the places in ``hidden_TD`` of the tokens that predict the targets. With
    ``smoothing`` it is the label-smoothed loss (Szegedy et al. 2015, arXiv 1512.00567). With
    a trained head, all rows must be given the same weight in the loss (a plain sum of the
    result, times any constant).
    """
    loss: torch.Tensor = _ScoredLoss.apply(  # type: ignore[no-untyped-call]
        hidden_TD, weight_VD, source_S, target_S, row_S, rows, smoothing
    )
    return loss

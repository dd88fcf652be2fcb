"""The language-model head and its loss, on scored tokens only, in chunks.

Shapes: S scored tokens, D hidden width, V vocabulary, R rows of the micro-batch.
"""

from typing import Any

import torch

CHUNK_LOGITS = 1 << 21
"""Logits held at once: a chunk of 256 tokens at a vocabulary of 8,192; never under 128 tokens.

A chunk's fp32 softmax then stays near the size of the processor's caches.
"""


class _ScoredLoss(torch.autograd.Function):
    """Sum of cross-entropy for each row; the gradient is made while the softmax is at hand.

    Recomputing the logits in the backward pass would cost a third matrix product.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_SD: torch.Tensor,
        weight_VD: torch.Tensor,
        target_S: torch.Tensor,
        row_S: torch.Tensor,
        rows: int,
    ) -> torch.Tensor:
        head_VD = weight_VD.to(hidden_SD.dtype)
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        loss_S = torch.empty(len(target_S), dtype=torch.float32, device=hidden_SD.device)
        grad_SD = torch.empty_like(hidden_SD) if wants_hidden else None
        grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if wants_weight else None
        chunk = max(128, CHUNK_LOGITS // len(head_VD))
        for start in range(0, len(target_S), chunk):
            part = slice(start, start + chunk)
            probability = (hidden_SD[part] @ head_VD.T).float()
            target = target_S[part, None]
            log_total = probability.logsumexp(dim=1, keepdim=True)
            loss_S[part] = (log_total - probability.gather(1, target))[:, 0]
            if not (wants_hidden or wants_weight):
                continue
            probability.sub_(log_total).exp_()
            probability.scatter_add_(1, target, torch.full_like(log_total, -1.0))
            error = probability.to(hidden_SD.dtype)
            if grad_SD is not None:
                grad_SD[part] = error @ head_VD
            if grad_VD is not None:
                grad_VD += error.T @ hidden_SD[part]
        ctx.save_for_backward(grad_SD, grad_VD, row_S)
        ctx.weight_dtype = weight_VD.dtype
        return torch.zeros(rows, device=loss_S.device).index_add_(0, row_S, loss_S)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_SD, grad_VD, row_S = ctx.saved_tensors
        weight_S = grads[0].index_select(0, row_S)
        if grad_SD is not None:
            grad_SD = grad_SD * weight_S[:, None].to(grad_SD.dtype)
        if grad_VD is not None:
            # The weight's gradient is summed over rows already, so they must weigh the same;
            # training weighs every scored token of a step equally.
            if bool((weight_S != weight_S[0]).any()):
                raise ValueError("a trained head needs the same weight for every row")
            grad_VD = (grad_VD * weight_S[0]).to(ctx.weight_dtype)
        return grad_SD, grad_VD, None, None, None


def scored_loss(
    hidden_SD: torch.Tensor,
    weight_VD: torch.Tensor,
    target_S: torch.Tensor,
    row_S: torch.Tensor,
    rows: int,
) -> torch.Tensor:
    """Return the sum of -log p(target) in nats over each row's scored tokens: fp32 [rows].

    With a trained head, all rows must be given the same weight in the loss
    (a plain sum of the result, times any constant).
    """
    loss: torch.Tensor = _ScoredLoss.apply(hidden_SD, weight_VD, target_S, row_S, rows)  # type: ignore[no-untyped-call]
    return loss

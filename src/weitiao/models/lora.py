"""Linear layers with a frozen weight, computed lean while training; PEFT's own is the reference.

PEFT casts a layer's input to the adapter's fp32 and, under autocast, back again, for each of
seven layers; here the fp32 masters A and B are cast once instead, layers of the same input are
computed together, and the input is kept once, and only where an adapter needs it.
Shapes: T tokens, I inputs, O outputs, r rank, R ranks of all adapters of one input.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from weitiao.models.quantized import is_quantized, weight_of


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """A frozen linear layer ``base`` and the factors A [r, I] and B [O, r] that adapt it."""

    base: Any
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    scale: float = 1.0

    @classmethod
    def of(cls, layer: torch.nn.Module) -> "Projection | None":
        """Return ``layer`` as a projection; None where it is anything beyond plain LoRA.

        Layers with dropout, DoRA, a trained weight or several adapters keep their own forward.
        """
        if not hasattr(layer, "base_layer"):
            return cls(layer) if _is_frozen(layer) else None
        if not hasattr(layer, "lora_A"):
            return None
        lora: Any = layer
        if not _is_frozen(lora.get_base_layer()) or lora.merged:
            return None
        if lora.disable_adapters or not lora.active_adapters:
            return cls(lora.get_base_layer())
        if len(lora.active_adapters) > 1 or not _is_plain(lora, lora.active_adapters[0]):
            return None
        name = lora.active_adapters[0]
        return cls(
            lora.get_base_layer(),
            lora.lora_A[name].weight,
            lora.lora_B[name].weight,
            lora.scaling[name],
        )


def _is_frozen(layer: torch.nn.Module) -> bool:
    if type(layer) is not torch.nn.Linear and not is_quantized(layer):
        return False
    return not any(p.requires_grad for p in layer.parameters())


def _is_plain(layer: Any, adapter: str) -> bool:
    return (
        not layer.use_dora.get(adapter, False)
        and not layer.lora_bias.get(adapter, False)
        and isinstance(layer.lora_dropout[adapter], torch.nn.Identity)
    )


def project(x_TI: torch.Tensor, projections: Sequence[Projection]) -> tuple[torch.Tensor, ...]:
    """Return ``x Wᵀ + bias + scale · (x Aᵀ) Bᵀ`` [T, O] for each projection of ``x_TI``.

    Gradients reach x, A and B, never W.
    """
    factors = [f for p in projections for f in (p.a, p.b)]
    found: tuple[torch.Tensor, ...] = _Project.apply(  # type: ignore[no-untyped-call]
        x_TI, tuple(projections), *factors
    )
    return found


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_TI: torch.Tensor,
        projections: tuple[Projection, ...],
        *factors: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        dtype = x_TI.dtype
        adapted = [(a, b) for a, b in zip(factors[::2], factors[1::2], strict=True)]
        a_parts = [a.to(dtype) for a, _ in adapted if a is not None]
        a_RI = torch.cat(a_parts) if a_parts else None
        inner_TR = None if a_RI is None else x_TI @ a_RI.T
        found, b_parts, used = [], [], 0
        for projection, (_, b) in zip(projections, adapted, strict=True):
            weight, bias = weight_of(projection.base, dtype), projection.base.bias
            y_TO = x_TI @ weight.T if bias is None else torch.addmm(bias, x_TI, weight.T)
            if b is not None and inner_TR is not None:
                b_Or = (b * projection.scale).to(dtype)
                y_TO.addmm_(inner_TR[:, used : used + b.shape[1]], b_Or.T)
                b_parts.append(b_Or)
                used += b.shape[1]
            found.append(y_TO)
        # Without an adapter the gradient needs nothing of the input.
        kept = None if a_RI is None else x_TI
        ctx.save_for_backward(kept, inner_TR, a_RI, *b_parts)
        ctx.projections, ctx.dtype = projections, dtype
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_TI, inner_TR, a_RI, *b_parts = ctx.saved_tensors
        grad_x: torch.Tensor | None = None
        grad_inner: list[torch.Tensor] = []
        grad_factors: list[torch.Tensor | None] = []
        used, parts = 0, iter(b_parts)
        for projection, grad_TO in zip(ctx.projections, grads, strict=True):
            if ctx.needs_input_grad[0]:
                weight = weight_of(projection.base, ctx.dtype)
                grad_x = grad_TO @ weight if grad_x is None else grad_x.addmm_(grad_TO, weight)
            if projection.b is None:
                grad_factors += [None, None]
                continue
            b_Or = next(parts)
            inner = inner_TR[:, used : used + b_Or.shape[1]]
            used += b_Or.shape[1]
            grad_inner.append(grad_TO @ b_Or)
            grad_factors += [None, (grad_TO.T @ inner).float() * projection.scale]
        if grad_inner:
            grad_inner_TR = torch.cat(grad_inner, dim=1)
            if grad_x is not None:
                grad_x.addmm_(grad_inner_TR, a_RI)
            grads_a = (grad_inner_TR.T @ x_TI).float().split([g.shape[1] for g in grad_inner])
            places = [2 * i for i, p in enumerate(ctx.projections) if p.a is not None]
            for place, grad_a in zip(places, grads_a, strict=True):
                grad_factors[place] = grad_a
        return grad_x, None, *grad_factors

"""LoRA layers computed lean while training: the plain reference is PEFT's own forward.

PEFT casts a layer's input to the adapter's fp32 and, under autocast, back again, for each of
seven layers; here the fp32 masters A and B are cast once instead, and the input is kept once.
Shapes: T tokens, I inputs, O outputs, r rank.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear


class _LeanLora(torch.autograd.Function):
    """``x Wᵀ + bias + scale · (x Aᵀ) Bᵀ`` with gradients for x, A and B; W is frozen."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TI: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        a_rI: torch.Tensor,
        b_Or: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        a, b = a_rI.to(x_TI.dtype), (b_Or * scale).to(x_TI.dtype)
        inner_Tr = x_TI @ a.T
        y_TO = x_TI @ weight_OI.T if bias_O is None else torch.addmm(bias_O, x_TI, weight_OI.T)
        ctx.save_for_backward(x_TI, weight_OI, inner_Tr, a, b)
        ctx.scale = scale
        return y_TO.addmm_(inner_Tr, b.T)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_TI, weight_OI, inner_Tr, a, b = ctx.saved_tensors
        grad_TO = grads[0]
        grad_inner_Tr = grad_TO @ b
        grad_a = (grad_inner_Tr.T @ x_TI).float()
        grad_b = (grad_TO.T @ inner_Tr).float() * ctx.scale
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_TO @ weight_OI).addmm_(grad_inner_Tr, a)
        return grad_x, None, None, grad_a, grad_b, None


def _lean_forward(layer: LoraLinear, adapter: str, x: torch.Tensor) -> torch.Tensor:
    base: Any = layer.get_base_layer()
    flat_TI = x.to(base.weight.dtype).reshape(-1, x.shape[-1])
    y_TO: torch.Tensor = _LeanLora.apply(  # type: ignore[no-untyped-call]
        flat_TI,
        base.weight,
        base.bias,
        layer.lora_A[adapter].weight,
        layer.lora_B[adapter].weight,
        layer.scaling[adapter],
    )
    return y_TO.reshape(*x.shape[:-1], y_TO.shape[-1])


def _is_plain(layer: LoraLinear, adapter: str) -> bool:
    """Return whether the layer does nothing beyond plain LoRA on a frozen linear layer."""
    base = layer.get_base_layer()
    return (
        type(base) is torch.nn.Linear
        and not base.weight.requires_grad
        and not layer.merged
        and layer.active_adapters == [adapter]
        and not layer.use_dora.get(adapter, False)
        and not layer.lora_bias.get(adapter, False)
        and isinstance(layer.lora_dropout[adapter], torch.nn.Identity)
    )


@contextmanager
def lean_lora(model: torch.nn.Module, adapter: str = "default") -> Iterator[int]:
    """Compute plain LoRA layers lean inside the block; give their number.

    Layers with dropout, DoRA or a bias of their own keep PEFT's forward.
    """
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, LoraLinear) and _is_plain(layer, adapter)
    ]
    for layer in layers:
        layer.forward = partial(_lean_forward, layer, adapter)  # type: ignore[method-assign]
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward

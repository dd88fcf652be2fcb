"""The parts of a decoder layer as one operation each, with little kept for the backward pass.

Eager PyTorch makes four operations of a norm and keeps three tensors of it; each pass over the
activations costs a CPU more than its arithmetic. The reference is transformers' own modules,
which :func:`lean_layers` puts these in place of. Shapes: T tokens, D hidden width, I MLP width,
H query heads, K key/value heads, C head width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers.activations import SiLUActivation
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import (
    MistralAttention,
    MistralMLP,
    MistralRMSNorm,
)
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2MLP, Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3MLP, Qwen3RMSNorm

from weitiao.models import fused
from weitiao.models.lora import Projection, project
from weitiao.models.segments import Attending, attend

_NORMS = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)
_MLPS = (LlamaMLP, MistralMLP, Qwen2MLP, Qwen3MLP)
_ATTENTIONS = (LlamaAttention, MistralAttention, Qwen2Attention, Qwen3Attention)


@contextmanager
def lean_layers(model: torch.nn.Module) -> Iterator[int]:
    """Compute what is known of ``model`` lean inside the block; give the number of its parts.

    Norms, gated MLPs and attention of Qwen2, Qwen3, Llama and Mistral; in other models the
    frozen linear layers only. The block must hold the backward pass too: with checkpointing
    it computes the layers again.
    """
    changed: list[torch.nn.Module] = []
    for module in model.modules():
        forward = _lean_forward(module)
        if forward is not None:
            module.forward = forward
            changed.append(module)
    try:
        yield len(changed)
    finally:
        for module in changed:
            del module.forward


def _lean_forward(module: Any) -> Any:
    # An adapter or a quantised layer may stand in place of any of these; its class is another.
    kind = type(module)
    if kind in _NORMS:
        return partial(_norm, module)
    if kind in _MLPS and type(module.act_fn) in (SiLUActivation, torch.nn.SiLU):
        return partial(_mlp, module)
    if kind in _ATTENTIONS:
        return partial(_attention, module)
    if Projection.of(module) is not None and hasattr(module, "lora_A"):
        return partial(_one, module)
    return None


def _one(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    return _several(x, layer)[0]


def _several(x: torch.Tensor, *layers: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    """Return the outputs of linear layers of the same input [..., I]."""
    projections = [Projection.of(layer) for layer in layers]
    lean = [p for p in projections if p is not None]
    if len(lean) < len(projections):
        return tuple(layer(x) for layer in layers)
    flat_TI = x.to(_compute_type(x)).flatten(0, -2)
    return tuple(y.view(*x.shape[:-1], -1) for y in project(flat_TI, lean))


def _compute_type(x: torch.Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = _RmsNorm.apply(x, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return y


def _mlp(module: Any, x: torch.Tensor) -> torch.Tensor:
    gate, up = _several(x, module.gate_proj, module.up_proj)
    inner: torch.Tensor = _SwiGlu.apply(gate, up)  # type: ignore[no-untyped-call]
    return _several(inner, module.down_proj)[0]


def _attention(
    module: Any,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    *,
    attending: Attending,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Return what the module's own forward returns, for hidden states [1, T, D]."""
    attending.refuse_window(getattr(module, "sliding_window", None))
    q, k, v = (
        x[0].unflatten(-1, (-1, module.head_dim))
        for x in _several(hidden_states, module.q_proj, module.k_proj, module.v_proj)
    )
    if hasattr(module, "q_norm"):
        q, k = module.q_norm(q), module.k_norm(k)
    cos_1TC, sin_1TC = position_embeddings
    out_THC = attend(
        q,
        k,
        v,
        attending,
        module.scaling,
        layer=module.layer_idx,
        rotation=(cos_1TC[0, :, None], sin_1TC[0, :, None]),
        dropout=module.attention_dropout if module.training else 0.0,
    )
    return _several(out_THC.flatten(1)[None], module.o_proj)[0], None


class _RmsNorm(torch.autograd.Function):
    """``weight · x / sqrt(mean(x²) + eps)`` in fp32 (Zhang & Sennrich 2019, arXiv 1910.07467)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.fused = x.is_cuda and x.dtype == weight.dtype
        if ctx.fused:
            y, rate = torch.ops.aten._fused_rms_norm(x, weight.shape, weight, eps)
            ctx.save_for_backward(x, weight, rate)
            return y  # type: ignore[no-any-return]
        wide = x.float()
        rate = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, rate)
        return (
            (wide * rate).to(x.dtype).mul_(weight)
            if x.dtype == weight.dtype
            else (weight * (wide * rate).to(x.dtype))
        )

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, rate = ctx.saved_tensors
        if ctx.fused:
            wanted = ctx.needs_input_grad[:2]
            found = torch.ops.aten._fused_rms_norm_backward(
                grads[0], x, weight.shape, rate, weight, wanted
            )
            return *(g if wants else None for g, wants in zip(found, wanted, strict=True)), None
        grad = grads[0].float()
        unit = x.float() * rate
        grad_weight = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad * unit).flatten(0, -2).sum(0).to(weight.dtype)
        grad = grad * weight.float()
        inner = (grad * unit).mean(-1, keepdim=True)
        grad_x = grad.addcmul_(unit, inner, value=-1).mul_(rate).to(x.dtype)
        return grad_x, grad_weight, None


class _SwiGlu(torch.autograd.Function):
    """:data:`weitiao.models.fused.swiglu`; silu is computed again, not kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return fused.swiglu(gate, up)[0]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return fused.swiglu_backward(grads[0], *ctx.saved_tensors)

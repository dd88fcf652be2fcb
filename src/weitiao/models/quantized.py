"""A base model held in 4 or 8 bits by bitsandbytes (Dettmers et al. 2023, arXiv 2305.14314).

A layer's weight is stored in few bits and made whole for each product, in the forward and
again in the backward pass, on a CPU as on a GPU. Inputs are never quantised: bitsandbytes
would do that to the inputs of int8 layers outside training, so that the model measured would
not be the model trained. Shapes: T tokens, I inputs, O outputs.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from transformers.utils.quantization_config import BitsAndBytesConfig

from weitiao.errors import ModelError
from weitiao.plan.recipe import Quantization


def require_bitsandbytes() -> None:
    """Raise where the packages for a quantised base are missing; they are not loaded.

    Raises:
        ModelError: they are not installed.
    """
    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing:
        raise ModelError("error.quantized_missing", packages=", ".join(missing))


def quantization_config(kind: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """Return what transformers is told; None where nothing is quantised.

    ``dtype`` is that of the products, and of the head, embeddings and norms, which stay whole.
    """
    if kind == "none":
        return None
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def is_quantized(layer: torch.nn.Module) -> bool:
    """Return whether ``layer`` is a linear layer of bitsandbytes."""
    weight = getattr(layer, "weight", None)
    return type(weight).__name__ in ("Params4bit", "Int8Params")


def weight_of(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return the weight [O, I] of a linear layer in ``dtype``, made whole where it is quantised."""
    weight = layer.weight
    if not is_quantized(layer):
        return weight.to(dtype)  # type: ignore[no-any-return]
    if type(weight).__name__ == "Params4bit":
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state).to(dtype)
    # bitsandbytes moves the rows' scales from the weight to the layer when they are first used.
    scale_O = layer.state.SCB if weight.SCB is None else weight.SCB
    # In place the product is taken in fp32 and rounded once.
    return weight.data.to(dtype).mul_(scale_O[:, None] / 127)  # type: ignore[no-any-return]


def compute_exactly(model: torch.nn.Module) -> None:
    """Let each quantised layer of ``model`` compute one function, training or not.

    On a CPU with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first pass without
    gradients, after which their gradients are lost and the weights cannot be read any more.

    Raises:
        ModelError: bitsandbytes' CPU code would read 4-bit weights of this width wrong.
    """
    for name, layer in model.named_modules():
        if not is_quantized(layer):
            continue
        if type(layer.weight).__name__ == "Int8Params":
            layer.__class__ = _whole_inputs()
            continue
        layer.support_avx512bf16_for_cpu = False
        width = layer.in_features
        # It takes for granted that no block of weights goes on in the next row.
        if layer.weight.device.type == "cpu" and width % layer.weight.quant_state.blocksize:
            raise ModelError("error.nf4_width", layer=name, width=width)


@cache
def _whole_inputs() -> Any:
    """Return bitsandbytes' int8 layer with a forward pass that leaves its inputs whole."""
    from bitsandbytes.nn.modules import Linear8bitLt

    class Int8Linear(Linear8bitLt):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kind = x.device.type
            if torch.is_autocast_enabled(kind):
                x = x.to(torch.get_autocast_dtype(kind))
            y: torch.Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
            return y if self.bias is None else y + self.bias.to(y.dtype)

    return Int8Linear


class _Product(torch.autograd.Function):
    """``x Wᵀ`` whose backward pass makes the weight whole again rather than keep it."""

    @staticmethod
    def forward(ctx: Any, x_TI: torch.Tensor, layer: torch.nn.Module) -> torch.Tensor:
        ctx.layer = layer
        return x_TI @ weight_of(layer, x_TI.dtype).T

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0] @ weight_of(ctx.layer, grads[0].dtype), None

"""Elementwise steps of a decoder layer as one CUDA kernel each, compiled when first used.

PyTorch's jiterator compiles them with NVRTC, which comes with every CUDA build of PyTorch, on
Windows too; ``torch.compile`` would need Triton, a C compiler and Python's headers on the
user's machine. A kernel that does not compile there, or that computes something else than
the eager expression beside it, is not used. Shapes: T tokens, H heads, C head width.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.cuda import jiterator

_logger = logging.getLogger(__name__)

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """An elementwise function: ``eager``, and the same as CUDA ``code`` for one element.

    In the code T is fp32, whatever the tensors are. ``works`` says for which types of the
    inputs the kernel may be used on this machine.
    """

    eager: Callable[..., Tensors]
    code: str
    outputs: int
    works: dict[tuple[torch.dtype, ...], bool] = field(default_factory=dict)

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        """Return the function's outputs; inputs are broadcast as PyTorch does it."""
        # A fake tensor, by which memory is foretold, holds nothing that a kernel could read.
        if not inputs[0].is_cuda or type(inputs[0]) is not torch.Tensor:
            return self.eager(*inputs)
        kinds = tuple(x.dtype for x in inputs)
        if kinds not in self.works:
            if torch.cuda.is_current_stream_capturing():
                return self.eager(*inputs)
            self.works[kinds] = self._agrees(inputs)
        return self._compiled(*inputs) if self.works[kinds] else self.eager(*inputs)

    def _compiled(self, *inputs: torch.Tensor) -> Tensors:
        found: Any = _kernel(self.code, self.outputs)(*inputs)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)

    def _agrees(self, inputs: Tensors) -> bool:
        """Try the kernel once; whatever may be wrong with it, training goes on without."""
        expected = self.eager(*inputs)
        try:
            found = self._compiled(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as cause:
            _logger.info("no fused kernel: %s", cause)
            return False
        right = all(near(a, b) for a, b in zip(found, expected, strict=True))
        if not right:
            _logger.info("a fused kernel that computes something else: %s", self.code)
        return right


@cache
def _kernel(code: str, outputs: int) -> Callable[..., Any]:
    made: Callable[..., Any] = jiterator._create_multi_output_jit_fn(code, outputs)
    return made


def near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether two results differ by no more than a few roundings of their type."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return False
    far = (found.float() - expected.float()).norm()
    return bool(far <= 8 * torch.finfo(expected.dtype).eps * expected.float().norm())


def _swiglu(gate: torch.Tensor, up: torch.Tensor) -> Tensors:
    return (torch.nn.functional.silu(gate).mul_(up),)


def _swiglu_backward(grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> Tensors:
    grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
    return grad_gate, torch.nn.functional.silu(gate).mul_(grad)


def _turn(a: torch.Tensor, b: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> Tensors:
    return a * cos - b * sin, b * cos + a * sin


swiglu = Fused(
    _swiglu,
    """template <typename T> void swiglu(T gate, T up, T& y) {
        y = gate / (1 + expf(-gate)) * up;
    }""",
    outputs=1,
)
"""``silu(gate) · up`` (Shazeer 2020, arXiv 2002.05202)."""

swiglu_backward = Fused(
    _swiglu_backward,
    """template <typename T> void swiglu_backward(T grad, T gate, T up, T& grad_gate, T& grad_up) {
        T s = 1 / (1 + expf(-gate));
        grad_gate = grad * up * s * (1 + gate * (1 - s));
        grad_up = grad * gate * s;
    }""",
    outputs=2,
)
"""The gradients of :data:`swiglu` by gate and up."""

turned = Fused(
    _turn,
    """template <typename T> void turned(T a, T b, T cos, T sin, T& low, T& high) {
        low = a * cos - b * sin;
        high = b * cos + a * sin;
    }""",
    outputs=2,
)
"""Pairs (a, b) turned by an angle."""


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return ``x`` [T, H, C] turned by its positions; cosines and sines are [T, 1, C].

    Both halves of C hold the same angles (Su et al. 2021, arXiv 2104.09864).
    """
    half = x.shape[-1] // 2
    out: torch.Tensor = _Rotated.apply(x, cos[..., :half], sin[..., :half])  # type: ignore[no-untyped-call]
    return out


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        low, high = x.chunk(2, dim=-1)
        return torch.cat(turned(low, high, cos, sin), dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        low, high = grads[0].chunk(2, dim=-1)
        # The halves change places: turned back by the same angles.
        high, low = turned(high, low, *ctx.saved_tensors)
        return torch.cat((low, high), dim=-1).to(ctx.dtype), None, None

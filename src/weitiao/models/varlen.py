"""Attention of a whole micro-batch in one call on a CUDA GPU, and what that call is told.

Keys and values are gathered for each segment, so that the kernel sees each row's keys whole.
Shapes: T tokens, P virtual tokens before them, U gathered keys, H query heads, K key/value
heads, C head width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.deterministic
from torch.nn.attention.bias import CausalVariant

_LOWER_RIGHT = int(CausalVariant.LOWER_RIGHT)


def sent(arrays: Sequence[npt.NDArray[Any]], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return ``arrays`` [n] on ``device``: for a GPU in one copy, which nothing waits for."""
    if device.type != "cuda":
        return tuple(torch.from_numpy(x).to(device) for x in arrays)
    sizes = [-(-x.nbytes // 16) * 16 for x in arrays]
    # From memory that is not pinned, a copy waits for all that the GPU still has to do.
    pinned = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=True)
    for part, x in zip(pinned.split(sizes), arrays, strict=True):
        part.numpy()[: x.nbytes] = x.view(np.uint8)
    whole = pinned.to(device, non_blocking=True)
    return tuple(
        part[: x.nbytes].view(torch.from_numpy(x).dtype)
        for part, x in zip(whole.split(sizes), arrays, strict=True)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """What one call is told of the segments: ``arrays`` as :func:`gathering` makes them."""

    arrays: tuple[torch.Tensor, ...]
    longest_q: int
    longest_k: int
    alone: bool

    @classmethod
    def of(
        cls,
        lengths_q: Sequence[int],
        key_places: Sequence[npt.NDArray[np.integer]],
        keys: int,
        device: torch.device,
    ) -> "Gathered":
        """Return what a call needs for segments of ``lengths_q`` that see ``key_places``.

        ``keys``: how many there are before they are gathered, P + T.
        """
        lengths_k = [len(places) for places in key_places]
        arrays = gathering(lengths_q, key_places, keys)
        longest = max(lengths_q), max(lengths_k)
        return cls(sent(arrays, device), *longest, alone=sum(lengths_k) == keys)


def gathering(
    lengths_q: Sequence[int], key_places: Sequence[npt.NDArray[np.integer]], keys: int
) -> list[npt.NDArray[np.integer]]:
    """Return how keys are repeated for each segment that sees them.

    Where the queries of each segment begin and where its keys do; the places of the keys [U];
    the order [U] that sorts them by place, and how often each place occurs [P + T], so that
    gradients are summed in a fixed order: atomic additions would differ from run to run.
    """
    lengths_k = [len(places) for places in key_places]
    joined = np.concatenate(key_places)
    return [
        np.cumsum([0, *lengths_q], dtype=np.int32),
        np.cumsum([0, *lengths_k], dtype=np.int32),
        joined,
        np.argsort(joined, kind="stable"),
        np.bincount(joined, minlength=keys),
    ]


def attend_varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gathered: Gathered,
    scale: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Return [T, H, C] for query [T, H, C], key and value [P + T, K, C], in the value's type.

    Norms and rotations in fp32 may have widened queries and keys; the kernels take one type.
    """
    if not gathered.alone:
        key, value = (_Repeated.apply(x, gathered) for x in (key, value))  # type: ignore[no-untyped-call]
    query, key = query.to(value.dtype), key.to(value.dtype)
    if dropout == 0.0 and has_flash(value):
        out: torch.Tensor = _Flash.apply(query, key, value, gathered, scale)  # type: ignore[no-untyped-call]
        return out
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    spread: torch.Tensor = _Efficient.apply(query, key, value, gathered, scale, dropout)  # type: ignore[no-untyped-call]
    return spread


def has_flash(x: torch.Tensor) -> bool:
    """Return whether flash attention takes heads like ``x``: bf16 or fp16, from Ampere on."""
    return (
        x.dtype in (torch.bfloat16, torch.float16)
        and x.shape[-1] % 8 == 0
        and x.shape[-1] <= 256
        and torch.cuda.get_device_capability(x.device) >= (8, 0)
    )


@contextmanager
def _fixed_order() -> Iterator[None]:
    """Have the kernels inside add up in a fixed order, or the same run gives other bytes.

    Their backward passes add to a gradient from many blocks at once otherwise. The switch is
    PyTorch's for the whole process, which elsewhere would refuse what cannot go wrong here.
    """
    switches: Any = torch.utils.deterministic
    before = torch.get_deterministic_debug_mode(), switches.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("error")
    switches.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        switches.fill_uninitialized_memory = before[1]


class _Repeated(torch.autograd.Function):
    """Keys or values [U, K, C] from [P + T, K, C]; their gradients summed in fp32, in order."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gathered: Gathered) -> torch.Tensor:
        ctx.gathered = gathered
        return x.index_select(0, gathered.arrays[2])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        _, _, _, order_U, counts = ctx.gathered.arrays
        grad = grads[0].index_select(0, order_U).flatten(1).float()
        total = torch.segment_reduce(grad, "sum", lengths=counts, axis=0, unsafe=True)
        return total.view(len(total), *grads[0].shape[1:]).to(grads[0].dtype), None


class _Flash(torch.autograd.Function):
    """Flash attention 2 (Dao 2023, arXiv 2307.08691) on segments of their own lengths.

    What ``torch.nn.attention.varlen.varlen_attn`` calls, without its cost in Python.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        gathered: Gathered,
        scale: float,
    ) -> torch.Tensor:
        out, lse, state, unused, _ = torch.ops.aten._flash_attention_forward(
            query,
            key,
            value,
            *gathered.arrays[:2],
            gathered.longest_q,
            gathered.longest_k,
            0.0,
            True,
            False,
            scale=scale,
            # Causal says it already, but where each segment is one token the kernel forgets
            # it, and then lays its log-sum-exp out in another way.
            window_size_left=-1,
            window_size_right=0,
        )
        ctx.save_for_backward(query, key, value, out, lse, state, unused)
        ctx.gathered, ctx.scale = gathered, scale
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, lse, state, unused = ctx.saved_tensors
        gathered: Gathered = ctx.gathered
        with _fixed_order():
            found = torch.ops.aten._flash_attention_backward(
                grads[0],
                query,
                key,
                value,
                out,
                lse,
                *gathered.arrays[:2],
                gathered.longest_q,
                gathered.longest_k,
                0.0,
                True,
                state,
                unused,
                scale=ctx.scale,
                window_size_left=-1,
                window_size_right=0,
            )
        return *found, None, None


class _Efficient(torch.autograd.Function):
    """Memory-efficient attention (Rabe & Staats 2021, arXiv 2112.05682), as many heads each.

    For what flash attention does not take: fp32, cards before Ampere, odd widths, dropout.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        gathered: Gathered,
        scale: float,
        dropout: float,
    ) -> torch.Tensor:
        out, lse, seed, offset, longest_q, longest_k = torch.ops.aten._efficient_attention_forward(
            query[None],
            key[None],
            value[None],
            None,
            *gathered.arrays[:2],
            gathered.longest_q,
            gathered.longest_k,
            dropout,
            _LOWER_RIGHT,
            True,
            scale=scale,
        )
        ctx.save_for_backward(query, key, value, out, lse, seed, offset)
        ctx.gathered, ctx.scale, ctx.dropout = gathered, scale, dropout
        ctx.longest = longest_q, longest_k
        return out[0]  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, lse, seed, offset = ctx.saved_tensors
        with _fixed_order():
            *found, _ = torch.ops.aten._efficient_attention_backward(
                grads[0][None],
                query[None],
                key[None],
                value[None],
                None,
                out,
                *ctx.gathered.arrays[:2],
                *ctx.longest,
                lse,
                ctx.dropout,
                seed,
                offset,
                _LOWER_RIGHT,
                False,
                scale=ctx.scale,
            )
        return *(x[0] for x in found), None, None, None

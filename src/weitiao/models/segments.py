"""Attention of rows laid end to end, where several may share a beginning.

A token sees the tokens before it in its own segment and all of the segments above it.
Shapes: T tokens of a micro-batch, H query heads, K key/value heads, C head width, P virtual
tokens of prefix-tuning, before every row.

Three ways, held to each other by tests: fused calls for a CPU, one varlen call for a CUDA GPU
(:mod:`weitiao.models.varlen`), and one plain call a segment for every other case.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from weitiao.models import fused
from weitiao.models.varlen import Gathered, attend_varlen
from weitiao.records.prefixes import Segment

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


Prompt = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values [P, K, C] for each decoder layer, learnt by prefix-tuning."""

Rotation = tuple[torch.Tensor, torch.Tensor]
"""Cosines and sines [T, 1, C] of rotary positions; both halves of C hold the same angles."""


class Attending:
    """Which keys each query of a micro-batch sees; made once, used in every layer."""

    def __init__(
        self,
        segments: Sequence[Segment],
        prompt: Prompt | None = None,
        gathered: Gathered | None = None,
    ) -> None:
        """Take the ``segments`` of a layout and, of prefix-tuning, (keys, values) by layer.

        ``gathered``: what a varlen call is told, where it is not for this to make.
        """
        self.segments = tuple(segments)
        self.prompt = prompt
        self.virtual = 0 if prompt is None else prompt[0][0].shape[0]
        """Keys that stand before those of the tokens, seen by every row."""
        self.tokens = self.segments[-1].stop
        self._gathered = gathered
        self._turns: dict[int, tuple[torch.Tensor | None, Rotation]] = {}

    def turns(self, rotation: Rotation, heads: int) -> Rotation:
        """Return half of the cosines and sines, whole in fp32: [T, heads, C / 2]; made once.

        Multiplying by what is spread over the heads already takes a CPU half the time.
        """
        found = self._turns.get(heads)
        # Layers may differ in their rotations; those that are views of one tensor are the same.
        whole = rotation[0]._base
        if found is None or whole is None or found[0] is not whole:
            cos, sin = (
                x[..., : x.shape[-1] // 2].float().expand(-1, heads, -1).contiguous()
                for x in rotation
            )
            found = self._turns[heads] = (whole, (cos, sin))
        return found[1]

    def refuse_window(self, window: int | None) -> None:
        """Raise where a row is longer than the ``window`` that a layer looks back."""
        if window is not None and self.longest > window:
            raise ValueError("rows longer than the sliding window are kept out by data.max_tokens")

    @cached_property
    def spans(self) -> list[tuple[int, int, int, int, bool]]:
        """(queries from, to, keys from, to, causal): each segment within itself comes first."""
        p = self.virtual
        own = [(s.start, s.stop, p + s.start, p + s.stop, True) for s in self.segments]
        below = [
            (s.stop, s.last, p + s.start, p + s.stop, False)
            for s in self.segments
            if s.last > s.stop
        ]
        before = [(0, self.tokens, 0, p, False)] if p else []
        return own + below + before

    @cached_property
    def key_places(self) -> list[np.ndarray[Any, Any]]:
        """For each segment the places of the keys that it sees, its own last."""
        p = self.virtual
        ranges = [np.arange(p + s.start, p + s.stop) for s in self.segments]
        return [
            np.concatenate([np.arange(p), *(ranges[i] for i in s.above), ranges[number]])
            for number, s in enumerate(self.segments)
        ]

    @cached_property
    def longest(self) -> int:
        """The most keys that a token sees, its own among them."""
        return max(map(len, self.key_places))

    def gathered(self, device: torch.device) -> Gathered:
        """Return what one varlen call needs, on ``device``; made once."""
        if self._gathered is None:
            lengths = [s.stop - s.start for s in self.segments]
            keys = self.virtual + self.tokens
            self._gathered = Gathered.of(lengths, self.key_places, keys, device)
        return self._gathered


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attending: Attending,
    scale: float,
    *,
    layer: int | None = 0,
    rotation: Rotation | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Return [T, H, C] for query [T, H, C], key and value [T, K, C] of decoder layer ``layer``.

    Queries and keys are first turned by ``rotation`` where it is given. Virtual keys and
    values [P, K, C] are put before the others as they are.
    """
    in_one_call = takes_varlen(query)
    on_cpu = query.device.type == "cpu" and dropout == 0.0 and not in_one_call
    if on_cpu and attending.prompt is None:
        return _on_cpu(query, key, value, attending, scale, rotation)
    if rotation is not None:
        turn = fused.rotated if in_one_call else rotated
        query, key = turn(query, *rotation), turn(key, *rotation)
    if attending.prompt is not None:
        before = attending.prompt[layer or 0]
        key = torch.cat([before[0].to(key.dtype), key])
        value = torch.cat([before[1].to(value.dtype), value])
    if on_cpu:
        return _on_cpu(query, key, value, attending, scale, None)
    if in_one_call:
        gathered = attending.gathered(query.device)
        return attend_varlen(query, key, value, gathered, scale, dropout)
    return plain(query, key, value, attending, scale, dropout)


def _on_cpu(*inputs: Any) -> torch.Tensor:
    out: torch.Tensor = _OnCpu.apply(*inputs)  # type: ignore[no-untyped-call]
    return out


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return ``x`` [T, H, C] turned by its positions (Su et al. 2021, arXiv 2104.09864)."""
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def takes_varlen(query: torch.Tensor) -> bool:
    """Return whether one call computes all segments: on NVIDIA's GPUs, whatever the type.

    AMD's kernels do not align every mask to the lower right.
    """
    return query.is_cuda and torch.version.hip is None


def plain(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attending: Attending,
    scale: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Compute :func:`attend`, keys and values whole, with one call of PyTorch's a segment."""
    done = []
    for segment, places in zip(attending.segments, attending.key_places, strict=True):
        seen = torch.from_numpy(places).to(query.device)
        own = segment.stop - segment.start
        # The own tokens are the last keys, so the lower right corner is causal.
        mask = torch.ones(own, len(places), dtype=torch.bool, device=query.device)
        q, k, v = (
            x.transpose(0, 1)[None]
            for x in (
                query[segment.start : segment.stop],
                key.index_select(0, seen),
                value.index_select(0, seen),
            )
        )
        part = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask.tril(len(places) - own),
            dropout_p=dropout,
            scale=scale,
            enable_gqa=True,
        )
        done.append(part[0].transpose(0, 1))
    return torch.cat(done)


class _OnCpu(torch.autograd.Function):
    """Flash attention on slices, a shared segment in one call for all that continue it.

    Parts of a softmax are merged by their log-sum-exp L: ``out = Σ exp(L_i - L) out_i``. Each
    part's backward pass is given the merged output and L, and so yields its share exactly
    (Dao 2023, arXiv 2307.08691, section 3.1). fp32 inside: on a CPU PyTorch's bf16 attention
    takes twice the time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attending: Attending,
        scale: float,
        rotation: Rotation | None,
    ) -> torch.Tensor:
        turned = _turned(query, attending, rotation), _turned(key, attending, rotation)
        q, k, v = *turned, _heads_first(value)
        out = torch.empty_like(query, dtype=torch.float32)
        o = _heads_first(out)
        lse_TH = torch.empty(query.shape[:2])
        lse = lse_TH.T[None]
        for a, b, c, d, causal in attending.spans:
            part, part_lse = _flash(
                q[:, :, a:b], k[:, :, c:d], v[:, :, c:d], 0.0, causal, scale=scale
            )
            if causal:
                o[:, :, a:b] = part
                lse[:, :, a:b] = part_lse
            else:
                merged = torch.logaddexp(lse[:, :, a:b], part_lse)
                lse[:, :, a:b] = merged
                o[:, :, a:b].lerp_(part, (part_lse - merged).exp_()[..., None])
        given = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, given, lse_TH)
        ctx.attending, ctx.scale, ctx.rotation = attending, scale, rotation
        return given

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, lse_TH = ctx.saved_tensors
        q, k = (_turned(x, ctx.attending, ctx.rotation) for x in (query, key))
        v, o, grad = _heads_first(value), _heads_first(out), _heads_first(grads[0])
        lse = lse_TH.T[None]
        # Each token's own segment comes first and fills its place; virtual keys have none.
        made = torch.zeros_like if ctx.attending.virtual else torch.empty_like
        totals = [made(x, dtype=torch.float32) for x in (query, key, value)]
        dq, dk, dv = (_heads_first(total) for total in totals)
        for a, b, c, d, causal in ctx.attending.spans:
            asked, seen = slice(a, b), slice(c, d)
            places = asked, seen, seen
            found = _flash_backward(
                grad[:, :, asked],
                q[:, :, asked],
                k[:, :, seen],
                v[:, :, seen],
                o[:, :, asked],
                lse[:, :, asked],
                0.0,
                causal,
                scale=ctx.scale,
            )
            for total, part, place in zip((dq, dk, dv), found, places, strict=True):
                if causal:
                    total[:, :, place] = part
                else:
                    total[:, :, place] += part
        grad_q, grad_k, grad_v = totals
        if ctx.rotation is not None:
            grad_q, grad_k = (
                _turn(x, ctx.attending.turns(ctx.rotation, x.shape[1]), back=True)
                for x in (grad_q, grad_k)
            )
        dtypes = query.dtype, key.dtype, value.dtype
        given = [x.to(t) for x, t in zip((grad_q, grad_k, grad_v), dtypes, strict=True)]
        return *given, None, None, None


def _heads_first(x_THC: torch.Tensor) -> torch.Tensor:
    """Return [1, H, T, C] in fp32; a view where it can be one."""
    return x_THC.float().transpose(0, 1)[None]


def _turned(x_THC: torch.Tensor, attending: Attending, rotation: Rotation | None) -> torch.Tensor:
    if rotation is not None:
        x_THC = _turn(x_THC, attending.turns(rotation, x_THC.shape[1]))
    return _heads_first(x_THC)


def _turn(x_THC: torch.Tensor, halves: Rotation, back: bool = False) -> torch.Tensor:
    """Return :func:`rotated` in fp32, or what it was before, in few passes."""
    (cos, sin), x_THC = halves, x_THC.float()
    out = torch.empty_like(x_THC)
    half, sign = x_THC.shape[-1] // 2, -1 if back else 1
    low, high = x_THC[..., :half], x_THC[..., half:]
    torch.mul(low, cos, out=out[..., :half]).addcmul_(high, sin, value=-sign)
    torch.mul(high, cos, out=out[..., half:]).addcmul_(low, sin, value=sign)
    return out

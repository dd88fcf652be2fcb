"""Rows laid end to end: the forward pass in which no linear layer sees padding.

A beginning that rows share is computed once (see :mod:`weitiao.records.prefixes`).
Shapes: T tokens of a micro-batch, S scored tokens, D hidden width, H query heads, K key/value
heads, C head width. The plain reference is :mod:`weitiao.models.reference`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch.nn.functional import pad
from transformers import AttentionInterface, PreTrainedModel

from weitiao.models.adapters import transformers_model, virtual_tokens
from weitiao.models.head import scored_loss
from weitiao.models.layers import lean_layers
from weitiao.models.segments import Attending, Prompt, attend
from weitiao.models.varlen import sent
from weitiao.records.packing import pack
from weitiao.records.prefixes import Segment, lay_out
from weitiao.records.render import Sample

FLAT_ATTENTION = "weitiao_flat"

SIZES_OF = 32
"""On a CPU below fp32 the tokens are filled up to a multiple of it: oneDNN makes each product anew
for a size that it does not remember, which takes a millisecond, a tenth of a small model's step."""


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """A micro-batch of whole rows, end to end, what they begin with in common only once.

    ``source_S`` holds the place in the flat order of the token that predicts each scored
    token, ``target_S`` the token's id and ``row_S`` the row it belongs to, counted from 0.
    ``tokens``: those of the rows, which are more than the T that are computed.
    """

    ids_T: torch.Tensor
    positions_T: torch.Tensor
    segments: tuple[Segment, ...]
    source_S: torch.Tensor
    target_S: torch.Tensor
    row_S: torch.Tensor
    rows: int
    tokens: int

    @property
    def executed(self) -> int:
        """The tokens that are computed, T."""
        return len(self.ids_T)

    def filled(self, multiple: int) -> "Flat":
        """Return the same rows, with tokens behind them that nothing sees and nothing scores."""
        end, more = self.executed, -self.executed % multiple
        if not more:
            return self
        return replace(
            self,
            ids_T=pad(self.ids_T, (0, more)),
            positions_T=pad(self.positions_T, (0, more)),
            segments=(*self.segments, Segment(end, end + more, end + more)),
        )

    def to(self, device: torch.device) -> "Flat":
        """Return the same micro-batch on ``device``; the copy waits for nothing."""
        if self.ids_T.device == device:
            return self
        parts = (self.ids_T, self.positions_T, self.source_S, self.target_S, self.row_S)
        ids, positions, source, target, row = sent([x.numpy() for x in parts], device)
        rows, tokens = self.rows, self.tokens
        return Flat(ids, positions, self.segments, source, target, row, rows, tokens)


def flatten(samples: Sequence[Sample], *, share: bool = True) -> Flat:
    """Lay ``samples`` end to end; with ``share``, a beginning of several stands once."""
    layout = lay_out([s.ids for s in samples], share=share)
    scored = [np.flatnonzero(s.scored) for s in samples]
    # A row's first token is never scored, and the token before may be a shared one.
    source = [place[where - 1] for place, where in zip(layout.places, scored, strict=True)]
    target = [s.ids[where] for s, where in zip(samples, scored, strict=True)]

    def joined(parts: Sequence[Any]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64))

    return Flat(
        ids_T=joined([layout.ids]),
        positions_T=joined([layout.positions]),
        segments=tuple(layout.segments),
        source_S=joined(source),
        target_S=joined(target),
        row_S=joined([np.repeat(np.arange(len(samples)), [len(where) for where in scored])]),
        rows=len(samples),
        tokens=sum(len(s.ids) for s in samples),
    )


def _flat_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    attending: Attending,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers asks for it: query [1, H, T, C], key and value [1, K, T, C]."""
    attending.refuse_window(sliding_window)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: Any = getattr(module, "layer_idx", None)
    return attend(q, k, v, attending, scale, layer=layer, dropout=dropout)[None], None


# No mask function is registered under this name, so transformers builds no T × T mask.
AttentionInterface.register(FLAT_ATTENTION, _flat_attention)


@contextmanager
def flat_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use flat attention inside the block, and the model's own (for generation) outside it."""
    before = model.config._attn_implementation
    model.config._attn_implementation = FLAT_ATTENTION
    try:
        yield
    finally:
        model.config._attn_implementation = before


@contextmanager
def fast_path(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Compute the forward and backward passes inside the block the fast way."""
    inner = transformers_model(model)
    with flat_attention(inner), lean_layers(inner):
        yield


Replay = Callable[[Flat], torch.Tensor | None]
"""Returns :func:`hidden_states` faster, more rows perhaps behind the T; None where it cannot."""


def row_losses(
    model: PreTrainedModel | PeftModel,
    flat: Flat,
    precision: torch.dtype,
    *,
    label_smoothing: float = 0.0,
    neftune_alpha: float = 0.0,
    replay: Replay | None = None,
) -> torch.Tensor:
    """Return the sum of -log p (nats) over each row's scored tokens: fp32 [rows].

    The head is computed on scored rows only; with gradients on, the result is
    differentiable, the head's gradient having been made in the forward pass. With gradient
    checkpointing the backward pass too must run inside :func:`flat_attention`.
    """
    inner = transformers_model(model)
    flat = flat.to(inner.device)
    if inner.device.type == "cpu" and precision != torch.float32 and not neftune_alpha:
        flat = flat.filled(SIZES_OF)
    hidden_TD = None if replay is None else replay(flat)
    if hidden_TD is None:
        attending = Attending(flat.segments, virtual_prompt(model))
        hidden_TD = hidden_states(inner, flat, attending, precision, neftune_alpha)
    return scored_loss(
        hidden_TD.to(precision),
        inner.get_output_embeddings().weight,
        flat.source_S,
        flat.target_S,
        flat.row_S,
        flat.rows,
        label_smoothing,
    )


def hidden_states(
    model: PreTrainedModel,
    flat: Flat,
    attending: Attending,
    precision: torch.dtype,
    neftune_alpha: float = 0.0,
) -> torch.Tensor:
    """Return what the head is given: [T, D], after the last norm."""
    with flat_attention(model), autocast(flat.ids_T.device, precision):
        embedded_TD = model.get_input_embeddings()(flat.ids_T)
        if neftune_alpha:
            embedded_TD = embedded_TD + _noise(flat, embedded_TD, neftune_alpha)
        found = model.get_decoder()(
            inputs_embeds=embedded_TD[None],
            position_ids=flat.positions_T[None] + attending.virtual,
            use_cache=False,
            attending=attending,
        )
    hidden_1TD: torch.Tensor = found.last_hidden_state
    return hidden_1TD[0]


def virtual_prompt(model: PreTrainedModel | PeftModel) -> Prompt | None:
    """Return the keys and values that prefix-tuning puts before every row, by layer."""
    cache: Any = virtual_tokens(model, 1)
    return cache and [
        (layer.keys[0].transpose(0, 1), layer.values[0].transpose(0, 1)) for layer in cache.layers
    ]


def _noise(flat: Flat, embedded_TD: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return NEFTune's noise: uniform in ±alpha / sqrt(L D) for a row of L tokens."""
    if len(flat.segments) != flat.rows:
        raise ValueError("rows that share a beginning cannot each have noise of their own")
    lengths = torch.tensor([s.stop - s.start for s in flat.segments])
    scale_T = alpha / (lengths * embedded_TD.shape[1]).sqrt().repeat_interleave(lengths)
    noise = torch.empty_like(embedded_TD).uniform_(-1, 1)
    (scale_T,) = sent([scale_T.numpy()], noise.device)
    return noise * scale_T[:, None].to(noise.dtype)


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return the autocast block for ``precision``; it changes nothing for fp32."""
    return torch.autocast(
        device.type,
        dtype=precision,
        enabled=precision != torch.float32,
        # Each weight is used once; a cast that a CUDA graph repeats must be made in the graph.
        cache_enabled=False,
    )


@torch.no_grad()
def answer_losses(
    model: PreTrainedModel | PeftModel,
    samples: Sequence[Sample],
    budget: int = 4096,
    precision: torch.dtype = torch.float32,
) -> list[tuple[float, int]]:
    """Return (sum of -log p in nats, number of scored tokens) of each sample, in their order."""
    found: list[tuple[float, int]] = [(0.0, 0)] * len(samples)
    groups = pack([len(s.ids) for s in samples], budget)
    # A GPU is waited for once, at the end.
    losses = [row_losses(model, flatten([samples[i] for i in g]), precision) for g in groups]
    for group, of_rows in zip(groups, losses, strict=True):
        for i, loss in zip(group, of_rows.tolist(), strict=True):
            found[i] = (loss, int(samples[i].scored.sum()))
    return found

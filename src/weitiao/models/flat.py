"""Rows laid end to end: the forward pass in which no linear layer sees padding.

Shapes: T tokens of a micro-batch, S scored tokens, D hidden width, V vocabulary,
H query heads, K key/value heads, C head width, L tokens of one row.
The plain reference that this is tested against is :mod:`weitiao.models.reference`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from weitiao.models.head import scored_loss
from weitiao.records.packing import pack
from weitiao.records.render import Sample

FLAT_ATTENTION = "weitiao_flat"


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """A micro-batch of whole rows, end to end.

    ``source_S`` holds the place in the flat order of the token that predicts each scored
    token, ``target_S`` the token's id and ``row_S`` the row it belongs to, counted from 0.
    """

    ids_T: torch.Tensor
    positions_T: torch.Tensor
    lengths: tuple[int, ...]
    source_S: torch.Tensor
    target_S: torch.Tensor
    row_S: torch.Tensor

    def to(self, device: torch.device) -> "Flat":
        """Return the same micro-batch on ``device``."""
        return Flat(
            self.ids_T.to(device),
            self.positions_T.to(device),
            self.lengths,
            self.source_S.to(device),
            self.target_S.to(device),
            self.row_S.to(device),
        )


def flatten(samples: Sequence[Sample]) -> Flat:
    """Lay ``samples`` end to end; positions begin at 0 in each row."""
    ids_T = np.concatenate([s.ids for s in samples]).astype(np.int64)
    scored_T = np.concatenate([s.scored for s in samples])
    lengths = tuple(len(s.ids) for s in samples)
    place_S = np.flatnonzero(scored_T)
    row_T = np.repeat(np.arange(len(samples)), lengths)
    return Flat(
        ids_T=torch.from_numpy(ids_T),
        positions_T=torch.from_numpy(np.concatenate([np.arange(n) for n in lengths])),
        lengths=lengths,
        # A row's first token is never scored, so the token before is of the same row.
        source_S=torch.from_numpy(place_S - 1),
        target_S=torch.from_numpy(ids_T[place_S]),
        row_S=torch.from_numpy(row_T[place_S]),
    )


def _row_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    lengths: tuple[int, ...],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row: query [1, H, T, C], key and value [1, K, T, C].

    One call a row: on a CPU that is faster than one padded batch, and nothing is padded.
    """
    if sliding_window is not None and max(lengths) > sliding_window:
        raise ValueError("rows longer than the sliding window are kept out by data.max_tokens")
    given = query.dtype
    if query.device.type == "cpu":
        # PyTorch's bf16 attention on a CPU takes twice the time of its fp32 (measured).
        query, key, value = query.float(), key.float(), value.float()
    rows = zip(
        query.split(lengths, dim=2),
        key.split(lengths, dim=2),
        value.split(lengths, dim=2),
        strict=True,
    )
    with torch.autocast(query.device.type, enabled=False):
        out = [
            scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=True
            )
            for q, k, v in rows
        ]
    return torch.cat(out, dim=2).transpose(1, 2).to(given), None


# No mask function is registered under this name, so transformers builds no T × T mask.
AttentionInterface.register(FLAT_ATTENTION, _row_attention)


@contextmanager
def flat_attention(model: PreTrainedModel) -> Iterator[None]:
    """Use row attention inside the block, and the model's own (for generation) outside it."""
    before = model.config._attn_implementation
    model.config._attn_implementation = FLAT_ATTENTION
    try:
        yield
    finally:
        model.config._attn_implementation = before


def row_losses(model: PreTrainedModel, flat: Flat, precision: torch.dtype) -> torch.Tensor:
    """Return the sum of -log p (nats) over each row's scored tokens: fp32 [rows].

    The head is computed on scored rows only; with gradients on, the result is
    differentiable, the head's gradient having been made in the forward pass. With gradient
    checkpointing the backward pass too must run inside :func:`flat_attention`.
    """
    device = model.device
    flat = flat.to(device)
    with flat_attention(model), autocast(device, precision):
        hidden_1TD = model.get_decoder()(
            input_ids=flat.ids_T[None],
            position_ids=flat.positions_T[None],
            use_cache=False,
            lengths=flat.lengths,
        ).last_hidden_state
    hidden_SD = hidden_1TD[0].index_select(0, flat.source_S)
    return scored_loss(
        hidden_SD.to(precision),
        model.get_output_embeddings().weight,
        flat.target_S,
        flat.row_S,
        len(flat.lengths),
    )


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return the autocast block for ``precision``; it changes nothing for fp32."""
    return torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32)


@torch.no_grad()
def answer_losses(
    model: PreTrainedModel,
    samples: Sequence[Sample],
    budget: int = 4096,
    precision: torch.dtype = torch.float32,
) -> list[tuple[float, int]]:
    """Return (sum of -log p in nats, number of scored tokens) of each sample, in their order."""
    found: list[tuple[float, int]] = [(0.0, 0)] * len(samples)
    for group in pack([len(s.ids) for s in samples], budget):
        losses = row_losses(model, flatten([samples[i] for i in group]), precision).tolist()
        for i, loss in zip(group, losses, strict=True):
            found[i] = (loss, int(samples[i].scored.sum()))
    return found

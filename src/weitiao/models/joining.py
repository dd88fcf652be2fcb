"""Rows that join and leave between tokens: the requests of a server.

The keys and values of all running rows stand in one block with a slot for each, which grows by
doubling. In one pass every running row gets its next token, and prompts that have just come are
read a piece beside them, so that nobody waits for a long one. Rows are known by a number of the
caller's. Shapes: L layers, R slots, S columns, H query heads, K key/value heads, G query heads
to each of these, C head width, T tokens of a pass, N of them in one piece of a prompt, M
running rows, P virtual tokens of prefix-tuning, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from peft import PeftModel
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from weitiao.models.adapters import transformers_model
from weitiao.models.beginnings import SHARED_AT_LEAST, Beginnings
from weitiao.models.decoding import Decoder, decoder, hidden_states, logits
from weitiao.models.flat import virtual_prompt
from weitiao.plan.shape import KNOWN_ARCHITECTURES
from weitiao.records.prefixes import common_length

PIECE = 256
"""Tokens of prompts that are read in one pass while rows run; four times so many when none do."""

COLUMNS = 64
"""The block has a multiple of so many columns."""


class Rows(Protocol):
    """The rows of one model that are being answered."""

    def join(self, key: int, ids: Sequence[int], most: int) -> None:
        """Take in a row that goes on after ``ids`` until it has ``most`` tokens at most."""

    def step(self, chosen: Mapping[int, int]) -> tuple[list[int], torch.Tensor]:
        """Go on by a token; return the rows that have one to choose and their logits [M, V].

        ``chosen`` has the token of each row that was returned before and has not left.
        """

    def leave(self, key: int, keep: bool = True) -> None:
        """Take a row out; ``keep`` what was computed for others that begin like it."""

    def tokens(self, most: int = 0) -> int:
        """Return for how many tokens there must be room, with a row of ``most`` more."""


def joining_rows(model: PreTrainedModel | PeftModel, context: int, kept_tokens: int) -> Rows:
    """Return what answers rows of up to ``context`` tokens with ``model``.

    ``kept_tokens``: how many tokens' keys and values are kept of rows that were answered.
    """
    network = transformers_model(model)
    window = getattr(network.config, "sliding_window", None)
    if type(network).__name__ in KNOWN_ARCHITECTURES and (window is None or window >= context):
        return Joined(model, kept_tokens)
    return Apart(model)


class Apart:
    """Rows of an architecture that the engine does not know: each in a cache of its own."""

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        self._model = model
        self._prompts: dict[int, tuple[Sequence[int], int]] = {}
        self._rows: dict[int, Decoder] = {}

    def join(self, key: int, ids: Sequence[int], most: int) -> None:
        """See :class:`Rows`."""
        self._prompts[key] = tuple(ids), most

    def step(self, chosen: Mapping[int, int]) -> tuple[list[int], torch.Tensor]:
        """See :class:`Rows`."""
        found = []
        for key, (ids, most) in self._prompts.items():
            if row := self._rows.get(key):
                found.append(row.step(torch.tensor([chosen[key]], device=self._model.device)))
            else:
                row = self._rows[key] = decoder(self._model, [ids], most - len(ids), 0)
                found.append(row.begin())
        return list(self._prompts), torch.cat(found)

    def leave(self, key: int, keep: bool = True) -> None:
        """See :class:`Rows`; nothing is kept."""
        del self._prompts[key]
        self._rows.pop(key, None)

    def tokens(self, most: int = 0) -> int:
        """See :class:`Rows`."""
        return most + sum(most for _, most in self._prompts.values())


@dataclass(slots=True, eq=False)
class _Row:
    """``filled`` columns of its keys are known, virtual tokens among them."""

    key: int
    ids: list[int]
    most: int
    filled: int = 0
    prompt: torch.Tensor | None = None
    """Keys and values [L, 2, S, K, C] while the prompt is read; then they stand in the block."""


class Joined:
    """Rows in one block of keys and values [L, 2, R, S, K, C]; running row i in slot i."""

    def __init__(
        self, model: PreTrainedModel | PeftModel, kept_tokens: int = 0, piece: int = PIECE
    ) -> None:
        self._model, self._network = model, transformers_model(model)
        self._piece, self._kept = piece, Beginnings(kept_tokens)
        self._virtual: torch.Tensor | None = None
        self._running: list[_Row] = []
        self._reading: list[_Row] = []
        config = self._network.config
        heads = config.num_key_value_heads
        width = getattr(config, "head_dim", None)
        width = width or config.hidden_size // config.num_attention_heads
        self._layers, self._key_shape = config.num_hidden_layers, (heads, width)
        self._block = self._empty(0, 0)

    def join(self, key: int, ids: Sequence[int], most: int) -> None:
        """See :class:`Rows`."""
        self._reading.append(_Row(key, list(ids), most))

    def leave(self, key: int, keep: bool = True) -> None:
        """See :class:`Rows`."""
        self._reading = [row for row in self._reading if row.key != key]
        slot = next((i for i, row in enumerate(self._running) if row.key == key), None)
        if slot is None:
            return
        row, last = self._running[slot], self._running.pop()
        if keep and self._kept.most:
            known = row.ids[: row.filled - self._before]
            self._kept.put(known, self._block[:, :, slot, : row.filled].clone())
        # What stays in a slot is multiplied by zero, and must be numbers.
        free = len(self._running)
        self._block[:, :, slot].zero_()
        if last is not row:
            self._running[slot] = last
            self._block[:, :, slot, : last.filled] = self._block[:, :, free, : last.filled]
            self._block[:, :, free].zero_()
        if not self._running:
            self._block = self._empty(0, 0)

    def tokens(self, most: int = 0) -> int:
        """See :class:`Rows`; a block has twice the slots when it has too few."""
        needs = [row.most for row in (*self._running, *self._reading)] + [most] * bool(most)
        return _doubled(len(needs)) * (self._before + max(needs, default=0))

    def step(self, chosen: Mapping[int, int]) -> tuple[list[int], torch.Tensor]:
        """See :class:`Rows`. A step that failed for want of memory may be tried again."""
        if self._virtual is None:
            self._virtual = self._virtual_tokens()
        running, pieces = list(self._running), self._pieces()
        read = [row for row, count in pieces if row.filled + count == self._before + len(row.ids)]
        self._make_room(read)
        next_ids = [chosen[row.key] for row in running]
        logits_MV = self._pass(running, next_ids, pieces, read)
        for row, token in zip(running, next_ids, strict=True):
            row.ids.append(token)
            row.filled += 1
        for row, count in pieces:
            row.filled += count
        for row, logits_V in zip(read, logits_MV[len(running) :], strict=True):
            self._begin(row, sound=bool(logits_V.isfinite().all()))
        return [row.key for row in self._running], logits_MV

    @property
    def _before(self) -> int:
        return 0 if self._virtual is None else self._virtual.shape[2]

    def _empty(self, slots: int, columns: int) -> torch.Tensor:
        # Columns that nothing filled yet are multiplied by zero, and must be numbers.
        shape = self._layers, 2, slots, columns, *self._key_shape
        return torch.zeros(shape, dtype=self._network.dtype, device=self._network.device)

    def _virtual_tokens(self) -> torch.Tensor:
        """Return the keys and values of prefix-tuning [L, 2, P, K, C]; P may be 0."""
        prompt = virtual_prompt(self._model)
        if prompt is None:
            return self._empty(1, 0)[:, :, 0]
        return torch.stack([torch.stack(layer) for layer in prompt]).to(self._block.dtype)

    def _pieces(self) -> list[tuple[_Row, int]]:
        """Return whose prompts are read in this pass, and by how many tokens; first come first."""
        room = self._piece * (1 if self._running else 4)
        found: list[tuple[_Row, int]] = []
        for row in self._reading:
            if room == 0:
                break
            if row.prompt is None and not self._opened(row):
                continue
            count = min(room, self._before + len(row.ids) - row.filled)
            found.append((row, count))
            room -= count
        return found

    def _opened(self, row: _Row) -> bool:
        """Put in what is known of the row's beginning; False where it is worth waiting for more.

        The last token is never known: the logits after it are wanted.
        """
        beginning = np.array(row.ids[:-1])
        known, source = self._kept.longest(beginning)
        if self._kept.most:
            for other in (r for r in self._reading if r.prompt is not None):
                common = common_length(np.array(other.ids), beginning)
                if common >= known + SHARED_AT_LEAST:
                    if other.filled < self._before + common:
                        return False
                    known, source = common, other.prompt
        filled = self._before + known
        prompt = self._empty(1, self._before + len(row.ids))[:, :, 0]
        known_keys = self._virtual if source is None else source
        assert known_keys is not None
        prompt[:, :, :filled] = known_keys[:, :, :filled]
        row.prompt, row.filled = prompt, filled
        return True

    def _make_room(self, read: Sequence[_Row]) -> None:
        """Make the block large enough for a token more and for the prompts that are ``read``."""
        rows = [*self._running, *read]
        slots, columns = self._block.shape[2:4]
        filled = max((row.filled for row in self._running), default=0)
        needed = 1 + max(filled, *(self._before + len(r.ids) for r in read), 0)
        if not rows or (len(rows) <= slots and needed <= columns):
            return
        most = self._before + max(row.most for row in rows)
        columns = -(-max(needed, min(2 * needed, most)) // COLUMNS) * COLUMNS
        block = self._empty(_doubled(len(rows)), columns)
        n = len(self._running)
        block[:, :, :n, :filled] = self._block[:, :, :n, :filled]
        self._block = block

    def _begin(self, row: _Row, sound: bool) -> None:
        """Give the row, whose prompt is read, its slot; ``sound``: the prompt may be kept."""
        assert row.prompt is not None
        self._block[:, :, len(self._running), : row.filled] = row.prompt
        self._running.append(row)
        self._reading.remove(row)
        if sound:
            self._kept.put(row.ids, row.prompt)
        row.prompt = None

    def _pass(
        self,
        running: Sequence[_Row],
        next_ids: Sequence[int],
        pieces: Sequence[tuple[_Row, int]],
        read: Sequence[_Row],
    ) -> torch.Tensor:
        """Return the logits of the running rows, then of those whose prompt is now ``read``."""
        device = self._network.device
        ids, positions = list(next_ids), [row.filled for row in running]
        # What attention is told of each piece, and the places of the tokens that logits follow.
        parts: list[_Part] = []
        places = list(range(len(running)))
        for row, count in pieces:
            assert row.prompt is not None
            start, at = len(ids), row.filled - self._before
            parts.append(_Part.of(row.prompt, start, row.filled, count))
            ids += row.ids[at : at + count]
            positions += range(row.filled, row.filled + count)
            if row in read:
                places.append(len(ids) - 1)
        attending = _Attending(self._block, torch.tensor(positions[: len(running)]), parts)
        ids_T, positions_T, places_M = (
            torch.tensor(x, dtype=torch.long, device=device) for x in (ids, positions, places)
        )
        hidden_TD = hidden_states(self._network, ids_T, positions_T, attending)
        return logits(self._network, hidden_TD[places_M])


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Tokens ``start`` to ``stop`` of a pass: a piece of a prompt [L, 2, S, K, C]."""

    prompt: torch.Tensor
    start: int
    stop: int
    filled: int
    mask_NS: torch.Tensor | None

    @classmethod
    def of(cls, prompt: torch.Tensor, start: int, filled: int, count: int) -> "_Part":
        mask = None
        if filled and count > 1:
            mask = torch.ones(count, filled + count, dtype=torch.bool, device=prompt.device)
            mask = mask.tril(filled)
        return cls(prompt, start, start + count, filled, mask)

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, layer: int
    ) -> torch.Tensor:
        """Write keys and values [N, K, C] and attend to all so far: [N, H, C]."""
        end = self.filled + len(k)
        keys, values = self.prompt[layer]
        keys[self.filled : end], values[self.filled : end] = k, v
        out = scaled_dot_product_attention(
            q.to(keys.dtype).transpose(0, 1)[None],
            keys[:end].transpose(0, 1)[None],
            values[:end].transpose(0, 1)[None],
            attn_mask=self.mask_NS,
            is_causal=self.filled == 0,
            scale=scale,
            enable_gqa=True,
        )
        return out[0].transpose(0, 1).to(q.dtype)


class _Attending:
    """Attention of one pass: running rows in the block, then each piece in its prompt."""

    def __init__(
        self, block: torch.Tensor, columns_M: torch.Tensor, parts: Sequence[_Part]
    ) -> None:
        self._block, self._parts, self._rows = block, parts, len(columns_M)
        if self._rows:
            # Kernels of GPUs want masks of a multiple of eight columns.
            self._seen = -(-(int(columns_M.max()) + 1) // 8) * 8
            unseen_MS = torch.arange(self._seen) > columns_M[:, None]
            none_MS = torch.zeros(unseen_MS.shape, dtype=block.dtype)
            mask_MS = none_MS.masked_fill_(unseen_MS, torch.finfo(block.dtype).min)
            self._mask_M11S = mask_MS[:, None, None].to(block.device)
            slots_M = torch.arange(self._rows) * block.shape[3]
            self._places_M = (slots_M + columns_M).to(block.device)

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, layer: int
    ) -> torch.Tensor:
        rows = self._rows
        done = [self._in_block(q[:rows], k[:rows], v[:rows], scale, layer)] if rows else []
        for part in self._parts:
            own = slice(part.start, part.stop)
            done.append(part.attend(q[own], k[own], v[own], scale, layer))
        return torch.cat(done) if len(done) > 1 else done[0]

    def _in_block(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, layer: int
    ) -> torch.Tensor:
        """Write the rows' keys and values [M, K, C] and attend to all that they see."""
        keys, values = self._block[layer]
        for kept, fresh in ((keys, k), (values, v)):
            kept.flatten(0, 1).index_copy_(0, self._places_M, fresh.to(kept.dtype))
        # Query heads that share keys stand as rows of one product.
        out_MKGC = scaled_dot_product_attention(
            q.to(keys.dtype).unflatten(1, (k.shape[1], -1)),
            keys[: self._rows, : self._seen].transpose(1, 2),
            values[: self._rows, : self._seen].transpose(1, 2),
            attn_mask=self._mask_M11S,
            scale=scale,
        )
        return out_MKGC.flatten(1, 2).to(q.dtype)


def _doubled(rows: int) -> int:
    """Return the power of two from ``rows`` on."""
    return 1 << (rows - 1).bit_length() if rows else 0

"""The forward passes of generation: all prompts once, then one token of each row at a time.

Prompts are laid end to end as in training, a beginning that several share only once. The keys
and values of each row then stand in a block of a fixed size, prompts flush right, so that the
next ones of all rows go into one column, and rows that are done give way without a copy of the
others. transformers' own cache is the reference, and serves architectures that the engine does
not know. Shapes: B rows, T tokens laid end to end, S columns, H query heads, K key/value heads,
C head width, P virtual tokens of prefix-tuning, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from peft import PeftModel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from weitiao.models.adapters import transformers_model, virtual_tokens
from weitiao.models.flat import virtual_prompt
from weitiao.models.graphs import Run, recorder
from weitiao.models.segments import Attending, attend
from weitiao.plan.shape import KNOWN_ARCHITECTURES
from weitiao.records.prefixes import lay_out

KEPT_ATTENTION = "weitiao_kept"

COLUMNS = 128
"""A GPU's graph reads so many columns more than the last: for each multiple one is recorded."""

TOLERANCE = 0.05
"""How far a graph's logits may be from those without it: the kernels may differ."""

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float, int], torch.Tensor]
"""(query [T, H, C], key and value [T, K, C], scale, layer) → [T, H, C]"""


class Decoder(Protocol):
    """Rows that are being answered."""

    drops_at: float
    """The share of running rows from which on :meth:`keep` costs less than it saves."""

    def begin(self) -> torch.Tensor:
        """Return the logits after the prompts [B, V]."""

    def step(self, next_B: torch.Tensor) -> torch.Tensor:
        """Go on with a token for each row; return the logits after it [B, V]."""

    def keep(self, places: Sequence[int]) -> None:
        """Drop rows: row i becomes what row ``places[i]`` was."""


def decoder(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    pad_id: int,
) -> Decoder:
    """Return what goes on with ``prompts`` by up to ``new_tokens`` tokens each."""
    network = transformers_model(model)
    window = getattr(network.config, "sliding_window", None)
    looks_back = window is None or window >= max(map(len, prompts)) + new_tokens
    if type(network).__name__ in KNOWN_ARCHITECTURES and looks_back:
        on_cuda = network.device.type == "cuda" and torch.version.hip is None
        return _Block(model, prompts, new_tokens, recorder() if on_cuda else None)
    return _Plain(model, prompts, pad_id)


class _Plain:
    """Rows padded on the left, in transformers' own cache."""

    drops_at = 0.5

    def __init__(
        self, model: PreTrainedModel | PeftModel, prompts: Sequence[Sequence[int]], pad_id: int
    ) -> None:
        self._network = transformers_model(model)
        device, width = self._network.device, max(map(len, prompts))
        ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        self._fresh_BL = torch.tensor(ids, device=device)
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        cache = virtual_tokens(model, len(prompts))
        self._cache = DynamicCache(config=self._network.config) if cache is None else cache
        # Virtual tokens stand before the padding; a row's positions go on after them.
        virtual = torch.ones(len(prompts), self._cache.get_seq_length(), dtype=torch.long)
        self._mask_BL = torch.cat([virtual, torch.tensor(mask)], dim=1).to(device)

    def begin(self) -> torch.Tensor:
        # Positions count real tokens only: a row answers the same beside longer ones.
        positions_BL = (self._mask_BL.cumsum(1) - 1).clamp_(min=0)
        logits_BLV: torch.Tensor = self._network(
            input_ids=self._fresh_BL,
            attention_mask=self._mask_BL,
            position_ids=positions_BL[:, -self._fresh_BL.shape[1] :],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits_BLV[:, -1]

    def step(self, next_B: torch.Tensor) -> torch.Tensor:
        self._fresh_BL = next_B[:, None]
        self._mask_BL = torch.cat([self._mask_BL, torch.ones_like(self._fresh_BL)], dim=1)
        return self.begin()

    def keep(self, places: Sequence[int]) -> None:
        chosen = torch.tensor(places, device=self._mask_BL.device)
        self._cache.batch_select_indices(chosen)
        self._mask_BL = self._mask_BL[chosen]


class _Graph:
    """A recorded step and the logits that it leaves behind."""

    run: Run
    logits_BV: torch.Tensor


class _Block:
    """Rows whose keys and values stand in one block a layer [B, K, S, C].

    With ``record`` steps are recorded (see :mod:`weitiao.models.graphs`) and read ``columns``
    more columns at a time; a graph that fails, or computes something else, ends the recording.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        record: Callable[[Run], Run] | None = None,
        columns: int = COLUMNS,
    ) -> None:
        self._network = transformers_model(model)
        device = self._network.device
        self._record, self._columns = record, 1 if record is None else columns
        # A graph is made for a number of rows; without, a change costs next to nothing.
        self.drops_at = 0.9 if record is None else 0.5
        self._type = self._network.dtype
        self._layout = lay_out([np.array(prompt) for prompt in prompts])
        self._attending = Attending(self._layout.segments, virtual_prompt(model))
        lengths = np.array([len(prompt) for prompt in prompts])
        virtual = self._attending.virtual
        self._rows, self._filled = len(prompts), virtual + int(lengths.max())
        self._capacity = self._rounded(self._filled + new_tokens)
        places = np.zeros((self._rows, self._filled - virtual), np.int64)
        hidden = np.ones((self._rows, self._capacity), np.bool_)
        hidden[:, :virtual] = False
        for row, own in enumerate(self._layout.places):
            places[row, -len(own) :] = own
            hidden[row, self._filled - len(own) : self._filled] = False
        self._places_BL = torch.from_numpy(places).to(device)
        none = torch.zeros(self._rows, 1, 1, self._capacity, dtype=self._type, device=device)
        unseen = torch.from_numpy(hidden)[:, None, None].to(device)
        self._mask_B11S = none.masked_fill_(unseen, torch.finfo(self._type).min)
        self._positions_B = torch.from_numpy(virtual + lengths).to(device)
        self._ids_B = torch.zeros_like(self._positions_B)
        self._column_1 = torch.tensor([self._filled], device=device)
        self._blocks: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._graphs: dict[tuple[int, int], _Graph] = {}

    def begin(self) -> torch.Tensor:
        device = self._places_BL.device
        ids_T, positions_T = (
            torch.from_numpy(x.astype(np.int64)).to(device)
            for x in (self._layout.ids, self._layout.positions)
        )
        positions_T += self._attending.virtual
        hidden_TD = hidden_states(self._network, ids_T, positions_T, self._attend_prompts)
        # A prompt that others go on with ends in what they share.
        return logits(self._network, hidden_TD[self._places_BL[:, -1]])

    def step(self, next_B: torch.Tensor) -> torch.Tensor:
        self._ids_B[: self._rows] = next_B
        self._mask_B11S.index_fill_(3, self._column_1, 0.0)
        logits_BV = self._logits()
        self._positions_B += 1
        self._column_1 += 1
        self._filled += 1
        return logits_BV

    def keep(self, places: Sequence[int]) -> None:
        moved = [(to, at) for to, at in enumerate(places) if to != at]
        self._rows = len(places)
        if not moved:
            return
        to, at = torch.tensor(moved, device=self._places_BL.device).T
        self._positions_B[to] = self._positions_B[at]
        self._mask_B11S[to] = self._mask_B11S[at]
        for block in (block for blocks in self._blocks.values() for block in blocks):
            block[to, :, : self._filled] = block[at, :, : self._filled]

    def _rounded(self, columns: int) -> int:
        return -(-columns // self._columns) * self._columns

    def _logits(self) -> torch.Tensor:
        key = self._rows, self._rounded(self._filled + 1)
        if graph := self._graphs.get(key):
            graph.run()
            return graph.logits_BV
        logits_BV = self._forward()
        if self._record is not None and not self._recorded(key, self._record, logits_BV):
            self._record = None
            self._graphs.clear()
            # A wrong graph wrote wrong keys and values; here the right ones are written again.
            return self._forward()
        return logits_BV

    def _recorded(
        self, key: tuple[int, int], record: Callable[[Run], Run], expected_BV: torch.Tensor
    ) -> bool:
        """Record the step that was just computed; return whether it computes the same again."""
        graph = _Graph()

        def run() -> None:
            graph.logits_BV = self._forward()

        try:
            graph.run = record(run)
            graph.run()
            exact = expected_BV.float()
            close = bool((graph.logits_BV - exact).norm() <= TOLERANCE * exact.norm())
        except RuntimeError:
            return False
        self._graphs[key] = graph
        return close

    def _forward(self) -> torch.Tensor:
        ids_B, positions_B = self._ids_B[: self._rows], self._positions_B[: self._rows]
        return logits(
            self._network, hidden_states(self._network, ids_B, positions_B, self._attend_block)
        )

    def _attend_prompts(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, layer: int
    ) -> torch.Tensor:
        prompt = self._attending.prompt
        before = (None, None) if prompt is None else prompt[layer]
        self._blocks[layer] = self._block(k, before[0]), self._block(v, before[1])
        return attend(q, k, v, self._attending, scale, layer=layer)

    def _block(self, x_TKC: torch.Tensor, before_PKC: torch.Tensor | None) -> torch.Tensor:
        """Return the block of all rows with their prompts in it."""
        # Columns that a graph reads and nothing filled yet must at least be numbers.
        made = torch.empty if self._columns == 1 else torch.zeros
        _, heads, width = x_TKC.shape
        shape = self._rows, heads, self._capacity, width
        block_BKSC = made(shape, dtype=self._type, device=x_TKC.device)
        virtual = self._attending.virtual
        if before_PKC is not None:
            block_BKSC[:, :, :virtual] = before_PKC.transpose(0, 1)
        block_BKSC[:, :, virtual : self._filled] = x_TKC[self._places_BL].transpose(1, 2)
        return block_BKSC

    def _attend_block(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, layer: int
    ) -> torch.Tensor:
        """Write the rows' next keys and values [B, K, C] and attend to all that they see."""
        keys, values = (block[: self._rows] for block in self._blocks[layer])
        for block, fresh in ((keys, k), (values, v)):
            block.index_copy_(2, self._column_1, fresh[:, :, None].to(self._type))
        seen = self._rounded(self._filled + 1)
        # Query heads that share keys stand as rows of one product.
        out_BKGC = scaled_dot_product_attention(
            q.to(self._type).unflatten(1, (k.shape[1], -1)),
            keys[:, :, :seen],
            values[:, :, :seen],
            attn_mask=self._mask_B11S[: self._rows, :, :, :seen],
            scale=scale,
        )
        return out_BKGC.flatten(1, 2).to(q.dtype)


def hidden_states(
    network: PreTrainedModel, ids_T: torch.Tensor, positions_T: torch.Tensor, attending: Attend
) -> torch.Tensor:
    """Return what the head is given, [T, D], after the last norm; ``attending`` keeps the keys."""
    config = network.config
    before, config._attn_implementation = config._attn_implementation, KEPT_ATTENTION
    try:
        found = network.get_decoder()(
            inputs_embeds=network.get_input_embeddings()(ids_T)[None],
            position_ids=positions_T[None],
            use_cache=False,
            attending=attending,
        )
    finally:
        config._attn_implementation = before
    hidden_1TD: torch.Tensor = found.last_hidden_state
    return hidden_1TD[0]


def logits(network: PreTrainedModel, hidden_BD: torch.Tensor) -> torch.Tensor:
    """Return the head's logits [B, V]."""
    head: Any = network.get_output_embeddings()
    logits_BV: torch.Tensor = head(hidden_BD)
    return logits_BV


def _kept_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    attending: Attend,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers asks for it: query [1, H, T, C], key and value [1, K, T, C]."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attending(q, k, v, scaling, module.layer_idx)[None], None


# No mask function is registered under this name, so transformers builds no mask.
AttentionInterface.register(KEPT_ATTENTION, _kept_attention)

"""Token-in, token-out generation: batches for evaluation, one stream for a conversation.

Shapes: B rows still running, L tokens of the longest row so far, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from peft import PeftModel
from transformers import DynamicCache, LogitsProcessorList, PreTrainedModel
from transformers.generation import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from weitiao.models.adapters import transformers_model, virtual_tokens


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the likeliest (greedy)."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def processors(self) -> LogitsProcessorList:
        """Return transformers' processors for these settings, in its own order."""
        chain = LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            chain.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature > 0 and self.temperature != 1.0:
            chain.append(TemperatureLogitsWarper(self.temperature))
        if self.temperature > 0 and self.top_p < 1.0:
            chain.append(TopPLogitsWarper(self.top_p))
        return chain


@dataclass(slots=True)
class Generation:
    """The new tokens of one row, the stop token left out; ``stopped``: it ended by itself."""

    ids: list[int] = field(default_factory=list)
    stopped: bool = False


def _decode(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    pad_id: int,
) -> Iterator[torch.Tensor]:
    """Yield the next token of every prompt [B], until the caller has enough.

    The caller may send the places [B'] of the rows to go on with; the others are dropped.
    """
    device = model.device
    width = max(map(len, prompts))
    ids_BL = torch.full((len(prompts), width), pad_id, device=device)
    mask_BL = torch.zeros_like(ids_BL)
    for row, prompt in enumerate(prompts):
        ids_BL[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
        mask_BL[row, width - len(prompt) :] = 1
    network, chain = transformers_model(model), sampling.processors()
    cache = virtual_tokens(model, len(prompts))
    if cache is None:
        cache = DynamicCache(config=network.config)
    # Virtual tokens stand before the padding; a row's positions go on after them.
    virtual = mask_BL.new_ones(len(prompts), cache.get_seq_length())
    mask_BL = torch.cat([virtual, mask_BL], dim=1)
    noise = torch.Generator(device).manual_seed(sampling.seed)
    fresh_BL = ids_BL
    while True:
        # Positions count real tokens only: a row answers the same beside longer ones.
        positions_BL = (mask_BL.cumsum(1) - 1).clamp_(min=0)[:, -fresh_BL.shape[1] :]
        logits_BV = network(
            input_ids=fresh_BL,
            attention_mask=mask_BL,
            position_ids=positions_BL,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        scores_BV = chain(ids_BL, logits_BV.float())  # type: ignore[arg-type]
        if sampling.temperature > 0:
            next_B = torch.multinomial(scores_BV.softmax(-1), 1, generator=noise)[:, 0]
        else:
            next_B = scores_BV.argmax(-1)
        keep = yield next_B
        if keep is not None:
            cache.batch_select_indices(keep)
            ids_BL, mask_BL, next_B = ids_BL[keep], mask_BL[keep], next_B[keep]
            yield next_B
        fresh_BL = next_B[:, None]
        ids_BL = torch.cat([ids_BL, fresh_BL], dim=1)
        mask_BL = torch.cat([mask_BL, torch.ones_like(fresh_BL)], dim=1)


@torch.inference_mode()
def _generate_batch(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stop_ids: Sequence[int],
    pad_id: int,
) -> list[Generation]:
    done = [Generation() for _ in prompts]
    alive = list(range(len(prompts)))
    decoder = _decode(model, prompts, sampling, pad_id)
    for _ in range(sampling.max_new_tokens):
        for row, token in zip(alive, next(decoder).tolist(), strict=True):
            if not done[row].stopped:
                done[row].stopped = token in stop_ids
                if not done[row].stopped:
                    done[row].ids.append(token)
        running = [place for place, row in enumerate(alive) if not done[row].stopped]
        if not running:
            break
        # Dropping rows copies the cache, so it waits until it halves the work.
        if len(running) <= len(alive) // 2:
            decoder.send(torch.tensor(running, device=model.device))  # type: ignore[attr-defined]
            alive = [alive[place] for place in running]
    return done


def generate(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stop_ids: Sequence[int],
    pad_id: int,
    batch_size: int = 16,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[Generation]:
    """Return a generation for each prompt, in their order.

    Prompts of like length share a batch. ``on_batch`` is told (rows done, new tokens) after
    each batch. A greedy answer does not depend on what else is in its batch, but for the
    rounding of sums.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    found = [Generation() for _ in prompts]
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = _generate_batch(model, [prompts[i] for i in rows], sampling, stop_ids, pad_id)
        for i, generation in zip(rows, batch, strict=True):
            found[i] = generation
        if on_batch is not None:
            on_batch(start + len(rows), sum(len(g.ids) for g in batch))
    return found


def stream(
    model: PreTrainedModel | PeftModel,
    prompt: Sequence[int],
    sampling: Sampling,
    stop_ids: Sequence[int],
) -> Iterator[int]:
    """Yield the answer to one prompt token by token; it may be left off at any token."""
    decoder = _decode(model, [prompt], sampling, pad_id=0)
    for _ in range(sampling.max_new_tokens):
        # Not around the whole loop: the caller's code runs between two tokens.
        with torch.inference_mode():
            token = int(next(decoder)[0])
        if token in stop_ids:
            return
        yield token

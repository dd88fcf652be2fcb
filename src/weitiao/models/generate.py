"""Token-in, token-out generation: batches for evaluation, one stream for a conversation.

Shapes: B rows, some of them done, L tokens of the longest row so far, V vocabulary.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from peft import PeftModel
from transformers import LogitsProcessorList, PreTrainedModel
from transformers.generation import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from weitiao.models.decoding import decoder


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


class _Rows:
    """Rows that are being answered, a token of each at a time."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        pad_id: int,
    ) -> None:
        self._decoder = decoder(model, prompts, sampling.max_new_tokens, pad_id)
        self.drops_at = self._decoder.drops_at
        self._sampling, self._chain = sampling, sampling.processors()
        self._noise = torch.Generator(model.device).manual_seed(sampling.seed)
        self._next_B: torch.Tensor | None = None
        # What is said of a row's tokens must not be said of padding: its first token fills up.
        width = max(map(len, prompts))
        said = [[prompt[0]] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        self._said_BL = torch.tensor(said, device=model.device)

    def next(self) -> list[int]:
        """Return the next token of every row."""
        if self._next_B is None:
            logits_BV = self._decoder.begin()
        else:
            logits_BV = self._decoder.step(self._next_B)
        self._next_B = self._chosen(logits_BV)
        if self._chain:
            self._said_BL = torch.cat([self._said_BL, self._next_B[:, None]], dim=1)
        return self._next_B.tolist()

    def keep(self, places: Sequence[int]) -> None:
        """Drop rows: row i becomes what row ``places[i]`` was."""
        assert self._next_B is not None
        self._decoder.keep(places)
        chosen = torch.tensor(places, device=self._next_B.device)
        self._next_B, self._said_BL = self._next_B[chosen], self._said_BL[chosen]

    def _chosen(self, logits_BV: torch.Tensor) -> torch.Tensor:
        if self._sampling.temperature == 0 and not self._chain:
            return logits_BV.max(-1).indices  # argmax takes a CPU twice as long
        scores_BV = self._chain(self._said_BL, logits_BV.float())  # type: ignore[arg-type]
        if self._sampling.temperature == 0:
            return scores_BV.argmax(-1)
        return torch.multinomial(scores_BV.softmax(-1), 1, generator=self._noise)[:, 0]


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
    rows = _Rows(model, prompts, sampling, pad_id)
    for _ in range(sampling.max_new_tokens):
        for row, token in zip(alive, rows.next(), strict=True):
            if not done[row].stopped:
                done[row].stopped = token in stop_ids
                if not done[row].stopped:
                    done[row].ids.append(token)
        running = [place for place, row in enumerate(alive) if not done[row].stopped]
        if not running:
            break
        if len(running) <= rows.drops_at * len(alive):
            places = _closed_up(running)
            rows.keep(places)
            alive = [alive[place] for place in places]
    return done


def _closed_up(running: Sequence[int]) -> list[int]:
    """Return the places of the running rows; the last ones fill the gaps of those before."""
    front = set(running[: bisect_left(running, len(running))])
    back = iter(running[len(front) :])
    return [place if place in front else next(back) for place in range(len(running))]


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
    with torch.inference_mode():
        rows = _Rows(model, [prompt], sampling, pad_id=0)
    for _ in range(sampling.max_new_tokens):
        # Not around the whole loop: the caller's code runs between two tokens.
        with torch.inference_mode():
            (token,) = rows.next()
        if token in stop_ids:
            return
        yield token

"""Generation against transformers' own, and against itself in other batches."""

import pytest
import torch

from tiny import tiny_model
from weitiao.models.generate import Generation, Sampling, generate, stream

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15], [20], [33, 34, 35, 36]]
STOP = (3,)


def transformers_answer(prompt: list[int], new: int, penalty: float = 1.0) -> list[int]:
    ids = torch.tensor([prompt])
    out = tiny_model().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        do_sample=False,
        repetition_penalty=penalty,
        eos_token_id=list(STOP),
        pad_token_id=0,
    )
    answer = out[0, len(prompt) :].tolist()
    return answer[:-1] if answer[-1] in STOP else answer


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_greedy_equals_transformers(penalty: float) -> None:
    sampling = Sampling(max_new_tokens=24, repetition_penalty=penalty)
    found = generate(tiny_model(), PROMPTS, sampling, STOP, pad_id=0, batch_size=3)
    assert [g.ids for g in found] == [transformers_answer(p, 24, penalty) for p in PROMPTS]


def test_a_row_that_stops_leaves_the_others_as_they_were() -> None:
    """Rows are dropped from the cache as they end; the rest must not notice."""
    sampling, model = Sampling(max_new_tokens=20), tiny_model()
    free = generate(model, PROMPTS, sampling, (), pad_id=0)
    stops = tuple({free[0].ids[3], free[2].ids[0]})
    stopped = generate(model, PROMPTS, sampling, stops, pad_id=0)
    assert any(g.stopped for g in stopped)
    for before, after in zip(free, stopped, strict=True):
        cut = next((i for i, t in enumerate(before.ids) if t in stops), len(before.ids))
        assert after == Generation(before.ids[:cut], cut < len(before.ids))


def test_a_stream_says_what_a_batch_says() -> None:
    sampling, model = Sampling(max_new_tokens=15), tiny_model()
    batch = generate(model, PROMPTS, sampling, STOP, pad_id=0)
    assert [list(stream(model, p, sampling, STOP)) for p in PROMPTS] == [g.ids for g in batch]


def test_sampling_repeats_with_its_seed_and_differs_without() -> None:
    def sampled(seed: int) -> list[list[int]]:
        sampling = Sampling(max_new_tokens=16, temperature=1.3, top_p=0.9, seed=seed)
        return [g.ids for g in generate(tiny_model(), PROMPTS, sampling, STOP, pad_id=0)]

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_a_tiny_top_p_is_greedy() -> None:
    model = tiny_model()
    narrow = Sampling(max_new_tokens=8, temperature=1.0, top_p=1e-6)
    greedy = Sampling(max_new_tokens=8)
    ids = [[g.ids for g in generate(model, PROMPTS, s, STOP, 0)] for s in (narrow, greedy)]
    assert ids[0] == ids[1]

"""Generation against transformers' own, and against itself in other batches."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small import adapted, lively

from weitiao.models import decoding
from weitiao.models import generate as generating
from weitiao.models.decoding import decoder
from weitiao.models.generate import Generation, Sampling, generate, stream
from weitiao.models.graphs import Run

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15], [20], [33, 34, 35, 36]]
STOP = (3,)
BEGINNING = list(range(40, 60))
SHARED = [
    [*BEGINNING, 5, 6],
    BEGINNING,
    [*BEGINNING, 7],
    [20, 21],
    [*BEGINNING, 7],
    [*BEGINNING, *range(60, 80), 9],
]


def transformers_answer(
    prompt: list[int], new: int, penalty: float = 1.0, model: Any = None
) -> list[int]:
    ids = torch.tensor([prompt])
    out = (model or lively()).generate(
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
    found = generate(lively(), PROMPTS, sampling, STOP, pad_id=0, batch_size=3)
    assert [g.ids for g in found] == [transformers_answer(p, 24, penalty) for p in PROMPTS]


def test_a_row_that_stops_leaves_the_others_as_they_were() -> None:
    """Rows are dropped from the cache as they end; the rest must not notice."""
    sampling, model = Sampling(max_new_tokens=20), lively()
    free = generate(model, PROMPTS, sampling, (), pad_id=0)
    stops = tuple({free[0].ids[3], free[2].ids[0]})
    stopped = generate(model, PROMPTS, sampling, stops, pad_id=0)
    assert any(g.stopped for g in stopped)
    for before, after in zip(free, stopped, strict=True):
        cut = next((i for i, t in enumerate(before.ids) if t in stops), len(before.ids))
        assert after == Generation(before.ids[:cut], cut < len(before.ids))


def test_a_stream_says_what_a_batch_says() -> None:
    sampling, model = Sampling(max_new_tokens=15), lively()
    batch = generate(model, PROMPTS, sampling, STOP, pad_id=0)
    assert [list(stream(model, p, sampling, STOP)) for p in PROMPTS] == [g.ids for g in batch]


def test_sampling_repeats_with_its_seed_and_differs_without() -> None:
    def sampled(seed: int) -> list[list[int]]:
        sampling = Sampling(max_new_tokens=16, temperature=1.3, top_p=0.9, seed=seed)
        return [g.ids for g in generate(lively(), PROMPTS, sampling, STOP, pad_id=0)]

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)


def test_a_tiny_top_p_is_greedy() -> None:
    model = lively()
    narrow = Sampling(max_new_tokens=8, temperature=1.0, top_p=1e-6)
    greedy = Sampling(max_new_tokens=8)
    ids = [[g.ids for g in generate(model, PROMPTS, s, STOP, 0)] for s in (narrow, greedy)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral", "olmo2"])
def test_every_family_answers_as_transformers_does(family: str) -> None:
    """Rows of many lengths that share a beginning, some of them nothing else."""
    model = lively(family)
    found = generate(model, SHARED, Sampling(max_new_tokens=12), STOP, pad_id=0)
    assert [g.ids for g in found] == [transformers_answer(p, 12, model=model) for p in SHARED]
    kind = decoding._Plain if family == "olmo2" else decoding._Block
    assert type(decoder(model, SHARED, 12, 0)) is kind


def test_a_window_shorter_than_an_answer_is_left_to_transformers() -> None:
    model = lively("mistral", window=16)
    assert type(decoder(model, [[1, 2]], 14, 0)) is decoding._Block
    assert type(decoder(model, [[1, 2]], 15, 0)) is decoding._Plain
    found = generate(model, SHARED, Sampling(max_new_tokens=12), STOP, pad_id=0)
    assert [g.ids for g in found] == [transformers_answer(p, 12, model=model) for p in SHARED]


def test_what_prompts_begin_with_is_computed_once() -> None:
    model, seen = lively(), []
    model.get_input_embeddings().register_forward_hook(lambda _m, x, _y: seen.append(x[0].numel()))
    generate(model, SHARED, Sampling(max_new_tokens=2), (), pad_id=0)
    own = sum(len(p) for p in SHARED) - 4 * len(BEGINNING)
    assert seen == [own, len(SHARED)]


def test_the_padding_is_not_taken_for_something_said() -> None:
    sampling, model = Sampling(max_new_tokens=12, repetition_penalty=1.7), lively()
    expected = [transformers_answer(p, 12, 1.7) for p in PROMPTS]
    for pad in {token for answer in expected for token in answer}:
        assert [g.ids for g in generate(model, PROMPTS, sampling, STOP, pad)] == expected


class Recording:
    """What makes graphs, without any: a function runs again as it is."""

    def __init__(self) -> None:
        self.made, self.replayed = 0, 0

    def __call__(self, run: Run) -> Run:
        self.made += 1

        def again() -> None:
            self.replayed += 1
            run()

        return again


def answers_by(record: Any, monkeypatch: pytest.MonkeyPatch, stops: Sequence[int]) -> Any:
    """Return the answers to ``SHARED`` with steps recorded, and the decoder that gave them."""
    made: list[Any] = []

    def block(model: Any, prompts: Any, new_tokens: int, pad_id: int) -> Any:
        made.append(decoding._Block(model, prompts, new_tokens, record, columns=8))
        return made[-1]

    monkeypatch.setattr(generating, "decoder", block)
    found = generate(lively(), SHARED, Sampling(max_new_tokens=24), stops, pad_id=0)
    monkeypatch.undo()
    return found, made[0]


def test_recorded_steps_answer_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    free = generate(lively(), SHARED, Sampling(max_new_tokens=24), (), pad_id=0)
    stops = tuple({free[0].ids[4], free[3].ids[9]})
    plain = generate(lively(), SHARED, Sampling(max_new_tokens=24), stops, pad_id=0)
    assert len({len(g.ids) for g in plain}) > 2
    for given, expected in (((), free), (stops, plain)):
        record = Recording()
        found, block = answers_by(record, monkeypatch, given)
        assert found == expected
        assert len(block._graphs) == record.made
        assert record.replayed > 2 * record.made
    # Columns 41 to 64 by eights, all six rows.
    record = Recording()
    answers_by(record, monkeypatch, ())
    assert record.made == 3


def test_a_graph_that_fails_or_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = generate(lively(), SHARED, Sampling(max_new_tokens=24), (), pad_id=0)
    tried: list[str] = []

    def failing(run: Run) -> Run:
        tried.append("failing")
        raise RuntimeError("operation not permitted when stream is capturing")

    def wrong(run: Run) -> Run:
        tried.append("wrong")

        def halved() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(torch.nn.Linear, "forward", lambda layer, x: x @ layer.weight.T / 2)
                run()

        return halved

    for record in (failing, wrong):
        found, block = answers_by(record, monkeypatch, ())
        assert found == expected
        assert block._record is None
        assert not block._graphs
    assert tried == ["failing", "wrong"]


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_adapters_on_and_off(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampling = adapted(kind), Sampling(max_new_tokens=16)

    def answers() -> list[Generation]:
        return generate(model, SHARED, sampling, (), pad_id=0)

    tuned = answers()
    with model.disable_adapter():
        assert answers() == generate(lively(), SHARED, sampling, (), pad_id=0) != tuned
    monkeypatch.setattr(decoding, "KNOWN_ARCHITECTURES", ())
    assert answers() == tuned


@pytest.mark.gpu
def test_graphs_answer_as_a_cpu_does() -> None:
    model, sampling = lively(), Sampling(max_new_tokens=60)
    expected = generate(model, SHARED, sampling, (), pad_id=0)
    model = model.to("cuda")
    made: Any = decoder(model, SHARED, 60, 0)
    with torch.inference_mode():
        next_B = made.begin().argmax(-1)
        for _ in range(3):
            next_B = made.step(next_B).argmax(-1)
    assert len(made._graphs) == 1
    assert generate(model, SHARED, sampling, (), pad_id=0) == expected

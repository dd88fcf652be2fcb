"""Choosing tokens, against transformers' processors."""

from collections import Counter

import pytest
import torch

from weitiao.models import choosing
from weitiao.models.choosing import Chooser, choose, log_probabilities
from weitiao.models.generate import Sampling

SAID = [3, 7, 7, 11]
LOGITS = torch.randn(40, generator=torch.Generator().manual_seed(1)) * 2


@pytest.mark.parametrize("likeliest", [4, 1024])
@pytest.mark.parametrize("top_p", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_tokens_are_drawn_as_transformers_would(
    likeliest: int, top_p: float, penalty: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "LIKELIEST", likeliest)
    sampling = Sampling(temperature=0.7, top_p=top_p, repetition_penalty=penalty)
    chain = sampling.processors()
    expected = chain(torch.tensor([SAID]), LOGITS[None].clone()).softmax(-1)[0]  # type: ignore[arg-type]
    draws = 1500
    found = Counter(
        int(Chooser(SAID, 0.7, top_p, penalty, seed).choose(LOGITS)) for seed in range(draws)
    )
    assert all(expected[token] > 0 for token in found)
    shares = torch.tensor([found[token] / draws for token in range(len(LOGITS))])
    # Half of the sum of differences is about 0.04 by chance.
    assert float((shares - expected).abs().sum()) / 2 < 0.08


def test_the_likeliest_and_what_was_said() -> None:
    best = int(LOGITS.argmax())
    assert (
        choose(LOGITS[None].repeat(2, 1), [Chooser([best]), Chooser([best], 0, 1, 50.0)])[0] == best
    )
    assert int(Chooser([best], 0.0, 1.0, 50.0).choose(LOGITS)) != best
    assert int(Chooser(SAID, 1e-30, 1.0, 1.0, 3).choose(LOGITS)) == best
    assert int(Chooser(SAID, 1.0, 1e-9, 1.0, 3).choose(LOGITS)) == best


def test_chance_is_of_the_seed_and_the_place() -> None:
    flat = torch.zeros(1000)
    chooser = Chooser(SAID, 1.0, seed=4)
    first = int(chooser.choose(flat))
    assert int(chooser.choose(flat)) == first == int(Chooser([1], 1.0, seed=4).choose(flat))
    chooser.said.append(first)
    assert chooser.new == 1
    assert int(chooser.choose(flat)) != first
    assert len({int(Chooser(SAID, 1.0, seed=s).choose(flat)) for s in (4, -4, None, None)}) == 4


def test_what_is_not_a_number_is_not_chosen() -> None:
    rows = torch.stack([LOGITS, LOGITS * float("nan"), LOGITS])
    found = choose(rows, [Chooser(SAID), Chooser(SAID, 1.0), Chooser(SAID, 1.0, seed=1)])
    assert found[0] == int(LOGITS.argmax())
    assert found[1] is None
    assert found[2] is not None


def test_log_probabilities() -> None:
    own, top = log_probabilities(LOGITS, 7, 2)
    assert own == pytest.approx(float(LOGITS.log_softmax(-1)[7]))
    assert top[0] == (int(LOGITS.argmax()), pytest.approx(float(LOGITS.log_softmax(-1).max())))
    assert log_probabilities(LOGITS, 7, 0)[1] == ()

"""The flat forward pass against the plain reference: losses and every gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tiny import random_samples, tiny_model
from weitiao.models.adapters import add_lora, transformers_model
from weitiao.models.flat import answer_losses, flatten, row_losses
from weitiao.models.reference import reference_loss

LENGTHS = st.lists(st.integers(2, 24), min_size=1, max_size=7)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_same_gradients(model: PreTrainedModel, lengths: list[int], seed: int) -> None:
    samples = random_samples(lengths, seed)
    plain = [reference_loss(model, sample) for sample in samples]
    torch.stack(plain).sum().backward()
    expected = gradients(model)
    fast = row_losses(model, flatten(samples), torch.float32)
    fast.sum().backward()
    found = gradients(model)
    torch.testing.assert_close(fast, torch.stack(plain), rtol=1e-5, atol=1e-5)
    assert expected.keys() == found.keys()
    assert any(g.abs().max() > 1e-6 for g in expected.values()), "gradients must not be zero"
    largest = max(float(g.norm()) for g in expected.values())
    for name, gradient in expected.items():
        # A gradient that is zero in exact arithmetic is rounding noise in both.
        size = max(float(gradient.norm()), 1e-3 * largest)
        assert (found[name] - gradient).norm() / size < 1e-5, name


@settings(max_examples=15, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 1000))
def test_losses_and_full_gradients_agree(lengths: list[int], seed: int) -> None:
    assert_same_gradients(tiny_model(), lengths, seed)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_each_family_agrees(family: str, tied: bool) -> None:
    assert_same_gradients(tiny_model(family, tied), [5, 2, 17, 9], 3)


def test_adapter_gradients_agree() -> None:
    wrapped = add_lora(tiny_model(), rank=4, alpha=8, dropout=0.0, targets="all-linear", seed=1)
    model = transformers_model(wrapped)
    # B is zero at first, which would make every gradient of A zero.
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    assert_same_gradients(model, [6, 13, 2, 21], 5)


def test_a_row_does_not_see_its_neighbours() -> None:
    model, samples = tiny_model(), random_samples([9, 4, 12], 11)
    together = row_losses(model, flatten(samples), torch.float32)
    alone = [row_losses(model, flatten([s]), torch.float32)[0] for s in samples]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-6, atol=1e-6)


def test_chunks_of_the_head_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = tiny_model(), random_samples([100, 90, 120], 2)
    whole = answer_losses(model, samples)
    monkeypatch.setattr("weitiao.models.head.CHUNK_LOGITS", 1)
    parts = answer_losses(model, samples, budget=128)
    assert [n for _, n in whole] == [n for _, n in parts]
    assert [x for x, _ in parts] == pytest.approx([x for x, _ in whole], rel=1e-5)


def test_the_models_own_attention_comes_back() -> None:
    model = tiny_model()
    before = model.config._attn_implementation
    answer_losses(model, random_samples([5], 0))
    assert model.config._attn_implementation == before


def test_bf16_stays_near_fp32() -> None:
    model, samples = tiny_model(), random_samples([20, 30], 4)
    exact = [x for x, _ in answer_losses(model, samples)]
    rough = [x for x, _ in answer_losses(model, samples, precision=torch.bfloat16)]
    assert rough == pytest.approx(exact, rel=0.02)
    assert rough != exact

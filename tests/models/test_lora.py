"""The lean LoRA layers against PEFT's own forward: losses and every adapter gradient."""

import pytest
import torch
from test_flat import gradients

from tiny import random_samples, tiny_model
from weitiao.models.adapters import add_lora, transformers_model
from weitiao.models.flat import flatten, row_losses
from weitiao.models.lora import lean_lora

LAYERS = 2 * 7


def adapted(dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    wrapped = add_lora(
        tiny_model().to(dtype), rank=4, alpha=12, dropout=dropout, targets="all-linear", seed=1
    )
    model = transformers_model(wrapped)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


@pytest.mark.parametrize("lengths", [[7, 3, 20], [2], [5, 5]])
def test_losses_and_gradients_equal_pefts(lengths: list[int]) -> None:
    model, flat = adapted(), flatten(random_samples(lengths, 5))
    plain = row_losses(model, flat, torch.float32)
    plain.sum().backward()
    expected = gradients(model)
    with lean_lora(model) as changed:
        assert changed == LAYERS
        lean = row_losses(model, flat, torch.float32)
        lean.sum().backward()
    found = gradients(model)
    torch.testing.assert_close(lean, plain, rtol=1e-5, atol=1e-5)
    assert expected.keys() == found.keys()
    assert len(expected) == 2 * LAYERS
    largest = max(float(g.norm()) for g in expected.values())
    for name, gradient in expected.items():
        size = max(float(gradient.norm()), 1e-3 * largest)
        assert (found[name] - gradient).norm() / size < 1e-5, name


def test_bf16_is_as_near_to_fp32_as_pefts() -> None:
    flat = flatten(random_samples([30, 22, 41], 6))
    exact = row_losses(adapted(), flat, torch.float32)
    model = adapted(dtype=torch.bfloat16)
    peft = row_losses(model, flat, torch.bfloat16)
    with lean_lora(model):
        lean = row_losses(model, flat, torch.bfloat16)
    assert (lean - exact).abs().max() < 2 * (peft - exact).abs().max() + 0.05


def test_dropout_keeps_pefts_forward() -> None:
    with lean_lora(adapted(dropout=0.1)) as changed:
        assert changed == 0


def test_outside_the_block_nothing_is_left() -> None:
    model = adapted()
    with lean_lora(model):
        pass
    assert not any("forward" in vars(module) for module in model.modules())

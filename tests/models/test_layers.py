"""Lean layers under an adapter against PEFT's own forward: losses and every adapter gradient."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_flat import assert_same, gradients, with_beginning

from tiny import tiny_model
from weitiao.models.adapters import transformers_model
from weitiao.models.flat import fast_path, flat_attention, flatten, row_losses
from weitiao.models.layers import lean_layers
from weitiao.models.lora import Projection

LAYERS = 2
SAMPLES = with_beginning([7, 3, 20, 1], 18)


def adapted(
    family: str = "qwen2",
    dtype: torch.dtype = torch.float32,
    targets: str | list[str] = "all-linear",
    **changes: object,
) -> torch.nn.Module:
    config = LoraConfig(r=4, lora_alpha=12, target_modules=targets, **changes)  # type: ignore[arg-type]
    torch.manual_seed(2)
    model = transformers_model(get_peft_model(tiny_model(family).to(dtype), config))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            # B is zero at first, which would make every gradient of A zero.
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def both_ways(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    flat = flatten(SAMPLES)
    plain = row_losses(model, flat, torch.float32)
    plain.sum().backward()
    expected = gradients(model)
    with fast_path(model):
        lean = row_losses(model, flat, torch.float32)
        lean.sum().backward()
    assert_same(gradients(model), expected)
    return lean, plain


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], ["down_proj", "k_proj"]])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral", "olmo2"])
def test_losses_and_gradients_equal_pefts(family: str, targets: str | list[str]) -> None:
    lean, plain = both_ways(adapted(family, targets=targets))
    torch.testing.assert_close(lean, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{"use_rslora": True}, {"use_dora": True}, {"lora_bias": True}])
def test_variants_too(changes: dict[str, object]) -> None:
    lean, plain = both_ways(adapted(**changes))
    torch.testing.assert_close(lean, plain, rtol=1e-5, atol=1e-5)


def test_parts_are_counted() -> None:
    with lean_layers(adapted()) as changed:
        # Two norms, attention, MLP and seven adapted layers each, and the last norm.
        assert changed == LAYERS * (4 + 7) + 1


def test_dropout_and_dora_keep_pefts_forward() -> None:
    for changes in ({"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}):
        layer = adapted(**changes).get_submodule("model.layers.0.mlp.up_proj")
        assert Projection.of(layer) is None
    plain = adapted().get_submodule("model.layers.0.mlp.up_proj")
    found = Projection.of(plain)
    assert found is not None
    assert found.scale == 3.0


def test_an_adapter_turned_off_is_not_there() -> None:
    model = adapted()
    layer = model.get_submodule("model.layers.0.mlp.up_proj")
    layer.enable_adapters(False)
    found = Projection.of(layer)
    assert found is not None
    assert found.a is None


def test_bf16_is_as_near_to_fp32_as_pefts() -> None:
    flat = flatten(SAMPLES)
    exact = row_losses(adapted(), flat, torch.float32)
    model = adapted(dtype=torch.bfloat16)
    peft = row_losses(model, flat, torch.bfloat16)
    with fast_path(model):
        lean = row_losses(model, flat, torch.bfloat16)
    assert (lean - exact).norm() < 1.5 * (peft - exact).norm() + 0.02


def test_less_is_kept_for_the_backward_pass() -> None:
    def kept(model: torch.nn.Module, lean: bool) -> int:
        sizes: dict[int, int] = {}

        def pack(x: torch.Tensor) -> torch.Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        context = fast_path(model) if lean else flat_attention(model)
        with context, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            row_losses(model, flatten(SAMPLES), torch.bfloat16)
            return sum(size for place, size in sizes.items() if place not in own)

    model = adapted(dtype=torch.bfloat16)
    assert kept(model, True) < 0.75 * kept(model, False)

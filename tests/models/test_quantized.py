"""A base in 4 or 8 bits: what a layer computes, its gradients, and that it stays that way."""

from pathlib import Path

import pytest
import torch
from small import small_model

from weitiao.errors import ModelError
from weitiao.models.load import find_model, load_model
from weitiao.models.quantized import is_quantized, require_bitsandbytes, weight_of
from weitiao.plan.recipe import Quantization

CPU = torch.device("cpu")
KINDS: tuple[Quantization, ...] = ("nf4", "int8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("bitsandbytes")
    made = tmp_path_factory.mktemp("small")
    small_model().save_pretrained(made)
    return made


def quantized(folder: Path, kind: Quantization, dtype: torch.dtype) -> torch.nn.Module:
    return load_model(find_model(str(folder)), dtype, CPU, quantization=kind)


def layer(folder: Path, kind: Quantization, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    found: torch.nn.Module = quantized(folder, kind, dtype).model.layers[1].mlp.gate_proj
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_trunks_linear_layers_are_quantised(folder: Path, kind: Quantization) -> None:
    model = quantized(folder, kind, torch.bfloat16)
    names = {name for name, module in model.named_modules() if is_quantized(module)}
    assert len(names) == 2 * 7
    assert not any("lm_head" in name or "embed" in name for name in names)
    whole = {p.dtype for n, p in model.named_parameters() if n.removesuffix(".weight") not in names}
    assert whole == {torch.bfloat16}
    plain = load_model(find_model(str(folder)), torch.bfloat16, CPU)
    assert model.get_memory_footprint() < plain.get_memory_footprint()
    assert not model.training


@pytest.mark.parametrize(("kind", "error"), [("nf4", 0.1), ("int8", 0.01)])
def test_the_weight_is_near_the_original(folder: Path, kind: Quantization, error: float) -> None:
    original = small_model().model.layers[1].mlp.gate_proj.weight.detach()
    found = weight_of(layer(folder, kind), torch.float32)
    assert found.shape == original.shape
    assert 0 < float((found - original).norm() / original.norm()) < error


def test_blocks_across_rows_are_refused_on_a_cpu(tmp_path: Path) -> None:
    """bitsandbytes 0.50 reads them wrong there: the error of the weights grows fourfold."""
    pytest.importorskip("bitsandbytes")
    small_model(hidden=32).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"q_proj.*32") as caught:
        quantized(tmp_path, "nf4", torch.float32)
    assert "train.qlora.bits=8" in caught.value.sentence("zh")
    quantized(tmp_path, "int8", torch.float32)


def test_a_plain_layer_gives_its_weight() -> None:
    plain = torch.nn.Linear(3, 5)
    assert weight_of(plain, torch.float32) is plain.weight
    assert weight_of(plain, torch.bfloat16).dtype == torch.bfloat16
    assert not is_quantized(plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_weight_of_is_what_bitsandbytes_computes_with(
    folder: Path, kind: Quantization, dtype: torch.dtype
) -> None:
    """Forward and backward of bitsandbytes' own layer as it trains, against the whole weight."""
    from bitsandbytes.nn import Linear8bitLt

    module = layer(folder, kind, dtype).train()
    torch.manual_seed(0)
    x, out = torch.randn(1, 6, 64, dtype=dtype), torch.randn(1, 6, 128, dtype=dtype)
    weight = weight_of(module, dtype)
    expected = x @ weight.T, out @ weight
    own = Linear8bitLt.forward if kind == "int8" else type(module).forward
    # bitsandbytes moves the scales when its own int8 layer is first called.
    for forward in (type(module).forward, own, type(module).forward):
        given = x.clone().requires_grad_()
        y = forward(module, given)
        y.backward(out)
        near = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
        torch.testing.assert_close(y, expected[0], **near)
        torch.testing.assert_close(given.grad, expected[1], **near)
        torch.testing.assert_close(weight_of(module, dtype), weight)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_between_two_steps_change_nothing(folder: Path, kind: Quantization) -> None:
    """bitsandbytes repacks 4-bit weights for answers on some CPUs, and loses their gradients."""
    module, x = layer(folder, kind), torch.randn(5, 64)

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        given = x.clone().requires_grad_()
        y = module.train()(given)
        y.square().sum().backward()
        assert given.grad is not None
        return y.detach(), given.grad

    before = step()
    with torch.no_grad():
        answered = module.eval()(x)
    # Not near, the same: the inputs of int8 layers are not quantised for answers either.
    torch.testing.assert_close(answered, before[0], rtol=1e-6, atol=1e-6)
    for one, two in zip(before, step(), strict=True):
        assert torch.equal(one, two)


def test_autocast_decides_the_type_of_int8_products(folder: Path) -> None:
    module = layer(folder, "int8", torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert module(torch.randn(4, 64)).dtype == torch.bfloat16


def test_missing_packages_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    require = "weitiao.models.quantized.find_spec"
    monkeypatch.setattr(require, lambda name: None if name == "bitsandbytes" else object())
    with pytest.raises(ModelError) as caught:
        require_bitsandbytes()
    for language in ("en", "zh"):
        sentence = caught.value.sentence(language)
        assert "bitsandbytes" in sentence
        assert "accelerate" not in sentence
        assert "pip install 'weitiao[quantized]'" in sentence


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_of_a_quantised_base_is_let_go_of(tmp_path: Path, kind: Quantization) -> None:
    pytest.importorskip("bitsandbytes")
    small_model().to(torch.bfloat16).save_pretrained(tmp_path)

    def mapped() -> bool:
        return f"{tmp_path}/" in Path("/proc/self/maps").read_text(encoding="utf-8")

    plain = load_model(find_model(str(tmp_path)), torch.bfloat16, CPU)
    assert mapped()
    del plain
    model = quantized(tmp_path, kind, torch.bfloat16)
    assert model.get_output_embeddings().weight.dtype == torch.bfloat16
    assert not mapped()

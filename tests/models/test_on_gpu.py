"""Every way that a CUDA GPU takes, on one: `make test-gpu`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from peft import PrefixTuningConfig, get_peft_model
from small import small_model
from test_cuda import BATCHES, KERNELS, SAMPLES, adapted, compare_with_reference
from test_flat import assert_same, families, gradients, with_beginning

from tiny import random_samples, tiny_model
from weitiao.models import graphs, varlen
from weitiao.models.flat import fast_path, flatten, row_losses
from weitiao.models.quantized import compute_exactly, quantization_config
from weitiao.models.reference import reference_loss
from weitiao.models.segments import Attending, attend, plain
from weitiao.records.render import Sample

pytestmark = pytest.mark.gpu

GPU = torch.device("cuda:0")


def on_gpu(model: Any) -> Any:
    return model.to(GPU)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("samples", [SAMPLES, with_beginning([1] * 5, 32), random_samples([4], 0)])
def test_both_kernels_mask_to_the_lower_right(samples: list[Sample], dtype: torch.dtype) -> None:
    """Flash attention for half precisions, the memory-efficient one for fp32 and old cards."""
    layout = flatten(samples)
    torch.manual_seed(1)
    shapes = (4, 16), (2, 16), (2, 16)
    exact = [torch.randn(layout.executed, *s, dtype=dtype).float() for s in shapes]
    given = torch.randn(layout.executed, 4, 16, dtype=dtype).float()
    inputs = [x.requires_grad_() for x in exact]
    expected = plain(inputs[0], inputs[1], inputs[2], Attending(layout.segments), 0.3)
    of_plain = torch.autograd.grad(expected, inputs, given)
    limit = 1e-5 if dtype == torch.float32 else 3 * torch.finfo(dtype).eps
    for flash in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not flash:
                patch.setattr(varlen, "has_flash", lambda x: False)
            inputs = [x.detach().to(GPU, dtype).requires_grad_() for x in exact]
            attending = Attending(layout.segments)
            found = attend(inputs[0], inputs[1], inputs[2], attending, 0.3)
            of_kernel = torch.autograd.grad(found, inputs, given.to(GPU, dtype))
        for a, b in zip((found, *of_kernel), (expected, *of_plain), strict=True):
            assert (a.float().cpu() - b).norm() < limit * b.norm()


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral", "olmo2"])
def test_fp32_on_a_gpu_agrees_with_rows_alone(family: str) -> None:
    compare_with_reference(on_gpu(tiny_model(family)), SAMPLES, torch.float32)


@settings(max_examples=25, deadline=None)
@given(samples=families())
def test_nested_beginnings_on_a_gpu(samples: list[Sample]) -> None:
    compare_with_reference(on_gpu(tiny_model()), samples, torch.float32)


def wide_model() -> Any:
    """Heads of 64, two for the keys: a shape that flash attention takes."""
    return small_model(256)


def step_on_gpu(
    model: Any, precision: torch.dtype, *, fast: bool = True, replay: Any = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    if fast:
        with fast_path(model):
            losses = row_losses(model, flatten(SAMPLES), precision, replay=replay)
            losses.sum().backward()
    else:
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            losses = torch.stack([reference_loss(model, s) for s in SAMPLES])
        losses.sum().backward()
    return losses.detach(), gradients(model)


def relative(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    far = sum(float((found[n].float() - g.float()).norm() ** 2) for n, g in exact.items())
    return float((far / sum(float(g.float().norm() ** 2) for g in exact.values())) ** 0.5)


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_to_fp32_as_transformers_is(
    precision: torch.dtype, flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, exact = step_on_gpu(on_gpu(adapted(wide_model())), torch.float32, fast=False)
    if not flash:
        monkeypatch.setattr(varlen, "has_flash", lambda x: False)
    model = on_gpu(adapted(wide_model().to(precision)))
    theirs, of_theirs = step_on_gpu(model, precision, fast=False)
    ours, of_ours = step_on_gpu(model, precision)
    assert (ours - losses).norm() < 2 * (theirs - losses).norm() + 0.02
    assert 0 < relative(of_ours, exact) < 1.5 * relative(of_theirs, exact) + 1e-3


def test_fp16_with_a_scaled_loss_on_a_gpu() -> None:
    _, exact = step_on_gpu(on_gpu(adapted(wide_model())), torch.float32, fast=False)
    model = on_gpu(adapted(wide_model().to(torch.float16)))
    scaler = torch.amp.GradScaler("cuda")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    with fast_path(model):
        losses = row_losses(model, flatten(SAMPLES), torch.float16)
        scaler.scale(losses.sum() / 50).backward()
    scaler.unscale_(optimizer)
    found = {n: 50 * g for n, g in gradients(model).items()}
    assert relative(found, exact) < 0.02


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_quantised_bases_on_a_gpu(kind: Any, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    wide_model().save_pretrained(tmp_path)
    config = quantization_config(kind, torch.float32)
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, quantization_config=config, dtype=torch.float32, device_map={"": 0}
    )
    compute_exactly(model)
    model = adapted(model)
    plain_losses, of_plain = step_on_gpu(model, torch.float32, fast=False)
    losses, of_fast = step_on_gpu(model, torch.float32)
    torch.testing.assert_close(losses, plain_losses, rtol=1e-4, atol=1e-4)
    assert relative(of_fast, of_plain) < 1e-3


def test_virtual_tokens_on_a_gpu() -> None:
    config = PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    model = get_peft_model(wide_model(), config)
    expected = row_losses(model, flatten(SAMPLES), torch.float32)
    expected.sum().backward()
    of_cpu = gradients(model)
    model = on_gpu(model)
    losses, of_gpu = step_on_gpu(model, torch.float32)
    torch.testing.assert_close(losses.cpu(), expected.detach(), rtol=1e-5, atol=1e-5)
    assert relative({n: g.cpu() for n, g in of_gpu.items()}, of_cpu) < 1e-4


def test_checkpointing_on_a_gpu_computes_the_same() -> None:
    model = on_gpu(adapted(wide_model().to(torch.bfloat16)))
    losses, expected = step_on_gpu(model, torch.bfloat16)
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    again, found = step_on_gpu(model, torch.bfloat16)
    assert torch.equal(losses, again)
    assert_same(found, expected, 1e-6)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_the_same_step_gives_the_same_bytes_on_a_gpu(precision: torch.dtype, full: bool) -> None:
    """Rows enough for the kernels' blocks to race for the same gradients, were they let to."""
    model = wide_model() if full else adapted(wide_model().to(precision))
    model, samples = on_gpu(model), with_beginning([60] * 40, 300)
    assert not torch.are_deterministic_algorithms_enabled()

    def step() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with fast_path(model):
            losses = row_losses(model, flatten(samples), precision)
            losses.sum().backward()
        return losses.detach(), gradients(model)

    losses, first = step()
    for _ in range(3):
        again, found = step()
        assert torch.equal(again, losses)
        assert all(torch.equal(found[n], g) for n, g in first.items())
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("full", [False, True])
def test_a_micro_step_on_a_gpu_waits_for_nothing(full: bool) -> None:
    model = on_gpu(wide_model() if full else adapted(wide_model().to(torch.bfloat16)))
    # Kernels are compiled and compared when they are first used.
    step_on_gpu(model, torch.bfloat16)
    with fast_path(model):
        torch.cuda.set_sync_debug_mode("error")
        try:
            row_losses(model, flatten(SAMPLES), torch.bfloat16).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_fused_kernels_compile_and_agree_on_a_gpu() -> None:
    step_on_gpu(on_gpu(adapted(wide_model().to(torch.bfloat16))), torch.bfloat16)
    for function, _ in KERNELS:
        assert function.works
        assert all(function.works.values()), function.code


def test_graphs_on_a_gpu_give_the_same_gradients_and_bytes() -> None:
    model = on_gpu(adapted(wide_model().to(torch.bfloat16)))
    told: list[str] = []

    def steps(replay: Any) -> list[dict[str, torch.Tensor]]:
        found = []
        for batches in (BATCHES, BATCHES[::-1], BATCHES[:2]):
            with fast_path(model):
                for batch in batches:
                    flat = flatten(batch)
                    losses = row_losses(model, flat, torch.bfloat16, replay=replay)
                    losses.sum().backward()
            found.append(gradients(model))
        return found

    def recorded() -> graphs.Graphs:
        return graphs.Graphs(model, torch.bfloat16, 4096, graphs.recorder(), told.append)

    first = recorded()
    expected, found, again, resumed = steps(None), steps(first), steps(first), steps(recorded())
    assert not told
    for i, exact in enumerate(expected):
        assert relative(found[i], exact) < 0.03
        assert all(torch.equal(again[i][n], g) for n, g in found[i].items())
        assert all(torch.equal(resumed[i][n], g) for n, g in found[i].items())

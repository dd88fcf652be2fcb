"""What runs on a CUDA GPU, as far as a computer without one can tell.

The same code runs on the CPU with the kernels stood in for by slow ones, or on
fake tensors, which have no values. What a GPU itself does is in `test_on_gpu.py`.
"""

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from test_flat import assert_same, families, gradients, with_beginning
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tiny import random_samples, tiny_model
from weitiao.models import fused, graphs, head, segments, varlen
from weitiao.models.flat import Flat, fast_path, flatten, row_losses
from weitiao.models.reference import reference_loss
from weitiao.models.segments import rotated
from weitiao.records.render import Sample

SAMPLES = with_beginning([7, 1, 20, 1], 24)


def looped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    gathered: varlen.Gathered,
    scale: float,
) -> torch.Tensor:
    """Attention as the kernels are told to compute it, a segment at a time."""
    starts_q, starts_k = (x.tolist() for x in gathered.arrays[:2])
    # What no segment covers is not a number, as memory is that a kernel never wrote.
    out = torch.full_like(query, torch.nan)
    for a, b, c, d in zip(starts_q, starts_q[1:], starts_k, starts_k[1:], strict=False):
        if a == b:
            continue
        assert b - a <= gathered.longest_q
        assert d - c <= gathered.longest_k
        mask = torch.ones(b - a, d - c, dtype=torch.bool).tril(d - c - (b - a))
        q, k, v = (x.transpose(0, 1) for x in (query[a:b], key[c:d], value[c:d]))
        part = torch.nn.functional.scaled_dot_product_attention(
            q[None], k[None], v[None], attn_mask=mask, scale=scale, enable_gqa=True
        )
        out = torch.cat([out[:a], part[0].transpose(0, 1), out[b:]])
    return out


@contextmanager
def kernels_stood_in_for() -> Iterator[None]:
    """Take a GPU's way on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "takes_varlen", lambda query: True)
        patch.setattr(varlen, "has_flash", lambda x: True)
        patch.setattr(varlen, "_Flash", SimpleNamespace(apply=looped))
        yield


def compare_with_reference(
    model: Any, samples: list[Sample], precision: torch.dtype, limit: float = 1e-5
) -> torch.Tensor:
    """Hold losses and gradients of the fast path to one row at a time."""
    expected = torch.stack([reference_loss(model, s) for s in samples])
    expected.sum().backward()
    of_reference = gradients(model)
    with fast_path(model):
        losses = row_losses(model, flatten(samples), precision)
        losses.sum().backward()
    torch.testing.assert_close(losses, expected, rtol=limit, atol=limit)
    assert_same(gradients(model), of_reference, limit)
    return losses.detach()


def adapted(model: Any, **changes: Any) -> Any:
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", **changes)
    torch.manual_seed(2)
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


@settings(max_examples=12, deadline=None)
@given(samples=families())
def test_what_the_kernels_are_told_is_right(samples: list[Sample]) -> None:
    with kernels_stood_in_for():
        compare_with_reference(tiny_model(), samples, torch.float32)


@pytest.mark.parametrize("family", ["qwen3", "olmo2"])
def test_so_it_is_for_lean_layers_and_for_others(family: str) -> None:
    with kernels_stood_in_for():
        compare_with_reference(tiny_model(family), SAMPLES, torch.float32)


def test_so_it_is_with_virtual_tokens() -> None:
    config = PrefixTuningConfig(num_virtual_tokens=5, task_type="CAUSAL_LM")
    model = get_peft_model(tiny_model(), config)

    def found() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        losses = row_losses(model, flatten(SAMPLES), torch.float32)
        losses.sum().backward()
        return losses, gradients(model)

    expected, of_cpu = found()
    with kernels_stood_in_for():
        losses, of_gpu = found()
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    assert_same(of_gpu, of_cpu)


class Ops(TorchDispatchMode):
    """Writes down what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen.append(func.overloadpacket)
        return func(*args, **(kwargs or {}))


def fake(array: Any) -> torch.Tensor:
    return torch.empty(array.shape, dtype=torch.from_numpy(array).dtype)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "olmo2"])
def test_a_micro_step_waits_for_no_value(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors have no values, so whatever asks for one raises.

    They are on the CPU but say that they are not: without CUDA none on a GPU can be sliced.
    """
    flat = flatten(SAMPLES)
    monkeypatch.setattr(FakeTensor, "is_cuda", property(lambda self: True), raising=False)
    monkeypatch.setattr(varlen, "has_flash", lambda x: True)
    monkeypatch.setattr(varlen, "sent", lambda arrays, device: [fake(x) for x in arrays])
    model = adapted(tiny_model(family).to(torch.bfloat16))
    with FakeTensorMode():
        for module in model.modules():
            for name, x in list(module.named_parameters(recurse=False)):
                empty = torch.empty(x.shape, dtype=x.dtype)
                setattr(module, name, torch.nn.Parameter(empty, requires_grad=x.requires_grad))
            for name, x in list(module.named_buffers(recurse=False)):
                setattr(module, name, torch.empty(x.shape, dtype=x.dtype))
        model.get_base_model().tie_weights()
        parts = flat.ids_T, flat.positions_T, flat.source_S, flat.target_S, flat.row_S
        ids, positions, *rest = (torch.empty(x.shape, dtype=x.dtype) for x in parts)
        given = Flat(ids, positions, flat.segments, *rest, flat.rows, flat.tokens)
        with fast_path(model.get_base_model()), Ops() as ops:
            row_losses(model, given, torch.bfloat16).sum().backward()
    aten = torch.ops.aten
    assert aten._flash_attention_forward in ops.seen
    assert aten._flash_attention_backward in ops.seen
    assert (aten._fused_rms_norm_backward in ops.seen) == (family != "olmo2")
    assert not {aten._local_scalar_dense, aten.nonzero, aten.index_add_} & set(ops.seen)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trained)


def test_turning_and_turning_back_are_each_others_gradient() -> None:
    x = torch.randn(9, 4, 8, requires_grad=True)
    angle = torch.randn(9, 1, 4).repeat(1, 1, 2)
    cos, sin, given = 1.1 * angle.cos(), 1.1 * angle.sin(), torch.randn(9, 4, 8)
    found = fused.rotated(x, cos, sin)
    (of_fused,) = torch.autograd.grad(found, x, given)
    expected = rotated(x, cos, sin)
    (of_plain,) = torch.autograd.grad(expected, x, given)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(of_fused, of_plain)


KERNELS = [(fused.swiglu, 2), (fused.swiglu_backward, 3), (fused.turned, 4)]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_code_of_kernels_computes_what_pytorch_does(tmp_path: Path) -> None:
    source, library = tmp_path / "kernels.cpp", tmp_path / "kernels.so"
    lines = ["#include <cmath>"]
    for number, (function, inputs) in enumerate(KERNELS):
        name = function.code.split("void ")[1].split("(")[0]
        places = [f"x[{i}]" for i in range(inputs)] + [f"y[{i}]" for i in range(function.outputs)]
        called = f"{name}<float>({', '.join(places)});"
        lines += [function.code, f'extern "C" void run{number}(float *x, float *y) {{ {called} }}']
    source.write_text("\n".join(lines))
    subprocess.run(["g++", "-shared", "-fPIC", "-o", library, source], check=True)
    for number, (function, inputs) in enumerate(KERNELS):
        run = getattr(ctypes.CDLL(str(library)), f"run{number}")
        x, y = 4 * torch.randn(50, inputs), torch.empty(50, function.outputs)
        for a, b in zip(x, y, strict=True):
            run(ctypes.c_void_p(a.data_ptr()), ctypes.c_void_p(b.data_ptr()))
        expected = torch.stack(function.eager(*x.T), dim=1)
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)


def test_a_kernel_that_is_not_right_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, up = torch.randn(2, 50)
    (right,) = fused.swiglu.eager(gate, up)
    answers: dict[str, Callable[..., Any]] = {
        "right": lambda *x: right,
        "wrong": lambda *x: right * 1.01,
        "wide": lambda *x: right.double(),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(fused, "_kernel", lambda code, outputs, answer=answer: answer)
        assert fused.swiglu._agrees((gate, up)) == (name == "right")

    def broken(code: str, outputs: int) -> Any:
        raise RuntimeError("no NVRTC here")

    monkeypatch.setattr(fused, "_kernel", broken)
    assert not fused.swiglu._agrees((gate, up))


def test_the_loss_without_a_second_pass_is_the_loss() -> None:
    logits, target = 40 * torch.randn(30, 97), torch.randint(97, (30, 1))
    probability, loss = head._softmax_from_top(logits, target)
    expected = -torch.log_softmax(logits.double(), 1)
    torch.testing.assert_close(loss.double(), expected.gather(1, target), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(probability.double(), (-expected).exp(), rtol=1e-4, atol=1e-7)


def test_fp16_keeps_the_small_probabilities_of_a_large_vocabulary() -> None:
    """A sure answer: each of the other 200,000 tokens has 2e-8, below what fp16 holds."""
    torch.manual_seed(0)
    hidden, weight = torch.zeros(1, 16), 0.1 * torch.randn(200_000, 16)
    hidden[0, 0], weight[:, 0], weight[:, 1], weight[0, 0] = 1.0, 0.0, 1.0, 17.7
    place = torch.zeros(1, dtype=torch.long)

    def gradient(dtype: torch.dtype) -> torch.Tensor:
        x = hidden.to(dtype).detach().requires_grad_()
        head.scored_loss(x, weight.to(dtype), place, place, place, 1).sum().backward()
        assert x.grad is not None
        return x.grad.float()

    exact = gradient(torch.float32)
    assert (gradient(torch.float16) - exact).norm() < 0.02 * exact.norm()


def run_of(run: graphs.Run) -> graphs.Run:
    """Stand in for recording: what a graph does is to run again."""

    def again() -> None:
        with torch.enable_grad():
            run()

    return again


def made(model: Any, told: list[str], record: Any = run_of, most: int = 4096) -> graphs.Graphs:
    return graphs.Graphs(model, torch.float32, most, record, told.append)


def step_of(
    model: Any, batches: list[list[Sample]], replay: Any
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Sum the gradients of several micro-batches, as an optimizer step does."""
    losses = []
    with fast_path(model):
        for batch in batches:
            found = row_losses(model, flatten(batch), torch.float32, replay=replay)
            found.sum().backward()
            losses.append(found.detach())
    return losses, gradients(model)


BATCHES = [
    SAMPLES,
    random_samples([30, 4], 1),
    with_beginning([3] * 9, 60, seed=8),
    with_beginning([9, 2, 2], 30, seed=4),
    random_samples([99, 40], 5),
]


def test_filled_up_micro_batches_give_the_same_gradients() -> None:
    model, told = adapted(tiny_model()), list[str]()
    expected = step_of(model, BATCHES, None)
    with kernels_stood_in_for():
        replay = made(model, told)
        for _ in range(2):
            found = step_of(model, BATCHES, replay)
            torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
            assert_same(found[1], expected[1])
    assert not told
    assert len(replay._made) < len(BATCHES)


def test_graphs_and_no_graphs_add_to_the_same_gradients() -> None:
    """A micro-batch that is too long for a graph, before or after one that is not."""
    model = adapted(tiny_model())
    for batches in (BATCHES, BATCHES[::-1]):
        expected = step_of(model, batches, None)
        with kernels_stood_in_for():
            found = step_of(model, batches, made(model, [], most=100))
        assert_same(found[1], expected[1])


def test_a_graph_that_cannot_be_recorded_or_is_wrong_is_told_and_not_used() -> None:
    def failing(run: graphs.Run) -> graphs.Run:
        raise RuntimeError("operation not permitted when stream is capturing")

    def idle(run: graphs.Run) -> graphs.Run:
        return lambda: None

    model = adapted(tiny_model())
    expected = step_of(model, BATCHES, None)
    for record, why in ((failing, "not permitted"), (idle, "something else")):
        told: list[str] = []
        with kernels_stood_in_for():
            found = step_of(model, BATCHES, made(model, told, record))
        assert_same(found[1], expected[1])
        assert len(told) == 1
        assert why in told[0]


def test_sizes_are_few_and_large_enough() -> None:
    sizes = set()
    for tokens in range(1000, 2400, 37):
        size, arrays = graphs.filled(flatten(random_samples([150] * 5 + [tokens], 0)).segments)
        starts_q, starts_k = arrays[:2]
        assert tokens + 750 < size.tokens == starts_q[-1]
        assert size.gathered == starts_k[-1] == len(arrays[2])
        assert len(starts_q) == size.segments + 1
        assert max(np.diff(starts_k)) <= size.longest
        sizes.add(size)
    assert len(sizes) < 10

"""Optimizers: what they decay, that they learn, and that making their state changes nothing."""

import sys
import warnings
from pathlib import Path
from typing import get_args

import pytest
import torch
from small_work import events, work

from weitiao.errors import TrainingError
from weitiao.plan.recipe import Optimizer
from weitiao.training.checkpoint import trained_parameters
from weitiao.training.loop import train
from weitiao.training.optimizers import allocate_state, make_optimizer

EVERY: tuple[Optimizer, ...] = get_args(Optimizer)


def optimizer_of(folder: Path, name: str, *more: str) -> tuple[torch.optim.Optimizer, dict]:
    if name not in ("adamw", "adafactor"):
        pytest.importorskip("bitsandbytes")
    job = work(folder, f"optimizer={name}", "method=full", "weight_decay=0.1", *more)
    trained = trained_parameters(job.model)
    return make_optimizer(trained, job.plan), trained


@pytest.mark.filterwarnings("error:Paged")
@pytest.mark.parametrize("name", EVERY)
def test_making_the_state_changes_no_weight_and_no_step(tmp_path: Path, name: str) -> None:
    """One training whose state was made beforehand and one whose was not are the same."""
    found = []
    for ready in (True, False):
        optimizer, trained = optimizer_of(tmp_path, name)
        before = {key: p.detach().clone() for key, p in trained.items()}
        if ready:
            allocate_state(optimizer)
            assert all(torch.equal(before[key], p) for key, p in trained.items())
            assert all(p.grad is None for p in trained.values())
            assert len(optimizer.state) == len(trained)
            assert {group["lr"] for group in optimizer.param_groups} == {0.01}
        torch.manual_seed(5)
        with warnings.catch_warnings(action="ignore"):
            for _ in range(3):
                for p in trained.values():
                    p.grad = torch.randn_like(p)
                optimizer.step()
        assert all(not torch.equal(before[key], p) for key, p in trained.items())
        found.append(trained)
    assert all(torch.equal(p, found[1][key]) for key, p in found[0].items())


@pytest.mark.filterwarnings("ignore:Paged")
@pytest.mark.parametrize("name", EVERY)
def test_matrices_are_decayed_and_norms_are_not(tmp_path: Path, name: str) -> None:
    optimizer, trained = optimizer_of(tmp_path, name)
    before = {key: p.detach().clone() for key, p in trained.items()}
    for p in trained.values():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for key, p in trained.items():
        expected = before[key] * (1 - 0.01 * 0.1) if p.ndim >= 2 else before[key]
        assert torch.allclose(p, expected, rtol=1e-6, atol=0), key


@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_learns(tmp_path: Path, name: str) -> None:
    if name not in ("adamw", "adafactor"):
        pytest.importorskip("bitsandbytes")
    rate = 0.003 if name == "adafactor" else 0.01
    job = work(tmp_path, f"optimizer={name}", "method=full", "epochs=3", f"learning_rate={rate}")
    train(job)
    losses = [event.data["loss"] for event in events(job.run, "train.step")]
    assert losses[-1] < losses[0] - 0.15, losses


def test_adafactor_moves_weights_that_begin_at_zero(tmp_path: Path) -> None:
    """LoRA's B is zero at first: a rate that depends on a weight's size would leave it there."""
    job = work(tmp_path, "optimizer=adafactor", "epochs=1")
    train(job)
    moved = [p for name, p in trained_parameters(job.model).items() if "lora_B" in name]
    assert min(p.abs().max().item() for p in moved) > 1e-3


def test_ia3_is_not_decayed(tmp_path: Path) -> None:
    job = work(tmp_path, "method=ia3", "weight_decay=0.1")
    optimizer = make_optimizer(trained_parameters(job.model), job.plan)
    assert optimizer.param_groups[0]["params"] == []


def test_without_bitsandbytes_one_sentence_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    job = work(tmp_path, "optimizer=adamw_8bit")
    with pytest.raises(TrainingError, match=r"adamw_8bit.*pip install 'weitiao\[quantized\]'"):
        train(job)
    assert not job.run.events.exists(), "before anything was begun"

"""Too little memory: smaller micro-batches, the same steps, nothing lost."""

import mmap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_work import LENGTHS, SAMPLES, events, weights, work

from weitiao.errors import TrainingError
from weitiao.models.flat import Flat, row_losses
from weitiao.models.short_memory import short_of_memory
from weitiao.training import step as step_module
from weitiao.training.loop import train
from weitiao.training.memory import memory_now, peak_memory
from weitiao.training.team import Team
from weitiao.training.work import begin

SHORT = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    RuntimeError("std::bad_alloc"),
    MemoryError(),
)


def no_room(over: int, error: BaseException, calls: list[int]) -> Callable[..., torch.Tensor]:
    """Return row_losses on a machine with room for ``over`` tokens."""

    def limited(model: Any, flat: Flat, precision: torch.dtype, **options: Any) -> torch.Tensor:
        calls.append(flat.executed)
        losses = row_losses(model, flat, precision, **options)
        if flat.executed > over:
            raise error
        return losses

    return limited


@pytest.mark.parametrize("error", SHORT)
def test_the_preflight_halves_the_budget_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    assert short_of_memory(error)
    calls: list[int] = []
    monkeypatch.setattr(step_module, "row_losses", no_room(60, error, calls))
    job = work(tmp_path, "max_steps=2")
    train(job)
    told = [e.data["micro_batch_tokens"] for e in events(job.run, "train.shrunk")]
    assert told
    assert max(LENGTHS) <= told[-1] <= 60
    tried = len(told) + 1
    assert calls[0] == max(calls), "the largest comes first"
    assert max(calls[tried:]) <= 60, "and no step fails after it"


def test_a_step_that_runs_out_of_memory_is_taken_again_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the smaller micro-batches had been asked for from that step on; dropout too."""
    asked = ("train.lora.dropout=0.2", "micro_batch_tokens=80")
    short = work(tmp_path / "short", *asked)
    calls: list[int] = []

    def later(*given: Any, **options: Any) -> torch.Tensor:
        losses = row_losses(*given, **options)
        if short.run.checkpoints() and short.run.checkpoints()[-1][0] == 3:
            calls.append(given[1].executed)
            # After a micro-batch of step 4 has left its gradients.
            if len(calls) == 2:
                raise SHORT[0]
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "row_losses", later)
        train(short)
    (told,) = events(short.run, "train.shrunk")
    budget = told.data["micro_batch_tokens"]
    assert told.data == {"step": 4, "micro_batch_tokens": budget}
    assert max(calls[2:]) <= budget < calls[1]
    # The same by hand: three steps with all the room, the others with the smaller budget.
    by_hand = work(tmp_path / "by_hand", *asked, "keep_checkpoints=9")
    train(by_hand)
    for number, folder in by_hand.run.checkpoints():
        if number > 3:
            folder.rename(tmp_path / folder.name)
    by_hand = work(tmp_path / "by_hand", asked[0], f"micro_batch_tokens={budget}")
    train(by_hand)
    assert weights(by_hand.run) == weights(short.run)
    steps = [event.data["step"] for event in events(short.run, "train.step")]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert train(work(tmp_path / "short", *asked)).micro_batch_tokens == budget, "kept for a resume"


def test_a_row_too_large_for_memory_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_module, "row_losses", no_room(0, SHORT[0], []))
    with pytest.raises(TrainingError, match=str(max(LENGTHS))):
        train(work(tmp_path))


@pytest.mark.parametrize("numbers", [[3], []])
def test_a_row_too_large_is_told_where_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: list[int]
) -> None:
    """In the midst of a layer nobody can be asked: also of a row that counts for nothing."""
    engine = begin(work(tmp_path))
    ((_, flat),) = engine.cut(SAMPLES, [3])
    engine.work = replace(engine.work, team=Team(0, 2, "fsdp"))
    monkeypatch.setattr(step_module, "row_losses", no_room(0, SHORT[0], []))
    with pytest.raises(TrainingError, match=f"one row of {LENGTHS[3]} tokens"):
        step_module._backward(engine, 0, 0, (numbers, flat), 1)


def test_other_errors_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not short_of_memory(error)
    monkeypatch.setattr(step_module, "row_losses", no_room(0, error, []))
    with pytest.raises(RuntimeError, match="mat1"):
        train(work(tmp_path))


def test_the_largest_micro_batch_is_a_real_one(tmp_path: Path) -> None:
    """Not copies of the longest row: those could be more, or less, than any that comes."""
    engine = begin(work(tmp_path, "micro_batch_tokens=40"))
    numbers, flat = step_module._largest(engine)
    real = [micro for step in range(3) for micro in engine.micro_batches(step)]
    assert sorted(numbers) in [sorted(found) for found, _ in real]
    assert flat.executed == max(found.executed for _, found in real)
    assert flat.tokens == sum(len(SAMPLES[i].ids) for i in numbers)


def test_after_the_preflight_memory_is_as_full_as_it_will_be_and_nothing_else_is_kept(
    tmp_path: Path,
) -> None:
    engine = begin(work(tmp_path))
    before = {name: p.detach().clone() for name, p in engine.state.trained.items()}
    step_module.preflight(engine)
    for name, parameter in engine.state.trained.items():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])
        assert engine.state.optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_memory_is_counted_in_bytes() -> None:
    now, cpu = memory_now(torch.device("cpu")), torch.device("cpu")
    assert 50 << 20 < now <= peak_memory(cpu) * 1.01
    # Straight from the system: the allocator might give what was freed before.
    with mmap.mmap(-1, 40 << 20) as held:
        for page in range(0, len(held), 4096):
            held[page] = 1
        assert memory_now(cpu) - now == pytest.approx(len(held), rel=0.2)

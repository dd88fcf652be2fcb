"""The loop: exact steps, resume to the same bytes, and stopping in time."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import random_samples, tiny_model
from weitiao.errors import TrainingError
from weitiao.events import Event, EventLog, read_events
from weitiao.models.adapters import add_lora, transformers_model
from weitiao.models.reference import reference_loss
from weitiao.plan.machine import probe
from weitiao.plan.plan import make_plan
from weitiao.plan.recipe import load_recipe
from weitiao.plan.shape import ModelShape
from weitiao.records.record import Origin
from weitiao.runs import Run
from weitiao.training.batches import samples_of_step
from weitiao.training.loop import Work, make_optimizer, train
from weitiao.training.schedule import learning_rate

LENGTHS = [int(n) for n in np.random.default_rng(0).integers(4, 30, 22)]
SAMPLES = random_samples(LENGTHS, 1)
VALIDATION = random_samples([9, 14, 20], 2)
ORIGINS = [Origin("rows.jsonl", i + 1) for i in range(len(SAMPLES))]


def work(folder: Path, *overrides: str, **changes: Any) -> Work:
    overrides = tuple(o.replace("patience", "early_stopping_patience") for o in overrides)
    base = tiny_model(tied=changes.pop("tied", True))
    asked = load_recipe(
        None,
        [
            "epochs=2", "train.batch_size=8", "learning_rate=0.01", "eval_every=2", "save_every=1",
            "precision=fp32", "train.device=cpu", "early_stopping_patience=0", "rank=4", *overrides,
        ],
    )  # fmt: skip
    plan = make_plan(
        asked,
        ModelShape.from_config(base.config.to_dict()),
        np.array(LENGTHS),
        np.array([int(s.scored.sum()) for s in SAMPLES]),
        probe(folder),
    )
    plan = plan.model_copy(update=changes.pop("plan", {}))
    model = base
    if plan.method == "lora":
        model = add_lora(
            base, rank=4, alpha=8, dropout=plan.lora_dropout, targets="all-linear", seed=3
        )
    folder.mkdir(exist_ok=True)
    run = Run(folder)
    made = Work(
        model, plan, SAMPLES, VALIDATION, ORIGINS, run, EventLog(run.events), lambda _: None
    )
    return replace(made, **changes)


def weights(run: Run) -> bytes:
    folder = run.adapter if run.adapter.exists() else run.model
    return next(folder.glob("*.safetensors")).read_bytes()


def events(run: Run, kind: str) -> list[Event]:
    return [event for event in read_events(run.events) if event.kind == kind]


def test_a_step_is_the_step_of_the_plain_reference(tmp_path: Path) -> None:
    """Two optimizer steps over packed micro-batches equal AdamW over one row at a time."""
    fast = work(tmp_path, "max_steps=2", "micro_batch_tokens=40", "train.lora.dropout=0")
    train(fast)
    slow = work(tmp_path / "plain", "max_steps=2")
    model, plan = transformers_model(slow.model), slow.plan
    optimizer = make_optimizer(model, plan)
    for step in range(2):
        chosen = samples_of_step(len(SAMPLES), plan.batch_size, plan.seed, step)
        scored = sum(int(SAMPLES[i].scored.sum()) for i in chosen)
        for i in chosen:
            (reference_loss(model, SAMPLES[i]) / scored).backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 2, plan.warmup_steps, plan.learning_rate)
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    trained = dict(transformers_model(fast.model).named_parameters())
    before = dict(transformers_model(work(tmp_path / "new").model).named_parameters())
    moved = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name in moved:
        plain = model.get_parameter(name) - before[name]
        # AdamW divides by the gradient's own size, which makes rounding noise visible.
        assert (trained[name] - before[name] - plain).norm() < 1e-2 * plain.norm(), name
    assert events(fast.run, "train.step")[0].data["grad_norm"] > 0


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_falls_and_the_best_weights_are_kept(tmp_path: Path, method: str) -> None:
    # A pattern that can be learnt: every row says one token again and again.
    rows = [replace(s, ids=np.full_like(s.ids, 7)) for s in SAMPLES]
    job = work(tmp_path, f"method={method}", "epochs=20", "learning_rate=0.03", train=rows)
    progress = train(job)
    steps = [event.data["loss"] for event in events(job.run, "train.step")]
    # An adapter cannot go far here: the random head keeps every logit under 0.7.
    assert steps[-1] < steps[0] - 0.1
    looks = {e.data["step"]: e.data["loss"] for e in events(job.run, "train.eval")}
    assert progress.best_loss == pytest.approx(min(looks.values()), abs=1e-5)
    assert looks[progress.best_step] == min(looks.values())
    assert job.run.stage_done("train")


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


@pytest.mark.parametrize("killed_at", [1, 3, 5])
@pytest.mark.parametrize(
    "overrides",
    [("train.lora.dropout=0.2",), ("precision=bf16", "train.lora.dropout=0.1"), ("method=full",)],
)
def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, killed_at: int, overrides: tuple[str, ...]
) -> None:
    whole = work(tmp_path / "whole", *overrides)
    train(whole)

    def kill(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == killed_at:
            raise Killed

    folder = tmp_path / "killed"
    doomed = work(folder, *overrides, events=EventLog(None, (kill,)))
    with pytest.raises(Killed):
        train(doomed)
    resumed = work(folder, *overrides)
    progress = train(resumed)
    assert weights(resumed.run) == weights(whole.run)
    assert progress.step == whole.plan.steps
    if killed_at > 1:
        assert events(resumed.run, "train.resumed")[0].data["step"] == killed_at - 1


def test_twice_the_same_recipe_is_twice_the_same_bytes(tmp_path: Path) -> None:
    runs = [work(tmp_path / name, "max_steps=3") for name in ("a", "b", "c")]
    train(runs[0])
    train(runs[1])
    train(replace(runs[2], plan=runs[2].plan.model_copy(update={"seed": 7})))
    assert weights(runs[0].run) == weights(runs[1].run) != weights(runs[2].run)


def test_a_loss_that_is_no_number_stops_with_step_and_rows(tmp_path: Path) -> None:
    job = work(tmp_path, "max_steps=4", tied=False)
    chosen = samples_of_step(len(SAMPLES), 8, job.plan.seed, 2)
    poison, clean = chosen[3], job.train
    spoilt = replace(clean[poison], ids=np.full_like(clean[poison].ids, 96))
    with torch.no_grad():
        transformers_model(job.model).get_input_embeddings().weight[96] = float("nan")
    others = [replace(s, ids=np.minimum(s.ids, 95)) for s in clean]
    others[poison] = spoilt
    held_out = [replace(s, ids=np.minimum(s.ids, 95)) for s in VALIDATION]
    with pytest.raises(TrainingError, match=rf"rows\.jsonl:{poison + 1}\b") as caught:
        train(replace(job, train=others, validation=held_out))
    assert caught.value.values["step"] == 3
    assert caught.value.values["rows"] == f"rows.jsonl:{poison + 1}"
    assert job.run.checkpoints()[-1][0] == 2, "the last good state is kept"


def test_early_stopping_waits_for_its_patience(tmp_path: Path) -> None:
    job = work(tmp_path, "epochs=40", "learning_rate=0.2", "eval_every=1", "patience=3")
    progress = train(job)
    assert progress.stopped_early
    assert progress.step < job.plan.steps
    assert progress.step == progress.best_step + 3


def test_without_validation_rows_the_last_weights_are_kept(tmp_path: Path) -> None:
    job = work(tmp_path, "max_steps=3", validation=[])
    assert train(job).best_loss is None
    assert job.run.stage_done("train")


def test_too_little_memory_halves_the_budget_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weitiao.training import loop

    real = loop.row_losses

    def short_of_memory(model: Any, flat: Any, precision: torch.dtype) -> torch.Tensor:
        if len(flat.ids_T) > 60:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(model, flat, precision)

    monkeypatch.setattr(loop, "row_losses", short_of_memory)
    job = work(tmp_path, "max_steps=2")
    train(job)
    told = [e.data["micro_batch_tokens"] for e in events(job.run, "train.shrunk")]
    assert told
    assert told[-1] <= 60


def test_a_row_too_large_for_memory_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("weitiao.training.loop.row_losses", never)
    with pytest.raises(TrainingError, match=str(max(LENGTHS))):
        train(work(tmp_path))


def test_a_samples_batch_is_the_same_whatever_the_budget() -> None:
    orders = [samples_of_step(22, 8, 42, step) for step in range(6)]
    assert [len(o) for o in orders] == [8, 8, 6, 8, 8, 6]
    for epoch in (orders[:3], orders[3:]):
        assert sorted(chain.from_iterable(epoch)) == list(range(22))
    assert orders[:3] != orders[3:]


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    jobs = [
        work(tmp_path / str(on), "max_steps=3", f"gradient_checkpointing={on}")
        for on in ("true", "false")
    ]
    assert jobs[0].plan.gradient_checkpointing == "full"
    for job in jobs:
        train(job)
    losses = [[e.data["loss"] for e in events(job.run, "train.step")] for job in jobs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert weights(jobs[0].run) == weights(jobs[1].run)


def test_the_schedule_rises_and_falls() -> None:
    rates = [learning_rate(step, 100, 10, 1.0) for step in range(100)]
    assert rates[10] == max(rates) == 1.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[0] > 0
    assert rates[-1] < 0.001


def test_checkpoints_hold_no_pickles(tmp_path: Path) -> None:
    job = work(tmp_path, "max_steps=1")
    train(job)
    names = {file.name for _, folder in job.run.checkpoints() for file in folder.iterdir()}
    assert names == {"state.json", "tensors.safetensors"}
    config = json.loads((job.run.adapter / "adapter_config.json").read_text())
    assert config["r"] == 4

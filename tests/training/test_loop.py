"""The loop: exact steps, resume to the same bytes, and stopping in time."""

from dataclasses import replace
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from small_work import LENGTHS, SAMPLES, VALIDATION, events, weights, work

from weitiao.errors import TrainingError
from weitiao.models.adapters import transformers_model
from weitiao.models.reference import reference_loss
from weitiao.training.batches import samples_of_step
from weitiao.training.checkpoint import trained_parameters
from weitiao.training.loop import train
from weitiao.training.optimizers import make_optimizer
from weitiao.training.schedule import learning_rate
from weitiao.training.step import seed_of
from weitiao.training.work import begin


def test_a_step_is_the_step_of_the_plain_reference(tmp_path: Path) -> None:
    """Two optimizer steps over packed micro-batches equal AdamW over one row at a time."""
    fast = work(tmp_path, "max_steps=2", "micro_batch_tokens=40", "train.lora.dropout=0")
    train(fast)
    slow = work(tmp_path / "plain", "max_steps=2")
    model, plan = transformers_model(slow.model), slow.plan
    optimizer = make_optimizer(trained_parameters(model), plan)
    for step in range(2):
        chosen = samples_of_step(len(SAMPLES), plan.batch_size, plan.seed, step)
        scored = sum(int(SAMPLES[i].scored.sum()) for i in chosen)
        for i in chosen:
            (reference_loss(model, SAMPLES[i]) / scored).backward()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step)
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
    rhythm = ("epochs=15", "eval_every=9", "save_every=99", "learning_rate=0.03")
    job = work(tmp_path, f"method={method}", *rhythm, train=rows)
    progress = train(job)
    steps = [event.data["loss"] for event in events(job.run, "train.step")]
    # An adapter cannot go far here: the random head keeps every logit under 0.7.
    assert steps[-1] < steps[0] - 0.1
    looks = {e.data["step"]: e.data["loss"] for e in events(job.run, "train.eval")}
    assert progress.best_loss == pytest.approx(min(looks.values()), abs=1e-5)
    assert looks[progress.best_step] == min(looks.values())
    assert job.run.stage_done("train")


def test_twice_the_same_recipe_is_twice_the_same_bytes(tmp_path: Path) -> None:
    drawing = ("max_steps=3", "train.lora.dropout=0.2", "neftune_alpha=5", "share_prefixes=false")
    runs = [work(tmp_path / name, *drawing) for name in ("a", "b", "c")]
    train(runs[0])
    train(runs[1])
    train(replace(runs[2], plan=runs[2].plan.model_copy(update={"seed": 7})))
    assert weights(runs[0].run) == weights(runs[1].run) != weights(runs[2].run)


def test_every_micro_batch_draws_its_own_random_numbers() -> None:
    places = list(product((0, 42), range(20), range(5), range(3)))
    seeds = [seed_of(*place) for place in places]
    assert len(set(seeds)) == len(places)
    assert seeds == [seed_of(*place) for place in places]
    torch.manual_seed(max(seeds))


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


def test_a_samples_batch_is_the_same_whatever_the_budget() -> None:
    orders = [samples_of_step(22, 8, 42, step) for step in range(6)]
    assert [len(o) for o in orders] == [8, 8, 6, 8, 8, 6]
    for epoch in (orders[:3], orders[3:]):
        assert sorted(chain.from_iterable(epoch)) == list(range(22))
    assert orders[:3] != orders[3:]


@pytest.mark.parametrize("kept", ["selective", "full"])
def test_gradient_checkpointing_changes_nothing(tmp_path: Path, kept: str) -> None:
    jobs = [
        work(tmp_path / how, "max_steps=3", f"gradient_checkpointing={how}")
        for how in (kept, "off")
    ]
    for job in jobs:
        train(job)
    layers = transformers_model(jobs[0].model).get_decoder().layers
    assert [layer.gradient_checkpointing for layer in layers] == [True, kept == "full"]
    assert weights(jobs[0].run) == weights(jobs[1].run)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_rises_and_then_does_as_the_schedule_says(tmp_path: Path, schedule: str) -> None:
    plan = work(tmp_path, f"schedule={schedule}").plan
    plan = plan.model_copy(update={"steps": 100, "warmup_steps": 10, "learning_rate": 1.0})
    rates = [learning_rate(plan, step) for step in range(100)]
    assert rates[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert rates[10] == max(rates) == 1.0
    middle, last = {"cosine": (0.5, 0.0003), "linear": (0.5, 1 / 90), "constant": (1, 1)}[schedule]
    assert rates[55] == pytest.approx(middle)
    assert rates[99] == pytest.approx(last, rel=0.05)


def test_a_step_tells_all_that_is_asked_of_it(tmp_path: Path) -> None:
    job = work(tmp_path, "micro_batch_tokens=40")
    progress = train(job)
    steps = [event.data for event in events(job.run, "train.step")]
    for step, told in enumerate(steps):
        chosen = samples_of_step(len(SAMPLES), 8, job.plan.seed, step)
        assert told["tokens"] == sum(LENGTHS[i] for i in chosen)
        assert told["scored_tokens"] == sum(int(SAMPLES[i].scored.sum()) for i in chosen)
        assert 0 < told["executed_tokens"] <= told["tokens"]
        assert told["executed_per_second"] <= told["tokens_per_second"]
        assert told["memory_bytes"] > 1 << 20
    assert sum(told["tokens"] for told in steps) == progress.tokens == 2 * sum(LENGTHS)
    preflight = events(job.run, "train.preflight")
    assert preflight[0].data["tokens"] >= max(LENGTHS)


def test_the_time_left_is_that_of_recent_steps_and_of_looks(tmp_path: Path) -> None:
    engine = begin(work(tmp_path, "eval_every=4", plan={"steps": 110}))
    # Of the last twenty, four were slowed down by something else.
    engine.recent.extend([60.0] * 80 + [2.0] * 8 + [40.0] * 4 + [2.0] * 8)
    engine.look_seconds, engine.progress.step = 5.0, 100
    assert engine.eta() == 10 * 2.0 + 4 * 5.0, "after 100 (still to come), 104, 108 and the last"
    engine.progress.step = 101
    assert engine.eta() == 9 * 2.0 + 3 * 5.0


def test_the_last_weights_are_kept_beside_the_best(tmp_path: Path) -> None:
    job = work(tmp_path, "epochs=40", "learning_rate=0.2", "eval_every=1", "patience=3")
    progress = train(job)
    assert progress.best_step < progress.step
    name = "adapter_model.safetensors"
    last = load_file(job.run.adapter.with_name("adapter-last") / name)
    best = load_file(job.run.adapter / name)
    now = get_peft_model_state_dict(job.model)
    assert all(torch.equal(last[key], now[key]) for key in now)
    assert any(not torch.equal(best[key], now[key]) for key in now)
    other = work(tmp_path / "falling", "max_steps=2")
    train(other)
    assert not other.run.adapter.with_name("adapter-last").exists(), "the last are the best"


def test_smoothing_and_noise_are_for_training_alone(tmp_path: Path) -> None:
    """The loss that is trained on changes; the validation loss before a step does not."""
    still = ("max_steps=1", "learning_rate=1e-9", "share_prefixes=false")
    jobs = [
        work(tmp_path / str(n), *still, *extra)
        for n, extra in enumerate([(), ("label_smoothing=0.2",), ("neftune_alpha=5",)])
    ]
    for job in jobs:
        train(job)
    plain, smooth, noisy = (events(job.run, "train.step")[0].data["loss"] for job in jobs)
    assert abs(smooth - plain) > 1e-3
    assert abs(noisy - plain) > 1e-5
    looks = [events(job.run, "train.eval")[0].data["loss"] for job in jobs]
    assert looks[0] == looks[1] == looks[2]


def test_fp16_is_scaled_and_a_step_that_overflows_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = work(tmp_path / "plain")
    train(plain)
    # As it would be after some thousands of steps without an overflow.
    monkeypatch.setattr(torch.amp, "GradScaler", partial(torch.amp.GradScaler, init_scale=2.0**28))
    half = work(tmp_path / "half", plan={"precision": "fp16"})
    train(half)
    told = [event.data for event in events(half.run, "train.rescaled")]
    assert len(told) > 3
    assert [t["scale"] for t in told] == [2.0 ** (27 - n) for n in range(len(told))]
    losses = [[e.data["loss"] for e in events(job.run, "train.step")] for job in (plain, half)]
    assert len(losses[1]) == 6, "no step is left out"
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_fp16_that_no_scale_helps_stops(tmp_path: Path) -> None:
    job = work(tmp_path, "max_steps=1", plan={"precision": "fp16"})
    parameter = next(iter(trained_parameters(job.model).values()))
    parameter.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(TrainingError, match=r"step 1 .*rows\.jsonl:"):
        train(job)
    assert len(events(job.run, "train.rescaled")) == 16

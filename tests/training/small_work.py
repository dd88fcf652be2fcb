"""A training of a second on a model of a few thousand weights, changed as a test needs it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tiny import random_samples, tiny_model
from weitiao.events import Event, EventLog, read_events
from weitiao.models.adapters import add_adapter
from weitiao.plan.machine import probe
from weitiao.plan.plan import make_plan
from weitiao.plan.recipe import load_recipe
from weitiao.plan.shape import ModelShape
from weitiao.records.record import Origin
from weitiao.runs import Run
from weitiao.training.loop import Work

LENGTHS = [int(n) for n in np.random.default_rng(0).integers(4, 30, 22)]
SAMPLES = random_samples(LENGTHS, 1)
VALIDATION = random_samples([9, 14, 20], 2)
ORIGINS = [Origin("rows.jsonl", i + 1) for i in range(len(SAMPLES))]


def work(folder: Path, *overrides: str, **changes: Any) -> Work:
    """Return a training of 6 steps; ``plan=`` changes single values of its plan."""
    overrides = tuple(o.replace("patience", "early_stopping_patience") for o in overrides)
    base = tiny_model(tied=changes.pop("tied", True))
    asked = load_recipe(
        None,
        [
            "epochs=2", "train.batch_size=8", "learning_rate=0.01", "eval_every=2", "save_every=1",
            "precision=fp32", "train.device=cpu", "early_stopping_patience=0", "rank=4",
            "train.processes=1", *overrides,
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
    model = (base if plan.method == "full" else add_adapter(base, plan)).to(plan.device)
    folder.mkdir(exist_ok=True)
    run = Run(folder)
    events = EventLog(run.events)
    made = Work(model, plan, SAMPLES, VALIDATION, ORIGINS, run, events, lambda _: None)
    return replace(made, **changes)


def weights(run: Run) -> bytes:
    """Return the file of the best weights."""
    folder = run.adapter if run.adapter.exists() else run.model
    return next(folder.glob("*.safetensors")).read_bytes()


def events(run: Run, kind: str) -> list[Event]:
    """Return the run's events of a kind."""
    return [event for event in read_events(run.events) if event.kind == kind]

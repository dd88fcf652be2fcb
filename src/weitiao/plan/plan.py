"""The plan: what will be done on this machine, predicted, with the reason for each setting."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from weitiao.errors import PlanError, RunError
from weitiao.plan import cost
from weitiao.plan.cost import Rates
from weitiao.plan.fit import Rows
from weitiao.plan.machine import Machine
from weitiao.plan.problems import problems_of, warnings_of
from weitiao.plan.recipe import (
    Checkpointing,
    Device,
    Method,
    Objective,
    Optimizer,
    Precision,
    Quantization,
    Recipe,
    Schedule,
    Strategy,
    Tracker,
)
from weitiao.plan.rules import Reason, forked, general_questions, rows_by_heart
from weitiao.plan.settle import Settled
from weitiao.plan.shape import ModelShape
from weitiao.records.files import write_atomic


class Predicted(BaseModel):
    """What the run is expected to take; ``tokens_per_second`` while training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    peak_memory_bytes: int
    train_seconds: float
    eval_seconds: float
    tokens_per_second: float


class Plan(BaseModel):
    """Every setting of a run, concrete. Rows, tokens and longest row are those of training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    shape: ModelShape
    machine: Machine
    rows: int
    tokens_per_epoch: int
    scored_per_epoch: int
    longest_row: int

    objective: Objective
    method: Method
    device: Device
    precision: Precision
    batch_size: int
    micro_batch_tokens: int
    gradient_checkpointing: Checkpointing
    share_prefixes: bool
    cuda_graphs: bool
    optimizer: Optimizer
    learning_rate: float
    schedule: Schedule
    epochs: int
    steps_per_epoch: int
    steps: int
    warmup_ratio: float
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    label_smoothing: float
    neftune_alpha: float
    eval_every: int
    save_every: int
    keep_checkpoints: int
    early_stopping_patience: int
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    lora_targets: Literal["all-linear"] | tuple[str, ...]
    lora_rslora: bool
    lora_dora: bool
    lora_init: Literal["default", "pissa"]
    quantization: Quantization
    prefix_tokens: int
    processes: int = 1
    strategy: Strategy
    zero_stage: Literal[2, 3] = 2
    trackers: tuple[Tracker, ...]
    max_tokens: int
    max_new_tokens: int
    eval_batch_size: int
    seed: int

    reasons: dict[str, Reason]
    predicted: Predicted
    fits: bool
    problems: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()
    remedies: tuple[Reason, ...] = ()

    @property
    def forked(self) -> bool:
        """Whether the processes are made from one, and share its weights."""
        return forked(self.machine, self.device, self.processes, self.strategy)

    def settled(self) -> list[str]:
        """Return the names of the settings that have a reason and a part in this method."""
        adapted = self.method in ("lora", "qlora")
        foreign = {
            "lora_": not adapted,
            "prefix_": self.method != "prefix",
            "quantization": self.method != "qlora",
            "strategy": self.processes == 1,
            "zero_": self.processes == 1 or self.strategy != "deepspeed",
        }
        return [
            name
            for name in type(self).model_fields
            if name in self.reasons
            and not any(off and name.startswith(part) for part, off in foreign.items())
        ]

    def require_fit(self) -> None:
        """Raise what keeps the plan from being carried out, and what would help.

        Raises:
            PlanError: the plan does not fit this machine or this model.
        """
        if not self.fits:
            told = [reason.sentence() for reason in (*self.problems, *self.remedies)]
            raise PlanError("error.plan_does_not_fit", told="\n".join(told))


def write_plan(plan: Plan, path: Path) -> None:
    """Write ``plan.json``, whole or not at all."""
    write_atomic(path, plan.model_dump_json(indent=2) + "\n")


def read_plan(path: Path) -> Plan:
    """Return the plan that :func:`write_plan` wrote.

    Raises:
        RunError: the file is missing, or not a plan of this version.
    """
    try:
        return Plan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as cause:
        raise RunError("error.plan_unreadable", path=path) from cause


def make_plan(
    recipe: Recipe,
    shape: ModelShape,
    lengths: npt.NDArray[np.integer],
    scored: npt.NDArray[np.integer],
    machine: Machine,
    rates: Rates | None = None,
    *,
    executed_tokens: int | None = None,
    kept_share: float = 1.0,
    answers: npt.NDArray[np.integer] | None = None,
    held_out: int = 0,
) -> Plan:
    """Return what will be done; pure arithmetic, so the same inputs give the same plan.

    ``lengths`` and ``scored``: tokens and scored tokens of each training sample. ``rates``
    are those of the device that will be used (:func:`~weitiao.plan.settle.choose_device`),
    where measured. ``executed_tokens``: of an epoch, where beginnings are shared; used where
    the plan shares them. ``kept_share``: what a layer keeps for the backward pass, over what
    the shape says. ``answers``: tokens that the model is to say in each sample, ``scored``
    where not given. ``held_out``: tokens of the longest sample that is not trained on.

    Raises:
        PlanError: there are no training rows, or a GPU is asked for and none is there.
    """
    if len(lengths) == 0:
        raise PlanError("error.no_training_rows")
    said = np.asarray(scored if answers is None else answers)
    rows = Rows(np.asarray(lengths), np.asarray(scored), answers=said, held_out=held_out)
    settled = Settled(recipe, shape, rows, machine, rates, executed_tokens, kept_share)
    problems, helps = problems_of(settled)
    predicted = _predict(settled)
    return Plan(
        model=recipe.model.name,
        shape=shape,
        machine=machine,
        rows=len(rows.lengths),
        tokens_per_epoch=rows.tokens,
        scored_per_epoch=int(rows.scored.sum()),
        longest_row=rows.longest,
        **settled.values,
        reasons=settled.reasons,
        predicted=predicted,
        fits=not problems,
        problems=tuple(problems),
        warnings=tuple(warnings_of(settled, predicted.train_seconds)),
        remedies=tuple(helps),
    )


def _predict(settled: Settled) -> Predicted:
    """Return the run's memory and time; validation and test rows by the shares of the split."""
    recipe, shape, rows, job = settled.recipe, settled.shape, settled.rows, settled.fit.job
    values, rates = settled.values, settled.rates
    train_share, _, test_share = recipe.data.split
    epochs = values["steps"] / values["steps_per_epoch"]
    looks = values["steps"] / values["eval_every"]
    answered = len(rows.lengths) * test_share / train_share if train_share else 0.0
    answered = min(recipe.evaluate.rows, max(1, round(answered)))
    prompt, batch = float((rows.lengths - rows.scored).mean()), values["eval_batch_size"]
    asked, params = recipe.evaluate, shape.total_params

    def answering(rows: int, prompt: float, new: float) -> float:
        seconds = cost.generation_seconds
        return seconds(shape, job, rates, rows=rows, batch=batch, prompt=prompt, new=new)

    # The base seldom stops before the limit; the tuned model answers as long as the data do.
    measuring = answering(answered, 2 * prompt, values["max_new_tokens"] + rows.mean_answer)
    general = general_questions(asked.forgetting, settled.device, params)
    # The base answers in 32 tokens, and both read what it said.
    measuring += answering(general, 3 * 64.0, 32)
    measuring += answering(
        rows_by_heart(asked.memorising, settled.device), 2 * prompt, 2 * rows.mean_answer
    )
    if asked.speed:
        measuring += 4 * answering(1, prompt, 48)
    return Predicted(
        peak_memory_bytes=settled.fit.need,
        train_seconds=round(settled.epoch_seconds * epochs + settled.look_seconds() * looks, 1),
        eval_seconds=round(measuring, 1),
        tokens_per_second=round(rows.tokens / settled.epoch_seconds, 1),
    )

"""Settling every setting of a plan, one after the other: each may rest on those before."""

from dataclasses import replace
from math import ceil
from typing import Any, TypeVar

import numpy as np

from weitiao.errors import PlanError
from weitiao.plan import cost, rules
from weitiao.plan.cost import Job, Rates
from weitiao.plan.fit import MOST_TOKENS, Fit, Rows, answers_at_once, fit, gigabytes, usable_bytes
from weitiao.plan.machine import Machine
from weitiao.plan.recipe import Device, Recipe
from weitiao.plan.rules import Reason, because
from weitiao.plan.shape import ModelShape

Value = TypeVar("Value")


def choose_device(recipe: Recipe, machine: Machine) -> tuple[Device, Reason]:
    """Return where to train.

    Raises:
        PlanError: cuda is asked for and there is none.
    """
    if recipe.train.device == "auto":
        return rules.device(machine)
    if recipe.train.device == "cuda" and not machine.gpus:
        raise PlanError("error.no_gpu")
    return recipe.train.device, because("plan.reason.asked")


class Settled:
    """The settings of one plan, settled one after the other, each with its reason.

    ``values`` and ``reasons`` are keyed by the names of :class:`Plan`'s fields.
    """

    def __init__(
        self,
        recipe: Recipe,
        shape: ModelShape,
        rows: Rows,
        machine: Machine,
        rates: Rates | None,
    ) -> None:
        self.recipe, self.shape, self.rows, self.machine = recipe, shape, rows, machine
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, Reason] = {}
        self._fixed()
        self.device: Device = self._take("device", None, choose_device(recipe, machine))
        self.rates = rates or cost.default_rates(machine, self.device)
        self._learning()
        self.fit = self._fit()
        self.epoch_seconds = self._epoch_seconds()
        self._rhythm()

    def _take(self, name: str, asked: Value | None, derived: tuple[Value, Reason]) -> Value:
        value, reason = derived if asked is None else (asked, because("plan.reason.asked"))
        self.values[name], self.reasons[name] = value, reason
        return value

    def _fixed(self) -> None:
        """Settle the options that have a value of their own, asked for or not."""
        train = self.recipe.train
        for group, option, name in (
            (train, "objective", "objective"),
            (train, "schedule", "schedule"),
            (train, "optimizer", "optimizer"),
            (train, "label_smoothing", "label_smoothing"),
            (train, "neftune_alpha", "neftune_alpha"),
            (train, "keep_checkpoints", "keep_checkpoints"),
            (train, "strategy", "strategy"),
            (train, "trackers", "trackers"),
            (train, "weight_decay", "weight_decay"),
            (train, "max_grad_norm", "max_grad_norm"),
            (train, "seed", "seed"),
            (train.lora, "dropout", "lora_dropout"),
            (train.lora, "targets", "lora_targets"),
            (train.lora, "rslora", "lora_rslora"),
            (train.lora, "dora", "lora_dora"),
            (train.lora, "init", "lora_init"),
            (train.prefix, "tokens", "prefix_tokens"),
            (self.recipe.data, "max_tokens", "max_tokens"),
        ):
            value = getattr(group, option)
            asked = option in group.model_fields_set
            key = "plan.reason.asked" if asked else "plan.reason.default"
            self.values[name] = tuple(value) if isinstance(value, list) else value
            self.reasons[name] = because(key)

    def _learning(self) -> None:
        train, params, count = self.recipe.train, self.shape.total_params, len(self.rows.lengths)
        how = self._take("method", train.method, rules.method(train.objective, params))
        self._take("quantization", None, rules.quantization(how, train.qlora.bits))
        noisy = bool(train.lora.dropout or train.neftune_alpha)
        self._take("share_prefixes", None, rules.share_prefixes(train.share_prefixes, noisy))
        batch = self._take("batch_size", train.batch_size, rules.batch_size(count))
        epochs = self._take("epochs", train.epochs, rules.epochs(count))
        self._take(
            "learning_rate",
            train.learning_rate,
            rules.learning_rate(how, train.objective, params),
        )
        rank = self._take("lora_rank", train.lora.rank, rules.lora_rank(count, params))
        self._take("lora_alpha", train.lora.alpha, rules.lora_alpha(rank))
        per_epoch = ceil(count / batch)
        self._take("steps_per_epoch", None, (per_epoch, because("plan.reason.computed")))
        steps = per_epoch * epochs
        why = because("plan.reason.steps", rows=count, batch=batch, epochs=epochs)
        if train.max_steps is not None and train.max_steps < steps:
            steps, why = train.max_steps, because("plan.reason.asked")
        self._take("steps", None, (steps, why))
        ratio = self._take("warmup_ratio", train.warmup_ratio, rules.warmup_ratio(steps))
        warm = max(1, round(ratio * steps)) if ratio > 0 else 0
        self._take("warmup_steps", None, (warm, because("plan.reason.computed")))
        self._take(
            "max_new_tokens",
            self.recipe.evaluate.max_new_tokens,
            rules.max_new_tokens(train.objective, int(np.quantile(self.rows.scored, 0.99))),
        )

    def _fit(self) -> Fit:
        """Settle precision, micro-batch and checkpointing together: memory ties them."""
        train = self.recipe.train
        asked = None if train.precision == "auto" else train.precision
        chosen = rules.precision(self.device, self.machine, self.rates)
        precision = self._take("precision", asked, chosen)
        limit = usable_bytes(self.machine, self.device)
        job = Job(
            device=self.device,
            method=self.values["method"],
            precision=precision,
            checkpointing="off",
            rank=self.values["lora_rank"],
            targets=self.values["lora_targets"],
            tokens=0,
            scored=0,
        )
        batch = self.values["batch_size"]
        found = fit(self.shape, job, self.rows, limit, self.recipe, batch)
        if asked is None and precision == "fp32" and not found.fits:
            smaller = fit(
                self.shape, replace(job, precision="bf16"), self.rows, limit, self.recipe, batch
            )
            if smaller.need < found.need:
                why = because("plan.reason.precision_fit", need=gigabytes(found.free_needed))
                self._take("precision", None, ("bf16", why))
                found = smaller
        self._explain(found)
        self._answers(found)
        return found

    def _explain(self, found: Fit) -> None:
        """Settle what the fit decided, with its reasons."""
        train = self.recipe.train
        why = because("plan.reason.micro_batch", limit=gigabytes(found.limit))
        if found.micro_batch_tokens == MOST_TOKENS[self.device]:
            why = because("plan.reason.micro_batch_most")
        self._take("micro_batch_tokens", train.micro_batch_tokens, (found.micro_batch_tokens, why))
        kept = found.job.checkpointing
        on = "off" if kept == "off" else "on"
        why = because(f"plan.reason.checkpointing_{on}")
        self._take("gradient_checkpointing", train.gradient_checkpointing, (kept, why))

    def _answers(self, found: Fit) -> None:
        """Settle how many rows are answered at once: as many as asked, where memory allows."""
        evaluate = self.recipe.evaluate
        length = self.rows.longest + self.values["max_new_tokens"]
        rows = answers_at_once(self.shape, found.job, found.limit, evaluate.batch_size, length)
        key = "plan.reason.default"
        if rows < evaluate.batch_size:
            key = "plan.reason.eval_batch_fit"
        elif "batch_size" in evaluate.model_fields_set:
            key = "plan.reason.asked"
        self._take("eval_batch_size", None, (rows, because(key)))

    def _epoch_seconds(self) -> float:
        """Return the predicted time of one pass over the training rows."""
        job, rows = self.fit.job, self.rows
        squares = float(np.square(rows.lengths.astype(np.float64)).sum())
        micro_batches = rows.tokens / self.fit.micro_batch_tokens
        return cost.training_seconds(
            self.shape,
            job,
            self.rates,
            tokens=rows.tokens,
            scored=int(rows.scored.sum()),
            squares=squares,
            micro_batches=max(self.values["steps_per_epoch"], micro_batches),
        )

    def _rhythm(self) -> None:
        train, steps = self.recipe.train, self.values["steps"]
        step_seconds = self.epoch_seconds / self.values["steps_per_epoch"]
        looks = self._take("eval_every", train.eval_every, rules.eval_every(steps))
        self._take("save_every", train.save_every, rules.save_every(looks, step_seconds))
        self._take("early_stopping_patience", train.early_stopping_patience, rules.patience())

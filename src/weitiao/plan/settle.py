"""Settling every setting of a plan, one after the other: each may rest on those before."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any, TypeVar

from weitiao.errors import PlanError
from weitiao.plan import cost, rules
from weitiao.plan.cost import Rates
from weitiao.plan.fit import MOST_TOKENS, Fit, Rows, answers_at_once, fit, gigabytes, usable_bytes
from weitiao.plan.job import Job
from weitiao.plan.machine import Machine
from weitiao.plan.recipe import Device, Recipe, Strategy
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


def job_of(settings: Mapping[str, Any]) -> Job:
    """Return the job of settled values, keyed as a plan's fields; its tokens are not known yet."""
    return Job(
        device=settings["device"],
        method=settings["method"],
        precision=settings["precision"],
        checkpointing="off",
        rank=settings["lora_rank"],
        targets=settings["lora_targets"],
        tokens=0,
        scored=0,
        quantization=settings["quantization"],
        optimizer=settings["optimizer"],
        dropout=settings["lora_dropout"] > 0,
        dora=settings["lora_dora"],
        prefix_tokens=settings["prefix_tokens"],
    )


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
        executed_tokens: int | None = None,
        kept_share: float = 1.0,
    ) -> None:
        self.recipe, self.shape, self.rows, self.machine = recipe, shape, rows, machine
        self.kept_share = kept_share
        self.values: dict[str, Any] = {}
        self.reasons: dict[str, Reason] = {}
        self._fixed()
        self.device: Device = self._take("device", None, choose_device(recipe, machine))
        self.rates = rates or cost.default_rates(machine, self.device)
        self._learning()
        self.rows = replace(rows, draws=self.values["steps"])
        if executed_tokens is not None and self.values["share_prefixes"]:
            self.rows = replace(self.rows, computed=executed_tokens / rows.tokens)
        self.fit = self._fit()
        self.epoch_seconds = self._epoch_seconds()
        self._rhythm()

    @property
    def virtual_tokens(self) -> int:
        """The virtual tokens before every row."""
        return self.values["prefix_tokens"] if self.values["method"] == "prefix" else 0

    @property
    def forked(self) -> bool:
        """Whether the processes are made from one, and share its weights and its memory."""
        asked = self.values.get("strategy", self.recipe.train.strategy)
        return rules.forked(self.machine, self.device, self.values["processes"], asked)

    @property
    def sharded(self) -> Strategy | None:
        """How the weights are spread out over several processes; None where they are not."""
        strategy: Strategy = self.values["strategy"]
        return strategy if self.values["processes"] > 1 and strategy != "ddp" else None

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
            (train, "cuda_graphs", "cuda_graphs"),
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
            (train.deepspeed, "stage", "zero_stage"),
            (self.recipe.data, "max_tokens", "max_tokens"),
        ):
            value = getattr(group, option)
            # A written recipe holds every option, so being there says nothing.
            usual = type(group).model_fields[option].get_default(call_default_factory=True)
            key = "plan.reason.default" if value == usual else "plan.reason.asked"
            self.values[name] = tuple(value) if isinstance(value, list) else value
            self.reasons[name] = because(key)

    def _learning(self) -> None:
        train, params, count = self.recipe.train, self.shape.total_params, len(self.rows.lengths)
        how = self._take("method", train.method, rules.method(train.objective, params))
        self._take("quantization", None, rules.quantization(how, train.qlora.bits))
        noisy = bool(train.lora.dropout or train.neftune_alpha)
        self._take("share_prefixes", None, rules.share_prefixes(train.share_prefixes, noisy))
        batch = self._take("batch_size", train.batch_size, rules.batch_size(count))
        several = rules.processes(self.machine, self.device, batch)
        if self.device == "cpu":
            whole, width = self.values["quantization"] == "none", self.shape.hidden_size
            several = rules.processes_of_cores(self.machine, how, whole, width, batch)
        self._take("processes", train.processes, several)
        epochs = self._take("epochs", train.epochs, rules.epochs(count))
        self._take(
            "learning_rate",
            train.learning_rate,
            rules.learning_rate(how, train.objective, params),
        )
        scored, per_rank = int(self.rows.scored.sum()), self.shape.lora_params(1)
        derived, why = rules.lora_rank(count, params, scored, per_rank)
        layers = self.shape.targeted(self.values["lora_targets"])
        derived = min([derived, *(layer.most_rank for layer in layers)])
        rank = self._take("lora_rank", train.lora.rank, (derived, why))
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
            rules.max_new_tokens(train.objective, self.rows.longest_answer),
        )

    def _fit(self) -> Fit:
        """Settle precision, micro-batch and checkpointing together: memory ties them.

        Where nothing was asked for and memory is short, a smaller precision is taken, a base
        of 4 bits on a GPU, weights spread out over several of them.
        """
        train = self.recipe.train
        asked = None if train.precision == "auto" else train.precision
        chosen = rules.precision(self.device, self.machine, self.rates)
        precision = self._take("precision", asked, chosen)
        job = replace(
            job_of(self.values),
            process_bytes=self.machine.process_bytes,
            kept_share=self.kept_share,
        )
        found = self._fitted(job)
        if self.forked and train.processes is None and not found.as_asked(self.recipe):
            # The forks' activations and buffers are what is too much: better one process.
            self._take("processes", None, (1, because("plan.reason.processes_fit")))
            found = self._fitted(job)
        why = because("plan.reason.precision_fit", need=gigabytes(found.free_needed))
        if asked is None and precision == "fp32" and not found.fits:
            smaller = self._fitted(replace(job, precision="bf16"))
            if smaller.need < found.need:
                self._take("precision", None, ("bf16", why))
                found = smaller
        found = self._spread(found)
        found = self._quantized(found)
        self._explain(found)
        self._answers(found)
        return found

    def _fitted(self, job: Job) -> Fit:
        batch = ceil(self.values["batch_size"] / self.values["processes"])
        apart = 1 if self.forked else self.values["processes"]
        limit = usable_bytes(self.machine, self.device, apart)
        job = replace(job, forks=self.values["processes"] if self.forked else 1)
        return fit(self.shape, job, self.rows, limit, self.recipe, batch)

    def _spread(self, found: Fit) -> Fit:
        """Settle how several processes share the work: the whole model in each where it fits."""
        asked, several = self.recipe.train.strategy, self.values["processes"]
        if self.forked:
            self._take("strategy", None, ("ddp", because("plan.reason.strategy_ddp")))
            return found
        spread = self._fitted(replace(found.job, share=1 / several))
        if several == 1 or asked != "auto":
            key = "plan.reason.default" if asked == "auto" else "plan.reason.asked"
            self._take("strategy", None, (asked, because(key)))
            return spread if asked in ("fsdp", "deepspeed") else found
        if found.fits or not spread.fits or rules.spreading_refused("fsdp", found.job):
            self._take("strategy", None, ("ddp", because("plan.reason.strategy_ddp")))
            return found
        need = gigabytes(found.free_needed)
        self._take("strategy", None, ("fsdp", because("plan.reason.strategy_fsdp", need=need)))
        return spread

    def _quantized(self, found: Fit) -> Fit:
        """Take a base of 4 bits where LoRA on the whole one does not fit on the GPU."""
        train = self.recipe.train
        may = found.job.method == "lora" and train.method is None and train.lora.init != "pissa"
        may = may and found.job.share == 1  # of few bits, weights cannot be spread out
        if found.fits or not may or self.device != "cuda" or not self.machine.bitsandbytes:
            return found
        smaller = self._fitted(replace(found.job, method="qlora", quantization="nf4"))
        if not smaller.fits:
            return found
        need = gigabytes(found.free_needed)
        self._take("method", None, ("qlora", because("plan.reason.method_qlora", need=need)))
        self._take("quantization", None, rules.quantization("qlora", 4))
        return smaller

    def _explain(self, found: Fit) -> None:
        """Settle what the fit decided, with its reasons."""
        train = self.recipe.train
        why = because("plan.reason.micro_batch", limit=gigabytes(found.limit))
        if found.micro_batch_tokens == MOST_TOKENS[self.device]:
            why = because("plan.reason.micro_batch_most")
        self._take("micro_batch_tokens", train.micro_batch_tokens, (found.micro_batch_tokens, why))
        kept = found.job.checkpointing
        why = because(f"plan.reason.checkpointing_{kept}")
        self._take("gradient_checkpointing", train.gradient_checkpointing, (kept, why))

    def _answers(self, found: Fit) -> None:
        """Settle how many rows are answered at once: as many as asked, where memory allows."""
        evaluate = self.recipe.evaluate
        length = self.virtual_tokens + self.rows.longest + self.values["max_new_tokens"]
        rows = answers_at_once(self.shape, found.job, found.limit, evaluate.batch_size, length)
        key = "plan.reason.default"
        if rows < evaluate.batch_size:
            key = "plan.reason.eval_batch_fit"
        elif rows != type(evaluate).model_fields["batch_size"].default:
            key = "plan.reason.asked"
        self._take("eval_batch_size", None, (rows, because(key)))

    def _epoch_seconds(self) -> float:
        """Return the predicted time of one pass over the training rows."""
        rows, processes = self.rows, self.values["processes"]
        computed = rows.tokens * rows.computed
        per_epoch = self.values["steps_per_epoch"]
        # Forks start their kernels side by side; of the cores they have no more together.
        side_by_side = processes if self.forked else 1
        calls = max(per_epoch * processes, computed / self.fit.micro_batch_tokens)
        seconds = cost.training_seconds(
            self.shape,
            self.fit.job,
            self.rates,
            tokens=round(computed),
            scored=int(rows.scored.sum()),
            squares=rows.squares,
            micro_batches=calls / side_by_side,
            steps=per_epoch * processes,
        )
        # Processes on one CPU share its cores; GPUs work side by side.
        return seconds / processes if self.device == "cuda" else seconds

    def look_seconds(self) -> float:
        """Return the predicted time of one look at the validation loss."""
        train_share, val_share, _ = self.recipe.data.split
        val = val_share / train_share if train_share else 0.0
        val = min(val, cost.VALIDATION_SAMPLES / len(self.rows.lengths))
        tokens = self.rows.tokens * self.rows.computed * val
        return cost.look_seconds(
            self.shape,
            self.fit.job,
            self.rates,
            tokens=round(tokens),
            scored=round(float(self.rows.scored.sum()) * val),
            micro_batches=tokens / self.fit.micro_batch_tokens,
        )

    def _rhythm(self) -> None:
        train, steps = self.recipe.train, self.values["steps"]
        step_seconds = self.epoch_seconds / self.values["steps_per_epoch"]
        look_share = self.look_seconds() / max(step_seconds * steps, 1e-9)
        looks = self._take("eval_every", train.eval_every, rules.eval_every(steps, look_share))
        self._take("save_every", train.save_every, rules.save_every(looks, step_seconds))
        self._take("early_stopping_patience", train.early_stopping_patience, rules.patience())

"""The training loop: open, one page, every state of it in a file.

The mean is taken over all scored tokens of an optimizer step, whatever the micro-batches.
"""

import math
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from weitiao.errors import TrainingError
from weitiao.events import EventLog
from weitiao.models.adapters import save_trained, transformers_model
from weitiao.models.flat import answer_losses, flat_attention, row_losses
from weitiao.models.lora import lean_lora
from weitiao.plan.cost import VALIDATION_SAMPLES
from weitiao.plan.plan import Plan
from weitiao.records.record import Origin
from weitiao.records.render import Sample
from weitiao.runs import Run, publish_directory
from weitiao.training.batches import micro_batches, samples_of_step
from weitiao.training.checkpoint import (
    Progress,
    read_checkpoint,
    trained_parameters,
    write_checkpoint,
)
from weitiao.training.interrupt import stop_requested
from weitiao.training.schedule import learning_rate

KEPT_CHECKPOINTS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What a training works on.

    ``origins`` says where each record stood, by ``Sample.row``. ``extras`` writes into the
    folder of the weights whatever is needed beside them: the tokenizer.
    """

    model: PreTrainedModel | PeftModel
    plan: Plan
    train: Sequence[Sample]
    validation: Sequence[Sample]
    origins: Sequence[Origin]
    run: Run
    events: EventLog
    extras: Callable[[Path], object]

    @property
    def precision(self) -> torch.dtype:
        """The type of the matrix products."""
        return torch.bfloat16 if self.plan.precision == "bf16" else torch.float32


def train(work: Work) -> Progress:
    """Train to the end of the plan, or go on from the run's last checkpoint.

    The best weights by validation loss (the last where there are no validation rows) are
    left in the run directory. A run that is killed and resumed ends with the same bytes.

    Raises:
        TrainingError: a loss that is not a number, memory too small for one row, or a
            request to stop (after a checkpoint).
    """
    model = transformers_model(work.model)
    optimizer = make_optimizer(model, work.plan)
    progress = Progress(micro_batch_tokens=work.plan.micro_batch_tokens)
    model.train()
    if work.plan.gradient_checkpointing != "off":
        model.activation_checkpointing_enable({"use_reentrant": False})
    # Around the backward passes too: with checkpointing they compute the layers again.
    with stop_requested() as stop, flat_attention(model), lean_lora(model):
        if checkpoints := work.run.checkpoints():
            progress = read_checkpoint(checkpoints[-1][1], model, optimizer)
            work.events.emit("train.resumed", step=progress.step)
        else:
            _find_budget(work, model, progress)
        work.events.emit("train.start", steps=work.plan.steps, samples=len(work.train))
        while progress.step < work.plan.steps and not progress.stopped_early:
            _step(work, model, optimizer, progress)
            last = progress.step == work.plan.steps
            if last or progress.step % work.plan.eval_every == 0:
                _evaluate(work, model, progress)
            if progress.step % work.plan.save_every == 0 or stop.is_set():
                _save(work, model, optimizer, progress)
            _raise_if_stopped(work, stop, progress)
    model.eval()
    work.events.emit(
        "train.done",
        steps=progress.step,
        seconds=round(progress.seconds, 1),
        tokens=progress.tokens,
        scored_tokens=progress.scored_tokens,
        peak_memory_bytes=peak_memory(model.device),
        best_step=progress.best_step,
        best_loss=progress.best_loss,
        stopped_early=progress.stopped_early,
    )
    return progress


def make_optimizer(model: torch.nn.Module, plan: Plan) -> torch.optim.AdamW:
    """Return AdamW over what is trained; norms and biases are not decayed."""
    parameters = trained_parameters(model).values()
    # Pretraining's gradients change fast: a shorter memory of their squares is the custom.
    betas = (0.9, 0.95) if plan.objective == "pretrain" else (0.9, 0.999)
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": plan.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=plan.learning_rate,
        betas=betas,
        fused=True,
    )


def _step(
    work: Work, model: PreTrainedModel, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Take one optimizer step and write down what it was."""
    began, plan, step = time.perf_counter(), work.plan, progress.step
    rate = learning_rate(step, plan.steps, plan.warmup_steps, plan.learning_rate)
    for group in optimizer.param_groups:
        group["lr"] = rate
    chosen = samples_of_step(len(work.train), plan.batch_size, plan.seed, step)
    scored = sum(int(work.train[i].scored.sum()) for i in chosen)
    total = 0.0
    batches = micro_batches(work.train, chosen, progress.micro_batch_tokens)
    for micro, (numbers, flat) in enumerate(batches):
        # Dropout is drawn from the place in the training alone, so a resumed run repeats it.
        torch.manual_seed((plan.seed * 1_000_003 + step) * 1_009 + micro)
        losses = row_losses(model, flat, work.precision)
        _refuse_nan(work, step, rate, numbers, losses)
        loss = losses.sum() / scored
        loss.backward()
        total += loss.item()
    norm = torch.nn.utils.clip_grad_norm_(
        trained_parameters(model).values(), plan.max_grad_norm or math.inf
    ).item()
    if not math.isfinite(norm):
        raise _not_finite(work, step, rate, chosen)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    tokens, spent = sum(len(work.train[i].ids) for i in chosen), time.perf_counter() - began
    progress.step += 1
    progress.tokens += tokens
    progress.scored_tokens += scored
    progress.seconds += spent
    work.events.emit(
        "train.step",
        step=progress.step,
        steps=plan.steps,
        epoch=round(progress.step / plan.steps_per_epoch, 3),
        loss=round(total, 5),
        lr=rate,
        grad_norm=round(norm, 4),
        tokens=tokens,
        scored_tokens=scored,
        tokens_per_second=round(tokens / spent, 1),
        eta_seconds=round(progress.seconds / progress.step * (plan.steps - progress.step), 1),
    )


def _not_finite(work: Work, step: int, rate: float, numbers: Sequence[int]) -> TrainingError:
    places = [work.origins[work.train[i].row] for i in numbers]
    rows = ", ".join(f"{place.file}:{place.line}" for place in places[:8])
    return TrainingError("error.loss_not_finite", step=step + 1, rows=rows, rate=f"{rate:.2g}")


def _refuse_nan(
    work: Work, step: int, rate: float, numbers: Sequence[int], losses: torch.Tensor
) -> None:
    """Stop before a loss that is not a number reaches the weights."""
    bad = (~torch.isfinite(losses)).nonzero()[:, 0].tolist()
    if bad:
        raise _not_finite(work, step, rate, [numbers[i] for i in bad])


def _evaluate(work: Work, model: PreTrainedModel, progress: Progress) -> None:
    """Measure the validation loss; keep the weights where it is the best so far."""
    began = time.perf_counter()
    if not work.validation:
        _keep_weights(work)
        return
    model.eval()
    found = answer_losses(
        model, work.validation[:VALIDATION_SAMPLES], progress.micro_batch_tokens, work.precision
    )
    model.train()
    loss = sum(total for total, _ in found) / sum(count for _, count in found)
    best = progress.best_loss is None or loss < progress.best_loss
    if best:
        progress.best_loss, progress.best_step = loss, progress.step
        progress.evaluations_without_gain = 0
        _keep_weights(work)
    else:
        progress.evaluations_without_gain += 1
        patience = work.plan.early_stopping_patience
        progress.stopped_early = 0 < patience <= progress.evaluations_without_gain
    progress.seconds += time.perf_counter() - began
    work.events.emit(
        "train.eval",
        step=progress.step,
        loss=round(loss, 5),
        best=best,
        best_loss=progress.best_loss,
        stopped_early=progress.stopped_early,
    )


def _keep_weights(work: Work) -> None:
    target = work.run.adapter if isinstance(work.model, PeftModel) else work.run.model
    with publish_directory(target) as folder:
        save_trained(work.model, folder, work.precision)
        work.extras(folder)


def _save(
    work: Work, model: PreTrainedModel, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    with publish_directory(work.run.checkpoint(progress.step)) as folder:
        write_checkpoint(folder, model, optimizer, progress)
    work.run.keep_last(KEPT_CHECKPOINTS)
    work.events.emit("train.checkpoint", step=progress.step)


def _raise_if_stopped(work: Work, stop: threading.Event, progress: Progress) -> None:
    if stop.is_set():
        raise TrainingError("error.training_stopped", step=progress.step, steps=work.plan.steps)


def _find_budget(work: Work, model: PreTrainedModel, progress: Progress) -> None:
    """Run the longest micro-batch first; where memory is short, halve the budget till it fits.

    Better here than in the middle of the night. Nothing of it is kept.
    """
    longest = max(range(len(work.train)), key=lambda i: len(work.train[i].ids))
    tokens = len(work.train[longest].ids)
    while True:
        rows = max(1, min(work.plan.batch_size, progress.micro_batch_tokens // tokens))
        try:
            _, flat = micro_batches(work.train, [longest] * rows, rows * tokens)[0]
            row_losses(model, flat, work.precision).sum().backward()
            return
        except RuntimeError as cause:
            if "memory" not in str(cause).lower() and "allocate" not in str(cause).lower():
                raise
            if rows == 1:
                raise TrainingError("error.out_of_memory", tokens=tokens) from cause
        finally:
            for parameter in trained_parameters(model).values():
                parameter.grad = None
        progress.micro_batch_tokens = max(tokens, rows * tokens // 2)
        work.events.emit("train.shrunk", micro_batch_tokens=progress.micro_batch_tokens)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held so far: of the GPU's memory, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # The kernel counts in KiB on Linux and in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

"""The training loop: open, one page, every state of it in a file."""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError

from weitiao.errors import RunError, TrainingError
from weitiao.models.adapters import save_trained, transformers_model
from weitiao.models.flat import fast_path, flat_attention, row_losses
from weitiao.plan.cost import VALIDATION_SAMPLES
from weitiao.runs import publish_directory
from weitiao.training.checkpoint import (
    Progress,
    checkpoint_of,
    differences,
    read_checkpoint,
    restore,
    settings_of,
    write_checkpoint,
)
from weitiao.training.interrupt import stop_requested
from weitiao.training.memory import peak_memory
from weitiao.training.step import preflight, take_step
from weitiao.training.work import Engine, begin
from weitiao.training.work import Work as Work


def train(work: Work) -> Progress:
    """Train to the end of the plan, or go on from the run's last checkpoint.

    The best weights by validation loss (the last where there are no validation rows) are
    left in the run directory; the last beside them, where those are others. A run that is
    killed and resumed ends with the same bytes.

    Raises:
        TrainingError: a loss that is not a number, memory too small for one row, a checkpoint
            of another recipe, a full disk, or a request to stop (after a checkpoint).
        RunError: the run directory cannot be written.
    """
    engine, events, plan, team = begin(work), work.events, work.plan, work.team
    inner = transformers_model(work.model)
    settings = settings_of(plan, engine.state.trained, training=work.train, val=work.validation)
    settings["processes"] = team.size
    # Around the backward passes too: with checkpointing they compute the layers again.
    with (
        stop_requested(lambda: events.emit("train.stopping")) as stop,
        fast_path(work.model) if engine.updates.lean else flat_attention(inner),
    ):
        if not _resumed(engine, settings):
            preflight(engine)
        events.emit("train.start", steps=plan.steps, samples=len(work.train))
        while not engine.ended:
            take_step(engine)
            step = engine.progress.step
            if step % plan.eval_every == 0 or step == plan.steps:
                _evaluate(engine)
            # Asked in one process, all of them stop at this step.
            stopping = team.least(not stop.asked) == 0
            if step % plan.save_every == 0 or stopping:
                _save(engine, settings)
            if stopping and not engine.ended:
                # Nobody leaves before the leader has written everything.
                team.wait()
                raise TrainingError("error.training_stopped", step=step, steps=plan.steps)
    engine.model.eval()
    _keep_last_weights(engine)
    _tell_end(engine)
    team.wait()
    return engine.progress


def _resumed(engine: Engine, settings: dict[str, Any]) -> bool:
    """Go on from the last whole checkpoint; return whether there is one.

    Raises:
        TrainingError: it was made with other settings, or not every process can read it.
    """
    work, team = engine.work, engine.work.team
    # The leader's list: it has the run's lock, and has put right what a kill left.
    for step, folder in reversed(team.gather(work.run.checkpoints())[0]):
        checkpoint = read_checkpoint(folder)
        read = team.gather(checkpoint is not None)
        if checkpoint is None and not read[0]:
            work.events.emit("train.torn", step=step)
            if team.leads:
                shutil.rmtree(folder)
            continue
        if checkpoint is None or not all(read):
            raise TrainingError("error.team_folder", path=folder, rank=read.index(False))
        if changes := differences(checkpoint.settings, settings):
            told = "; ".join(changes)
            raise TrainingError("error.checkpoint_other", path=folder, changes=told)
        engine.updates.prepare()
        restore(checkpoint, engine.state)
        engine.updates.load(folder)
        work.events.emit("train.resumed", step=engine.progress.step)
        return True
    return False


def _evaluate(engine: Engine) -> None:
    """Measure the validation loss; keep the weights where it is the best so far."""
    began, work, progress = time.perf_counter(), engine.work, engine.progress
    if not work.validation:
        _keep_weights(engine, _target(work))
        return
    loss = _validation_loss(engine)
    best = progress.best_loss is None or loss < progress.best_loss
    if best:
        progress.best_loss, progress.best_step = loss, progress.step
        progress.evaluations_without_gain = 0
        _keep_weights(engine, _target(work))
    else:
        progress.evaluations_without_gain += 1
        patience = work.plan.early_stopping_patience
        progress.stopped_early = 0 < patience <= progress.evaluations_without_gain
    engine.look_seconds = time.perf_counter() - began
    progress.seconds += engine.look_seconds
    work.events.emit(
        "train.eval",
        step=progress.step,
        loss=round(loss, 5),
        best=best,
        best_loss=progress.best_loss,
        stopped_early=progress.stopped_early,
    )


@torch.no_grad()
def _validation_loss(engine: Engine) -> float:
    """Return the mean loss of the validation rows' scored tokens; each process takes a part."""
    work = engine.work
    samples = work.validation[:VALIDATION_SAMPLES]
    mine = engine.shares(samples, range(len(samples)))[work.team.rank]
    total = 0.0
    engine.model.eval()
    for numbers, flat in engine.evened(samples, engine.cut(samples, mine)):
        losses = engine.updates.unit(row_losses, flat, work.precision)
        total += losses[: len(numbers)].sum().item()
    engine.updates.put_back()
    engine.model.train()
    return sum(work.team.gather(total)) / sum(int(sample.scored.sum()) for sample in samples)


def _target(work: Work) -> Path:
    return work.run.adapter if isinstance(work.model, PeftModel) else work.run.model


def _keep_weights(engine: Engine, target: Path) -> None:
    work = engine.work
    state = engine.updates.weights(work.model)
    if work.team.leads:
        with _published(target) as folder:
            save_trained(work.model, folder, work.precision, state)
            work.extras(folder)


def _keep_last_weights(engine: Engine) -> None:
    """Leave the last weights beside the best, where they are not the best themselves."""
    if engine.progress.best_loss is not None and engine.progress.best_step < engine.progress.step:
        best = _target(engine.work)
        _keep_weights(engine, best.with_name(f"{best.name}-last"))


def _save(engine: Engine, settings: dict[str, Any]) -> None:
    """Write a checkpoint; the ones before stay whole whatever happens.

    Raises:
        TrainingError: the disk is full.
    """
    run, step, team = engine.work.run, engine.progress.step, engine.work.team
    checkpoint = checkpoint_of(engine.state, settings, keep=team.leads)
    try:
        with _published(run.checkpoint(step)) if team.leads else nullcontext() as folder:
            engine.updates.save(team.gather(folder)[0])
            if folder is not None:
                write_checkpoint(folder, checkpoint)
    except RunError as cause:
        before = run.checkpoints()
        if cause.key != "error.disk_full" or not before:
            raise
        raise TrainingError(
            "error.checkpoint_disk_full", path=run.path, step=step, last=before[-1][0]
        ) from cause
    if team.leads:
        run.keep_last(engine.work.plan.keep_checkpoints)
    engine.work.events.emit("train.checkpoint", step=step)


@contextmanager
def _published(target: Path) -> Iterator[Path]:
    """Publish a folder; what Rust says of a full disk is said as Python would."""
    with publish_directory(target) as folder:
        try:
            yield folder
        except SafetensorError as error:
            if number := re.search(r"os error (\d+)", str(error)):
                raise OSError(int(number[1]), str(error)) from error
            raise


def _tell_end(engine: Engine) -> None:
    progress, team = engine.progress, engine.work.team
    peak = team.together(team.gather(peak_memory(engine.model.device, team.born_bytes)))
    engine.work.events.emit(
        "train.done",
        steps=progress.step,
        seconds=round(progress.seconds, 1),
        tokens=progress.tokens,
        executed_tokens=progress.executed_tokens,
        scored_tokens=progress.scored_tokens,
        peak_memory_bytes=peak,
        best_step=progress.best_step,
        best_loss=progress.best_loss,
        stopped_early=progress.stopped_early,
    )

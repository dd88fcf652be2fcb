"""One optimizer step: the gradients of its micro-batches, and what to do where they fail.

The mean is taken over all scored tokens of the step, whatever the micro-batches. A step that
cannot be completed is repeated from its beginning: it draws the same random numbers again.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from weitiao.errors import TrainingError
from weitiao.models.flat import row_losses
from weitiao.models.short_memory import give_back, short_of_memory
from weitiao.training.memory import memory_now
from weitiao.training.schedule import learning_rate
from weitiao.training.work import Engine, Micro

STEPS_LOOKED_AT = 256
"""Of so many steps the largest micro-batch is tried first; cutting them takes a second."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one process did of a step; ``loss``: the sum over its scored tokens, in nats.

    ``bad``: the numbers of the samples whose loss is not a number. ``memory_bytes``: held now.
    """

    loss: float
    tokens: int
    executed_tokens: int
    scored_tokens: int
    bad: tuple[int, ...]
    memory_bytes: int

    @classmethod
    def of(cls, micros: Sequence[Micro], losses: Sequence[float], memory_bytes: int) -> "Share":
        """Return the share of ``micros``, whose rows have ``losses``."""
        flats = [flat for numbers, flat in micros if numbers]
        numbers = [i for numbers, _ in micros for i in numbers]
        return cls(
            loss=sum(losses),
            tokens=sum(flat.tokens for flat in flats),
            executed_tokens=sum(flat.executed for flat in flats),
            scored_tokens=sum(len(flat.target_S) for flat in flats),
            bad=tuple(i for i, x in zip(numbers, losses, strict=True) if not math.isfinite(x)),
            memory_bytes=memory_bytes,
        )


def take_step(engine: Engine) -> None:
    """Take one optimizer step and write down what it was.

    Raises:
        TrainingError: a loss that is not a number, or no memory for one row.
    """
    began = time.perf_counter()
    step = engine.progress.step
    rate = learning_rate(engine.work.plan, step)
    for group in engine.state.optimizer.param_groups:
        group["lr"] = rate
    while True:
        micros, losses = _summed_gradients(engine, step)
        norm = engine.updates.norm()
        # All that the host needs to know, in one transfer: a GPU is waited for once a step.
        grad_norm, *by_row = torch.cat([norm.reshape(1), *losses]).tolist()
        held = memory_now(engine.model.device, engine.work.team.born_bytes)
        shares = engine.work.team.gather(Share.of(micros, by_row, held))
        if _sound(engine, rate, shares, grad_norm):
            break
    engine.updates.step()
    _tell(engine, shares, rate, grad_norm, time.perf_counter() - began)


def preflight(engine: Engine) -> None:
    """Run the largest micro-batch first; where memory is short, halve the budget till it fits.

    Better here than in the middle of the night. The optimizer holds its state already, so
    that memory is as full as it will be. Nothing of it is kept.

    Raises:
        TrainingError: there is no memory for one row.
    """
    engine.updates.prepare()
    while engine.updates.repeats:
        began, largest = time.perf_counter(), _largest(engine)
        done = _backward(engine, 0, 0, largest, 1) is not None
        engine.updates.drop()
        if _had_room(engine, None if done else largest):
            engine.work.events.emit(
                "train.preflight",
                tokens=largest[1].tokens,
                executed_tokens=largest[1].executed,
                scored_tokens=len(largest[1].target_S),
                seconds=round(time.perf_counter() - began, 3),
                memory_bytes=memory_now(engine.model.device),
            )
            break


def _summed_gradients(engine: Engine, step: int) -> tuple[list[Micro], list[torch.Tensor]]:
    """Leave the step's gradients in the parameters; return its micro-batches and row losses.

    Out of memory, the gradients so far are dropped and the micro-batches made smaller.
    """
    scored = sum(int(engine.work.train[i].scored.sum()) for i in engine.samples(step))
    while True:
        micros, losses, failed = engine.micro_batches(step), [], None
        for number, micro in enumerate(micros):
            last = number == len(micros) - 1
            found = _backward(engine, step, number, micro, scored, last=last)
            if found is None:
                failed = micro
                break
            losses.append(found)
        else:
            # Cut while a GPU still works on this step's.
            engine.micro_batches(step + 1)
        if _had_room(engine, failed):
            return micros, losses


def _backward(
    engine: Engine, step: int, number: int, micro: Micro, scored: int, *, last: bool = True
) -> torch.Tensor | None:
    """Add a micro-batch's share to the gradients; return its row losses, None out of memory."""
    work, (numbers, flat) = engine.work, micro
    # Dropout is drawn from the place in the training alone, so a resumed run repeats it.
    torch.manual_seed(seed_of(work.plan.seed, step, number, work.team.rank))
    try:
        losses: torch.Tensor = engine.updates.unit(
            row_losses,
            flat,
            work.precision,
            label_smoothing=work.plan.label_smoothing,
            neftune_alpha=work.plan.neftune_alpha,
            replay=engine.graphs,
        )
        share = losses.sum() / scored if numbers else losses.sum() * 0
        engine.updates.backward(share, last=last)
    except (RuntimeError, MemoryError) as cause:
        if not short_of_memory(cause):
            raise
        if work.team.sharded:
            # The others wait for this process in the midst of a layer: all must begin anew.
            if flat.rows == 1:
                raise TrainingError("error.out_of_memory", tokens=flat.tokens) from cause
            budget = engine.progress.micro_batch_tokens
            raise TrainingError("error.team_memory", rank=work.team.rank, tokens=budget) from cause
        return None
    return losses.detach()[: len(numbers)]


def seed_of(seed: int, step: int, number: int, rank: int = 0) -> int:
    """Return what seeds micro-batch ``number`` of ``step`` in process ``rank``; 64 bits."""
    return int(np.random.SeedSequence([seed, step, number, rank]).generate_state(1, np.uint64)[0])


def _had_room(engine: Engine, failed: Micro | None) -> bool:
    """Return whether no process was short of memory; else make all their micro-batches smaller.

    ``failed`` is this process's micro-batch that did not fit. The gradients are dropped then.

    Raises:
        TrainingError: it was a single row.
    """
    team, progress = engine.work.team, engine.progress
    if team.least(failed is None):
        return True
    engine.updates.drop()
    give_back()
    lengths = [len(engine.work.train[i].ids) for i in failed[0]] if failed else []
    for rows, executed in team.gather((lengths, failed[1].executed if failed else 0)):
        if len(rows) == 1:
            raise TrainingError("error.out_of_memory", tokens=rows[0])
        if rows:
            half = max(max(rows), executed // 2)
            progress.micro_batch_tokens = max(1, min(half, progress.micro_batch_tokens - 1))
    engine.work.events.emit(
        "train.shrunk", step=progress.step + 1, micro_batch_tokens=progress.micro_batch_tokens
    )
    return False


def _largest(engine: Engine) -> Micro:
    """Return the micro-batch that keeps the most: a token in each layer, a scored one once more."""
    work = engine.work
    longest = max(range(len(work.train)), key=lambda i: len(work.train[i].ids))
    found = engine.cut(work.train, [longest])
    for step in range(min(work.plan.steps, work.plan.steps_per_epoch, STEPS_LOOKED_AT)):
        for share in engine.shares(work.train, engine.samples(step)):
            found += engine.cut(work.train, share)
        layers = work.plan.shape.layers
        found = [max(found, key=lambda m: layers * m[1].executed + len(m[1].target_S))]
    return found[0]


def _sound(engine: Engine, rate: float, shares: Sequence[Share], norm: float) -> bool:
    """Return whether the step may be taken; if fp16 overflowed, scale down for another try.

    Raises:
        TrainingError: a loss or a gradient is not a number, which must not reach the weights.
    """
    bad = [i for share in shares for i in share.bad]
    if not bad and math.isfinite(norm):
        return True
    scaler, step = engine.state.scaler, engine.progress.step
    if bad or not scaler.is_enabled() or scaler.get_scale() <= 1:
        numbers = bad or engine.samples(step)
        places = [engine.work.origins[engine.work.train[i].row] for i in numbers]
        rows = ", ".join(f"{place.file}:{place.line}" for place in places[:8])
        raise TrainingError("error.loss_not_finite", step=step + 1, rows=rows, rate=f"{rate:.2g}")
    scaler.update()
    engine.updates.drop()
    engine.work.events.emit("train.rescaled", step=step + 1, scale=scaler.get_scale())
    return False


def _tell(
    engine: Engine, shares: Sequence[Share], rate: float, norm: float, seconds: float
) -> None:
    """Count the step, and write it down."""
    plan, progress = engine.work.plan, engine.progress
    tokens = sum(share.tokens for share in shares)
    scored = sum(share.scored_tokens for share in shares)
    executed = sum(share.executed_tokens for share in shares)
    progress.step += 1
    progress.tokens += tokens
    progress.executed_tokens += executed
    progress.scored_tokens += scored
    progress.seconds += seconds
    engine.recent.append(seconds)
    engine.work.events.emit(
        "train.step",
        step=progress.step,
        steps=plan.steps,
        epoch=round(progress.step / plan.steps_per_epoch, 3),
        loss=round(sum(share.loss for share in shares) / scored, 5),
        lr=rate,
        grad_norm=round(norm, 4),
        tokens=tokens,
        executed_tokens=executed,
        scored_tokens=scored,
        tokens_per_second=round(tokens / seconds, 1),
        executed_per_second=round(executed / seconds, 1),
        scored_per_second=round(scored / seconds, 1),
        memory_bytes=engine.work.team.together([share.memory_bytes for share in shares]),
        eta_seconds=round(engine.eta(), 1),
    )

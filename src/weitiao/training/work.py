"""What a training is given, and what it changes on its way."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from weitiao.events import EventLog
from weitiao.models.adapters import transformers_model
from weitiao.models.flat import Flat, flatten
from weitiao.models.graphs import Graphs
from weitiao.models.head import chunk_tokens
from weitiao.models.load import TYPES
from weitiao.models.runtime import keep_blocks
from weitiao.plan.plan import Plan
from weitiao.records.prefixes import common_length
from weitiao.records.record import Origin
from weitiao.records.render import Sample
from weitiao.runs import Run
from weitiao.training.batches import micro_batches, samples_of_step
from weitiao.training.checkpoint import Progress, State, trained_parameters
from weitiao.training.optimizers import make_optimizer
from weitiao.training.sharding import MicroStep, shard
from weitiao.training.team import ALONE, Team, allot, row_cost
from weitiao.training.updates import Updates
from weitiao.training.zero import Zero

LEAST_KEPT = 32 << 20
"""Freed blocks of up to so many bytes are kept, even where all weights are trained."""

RECENT_STEPS = 20
"""The time left is judged by this many steps: a laptop slows down as it grows warm."""

Micro = tuple[list[int], Flat]
"""The numbers of a micro-batch's samples, and their rows end to end.

Without a number it counts for nothing: a process computes it because the others need it to.
"""


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
    team: Team = ALONE

    @property
    def precision(self) -> torch.dtype:
        """The type of the matrix products."""
        return TYPES[self.plan.precision]


@dataclass(slots=True, eq=False)
class Engine:
    """A training under way: everything that a step changes.

    ``recent``: seconds of the last steps; ``look_seconds``: of the last look at the
    validation loss.
    """

    work: Work
    state: State
    updates: Updates | Zero
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))
    look_seconds: float = 0.0
    graphs: Graphs | None = None
    _ahead: tuple[int, int, list[Micro]] | None = None

    @property
    def model(self) -> PreTrainedModel | PeftModel:
        """What is trained."""
        return self.work.model

    @property
    def progress(self) -> Progress:
        """Where the training stands."""
        return self.state.progress

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.progress.stopped_early or self.progress.step >= self.work.plan.steps

    def samples(self, step: int) -> list[int]:
        """Return the numbers of the samples of optimizer step ``step`` (from 0)."""
        plan = self.work.plan
        return samples_of_step(len(self.work.train), plan.batch_size, plan.seed, step)

    def micro_batches(self, step: int) -> list[Micro]:
        """Return the micro-batches of ``step`` on the model's device; made ahead where asked."""
        budget = self.progress.micro_batch_tokens
        if self._ahead is None or self._ahead[:2] != (step, budget):
            mine = self.shares(self.work.train, self.samples(step))[self.work.team.rank]
            cut = self.evened(self.work.train, self.cut(self.work.train, mine))
            sent = [(numbers, flat.to(self.model.device)) for numbers, flat in cut]
            self._ahead = step, budget, sent
        return self._ahead[2]

    def shares(self, samples: Sequence[Sample], chosen: Sequence[int]) -> list[list[int]]:
        """Return which of the samples each process takes, by rank: as little work for each.

        What all of them begin with is left out of account, as each process computes it.
        """
        if self.work.team.size == 1:
            return [list(chosen)]
        shape, rows = self.work.plan.shape, [samples[i] for i in chosen]
        common = min((common_length(rows[0].ids, row.ids) for row in rows), default=0)
        shared = row_cost(shape, common if self.work.plan.share_prefixes else 0, 0)
        costs = [row_cost(shape, len(row.ids), int(row.scored.sum())) - shared for row in rows]
        return [[chosen[i] for i in part] for part in allot(costs, self.work.team.size)]

    def evened(self, samples: Sequence[Sample], cut: list[Micro]) -> list[Micro]:
        """Add micro-batches that count for nothing, where the team must compute equally many."""
        if not self.work.team.sharded:
            return cut
        most = -self.work.team.least(-len(cut))
        shortest = min(samples, key=lambda sample: len(sample.ids))
        return cut + [([], flatten([shortest]))] * (most - len(cut))

    def cut(self, samples: Sequence[Sample], chosen: Sequence[int]) -> list[Micro]:
        """Cut samples into micro-batches that memory has room for."""
        budget, share = self.progress.micro_batch_tokens, self.work.plan.share_prefixes
        return micro_batches(samples, chosen, budget, share=share)

    def eta(self) -> float:
        """Return the seconds left after a step: steps as the usual of late, looks as the last."""
        plan, step = self.work.plan, self.progress.step
        looks = -(-plan.steps // plan.eval_every) - max(0, step - 1) // plan.eval_every
        # The middle one: the first step, and one that something else slowed down, say nothing.
        pace = median(self.recent) if self.recent else 0.0
        return pace * (plan.steps - step) + self.look_seconds * looks


def begin(work: Work) -> Engine:
    """Return the training of ``work`` before its first step.

    Raises:
        TrainingError: the optimizer is not installed.
    """
    model, plan, unit = work.model, work.plan, MicroStep(work.model)
    progress = Progress(micro_batch_tokens=plan.micro_batch_tokens)
    model.train()
    if plan.method == "full":
        # Gradients as large as weights, kept, would take a quarter to a third more memory.
        vocabulary, width = plan.shape.vocab_size, work.precision.itemsize
        keep_blocks(max(LEAST_KEPT, chunk_tokens(plan.device, vocabulary) * vocabulary * width))
    if plan.gradient_checkpointing != "off":
        transformers_model(model).activation_checkpointing_enable(
            {"use_reentrant": False},
            every_n_layers=2 if plan.gradient_checkpointing == "selective" else 1,
        )
    zero = work.team.sharded and plan.strategy == "deepspeed"
    if work.team.sharded and not zero:
        shard(unit, torch.device(plan.device), work.team.size, work.precision)
    trained = trained_parameters(model)
    optimizer = make_optimizer(trained, plan)
    # bf16 has fp32's range; fp16 loses what is small unless it is scaled up on the way back.
    scaler = torch.amp.GradScaler(model.device.type, enabled=plan.precision == "fp16")
    if zero:
        by_deepspeed = Zero(unit, optimizer, plan, work.team)
        return Engine(work, State({}, by_deepspeed.optimizer, scaler, progress), by_deepspeed)
    state = State(trained, optimizer, scaler, progress)
    engine = Engine(work, state, Updates(unit, state, work.team, plan.max_grad_norm))
    if plan.cuda_graphs:
        engine.graphs = Graphs.of(
            model, plan, lambda why: work.events.emit("train.graphs_off", why=why)
        )
    return engine

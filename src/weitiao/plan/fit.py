"""Making a job fit into memory: how many tokens at once, and with how much checkpointing."""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from weitiao.plan.job import Job
from weitiao.plan.machine import Machine
from weitiao.plan.memory import generation_memory, peak_memory
from weitiao.plan.recipe import Checkpointing, Device, Recipe
from weitiao.plan.shape import ModelShape

MOST_TOKENS: dict[Device, int] = {"cpu": 4096, "cuda": 16384}
"""More tokens at once only take memory: the matrix products are at full speed before."""

ENOUGH_TOKENS: dict[Device, int] = {"cpu": 512, "cuda": 2048}
"""Fewer tokens at once cost more than checkpointing does."""

USABLE: dict[Device, float] = {"cpu": 0.9, "cuda": 0.95}
"""The share of the free memory that a plan may fill."""

_CHECKPOINTING: tuple[Checkpointing, ...] = ("off", "selective", "full")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The training samples: tokens and scored tokens of each.

    ``computed``: the share of the tokens that is left to compute once beginnings are shared;
    ``draws``: the optimizer steps, each with samples drawn at random; ``answers``: tokens that
    the model is to say, of each sample that has any; ``held_out``: the tokens of the longest
    sample that is not trained on.
    """

    lengths: npt.NDArray[np.integer]
    scored: npt.NDArray[np.integer]
    computed: float = 1.0
    draws: int = 1
    answers: npt.NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, np.int64))
    held_out: int = 0

    @property
    def longest(self) -> int:
        """The tokens of the longest sample."""
        return int(self.lengths.max())

    @property
    def tokens(self) -> int:
        """The tokens of all samples."""
        return int(self.lengths.sum())

    @property
    def longest_answer(self) -> int:
        """The tokens of the longest answers but for a hundredth of them; 0 where there are none."""
        return int(np.quantile(self.answers, 0.99)) if len(self.answers) else 0

    @property
    def mean_answer(self) -> float:
        """The tokens of an answer."""
        return float(self.answers.mean()) if len(self.answers) else 0.0

    @property
    def squares(self) -> float:
        """The sum of the squared lengths."""
        return float(np.square(self.lengths.astype(np.float64)).sum())

    def at_once(self, budget: int, rows: int) -> tuple[int, int, bool]:
        """Return (tokens, scored tokens) of the largest micro-batch, and whether it has others.

        It holds whole samples of a step of ``rows`` and at most ``budget`` computed tokens; a
        longer sample goes alone.
        """
        step = round(self._largest_step(rows) * self.computed)
        tokens = max(self.longest, min(budget, step))
        share = float(self.scored.sum()) / max(1.0, self.tokens * self.computed)
        return tokens, max(int(self.scored.max()), round(tokens * share)), tokens < step

    def _largest_step(self, rows: int) -> float:
        """Return the tokens of the largest of ``draws`` steps of ``rows`` samples.

        The expected maximum of normal sums (Cramér 1946, section 28.6), at most the longest
        samples together.
        """
        top = min(rows, len(self.lengths))
        most = float(np.partition(self.lengths, -top)[-top:].sum())
        spread = float(self.lengths.std()) * np.sqrt(top * (1 - top / len(self.lengths)))
        deviations = 0.0
        if self.draws > 1:
            root = np.sqrt(2 * np.log(self.draws))
            deviations = root - (np.log(np.log(self.draws)) + np.log(4 * np.pi)) / (2 * root)
        usual = top * float(self.lengths.mean()) + max(0.5, deviations) * spread
        return float(min(most, usual))

    def cut_to(self, tokens: int) -> "Rows":
        """Return the rows as they would be with ``data.max_tokens`` at ``tokens``."""
        lengths = np.minimum(self.lengths, tokens)
        return replace(self, lengths=lengths, scored=np.minimum(self.scored, tokens))


@dataclass(frozen=True, slots=True)
class Fit:
    """A job, the budget of its micro-batches, and whether it fits into ``limit`` bytes."""

    job: Job
    micro_batch_tokens: int
    need: int
    limit: int

    @property
    def free_needed(self) -> int:
        """The bytes that must be free, with the margin that is left to the system."""
        return round(self.need / USABLE[self.job.device])

    @property
    def fits(self) -> bool:
        """Whether the job stays under the limit."""
        return self.need <= self.limit

    def as_asked(self, recipe: Recipe) -> bool:
        """Whether it fits without checkpointing that was not asked for."""
        asked = recipe.train.gradient_checkpointing
        return self.fits and self.job.checkpointing == (asked or "off")


def usable_bytes(machine: Machine, device: Device, processes: int = 1) -> int:
    """Return the bytes of free memory that each process may fill; on a CPU they share it."""
    sharing = processes if device == "cpu" else 1
    return int(machine.free_on(device) * USABLE[device] / sharing)


def fit(
    shape: ModelShape, job: Job, rows: Rows, limit: int, recipe: Recipe, batch_size: int
) -> Fit:
    """Return the job with the largest micro-batch that fits, checkpointing only where it must.

    ``batch_size``: the rows of a step in each process. What the recipe fixes stays fixed.
    Where nothing fits, the smallest of all is returned.
    """
    asked = recipe.train.gradient_checkpointing
    tried: list[Fit] = []
    for checkpointing in _CHECKPOINTING if asked is None else (asked,):
        for budget in _budgets(job.device, rows.longest, recipe.train.micro_batch_tokens):
            tokens, scored, several = rows.at_once(budget, batch_size)
            with_budget = replace(
                job, checkpointing=checkpointing, tokens=tokens, scored=scored, accumulates=several
            )
            need = peak_memory(shape, with_budget)
            tried.append(Fit(with_budget, budget, need, limit))
    fitting = [one for one in tried if one.fits]
    if not fitting:
        return min(tried, key=lambda one: one.need)
    step_tokens = rows.at_once(MOST_TOKENS[job.device], batch_size)[0]
    enough = min(ENOUGH_TOKENS[job.device], step_tokens)
    return next((one for one in fitting if one.job.tokens >= enough), fitting[0])


def answers_at_once(shape: ModelShape, job: Job, limit: int, most: int, length: int) -> int:
    """Return how many rows of ``length`` tokens can be answered at once.

    ``most`` of them, halved until the memory suffices.
    """
    rows = most
    while rows > 1 and generation_memory(shape, job, rows, length) > limit:
        rows //= 2
    return rows


def _budgets(device: Device, longest: int, asked: int | None) -> list[int]:
    """Return the micro-batch budgets to try, largest first."""
    if asked is not None:
        return [asked]
    most = MOST_TOKENS[device]
    halves = [most >> k for k in range(7) if most >> k >= max(longest, 64)]
    return [*halves, longest] if longest not in halves else halves


def gigabytes(size: int) -> str:
    """Return bytes for people, in units of 2^30 bytes as memory is sold: ``21.3``."""
    return f"{size / 2**30:.1f}"

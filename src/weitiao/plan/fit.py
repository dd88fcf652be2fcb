"""Making a job fit into memory: how many tokens at once, and what to change if it does not."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import combinations

import numpy as np
import numpy.typing as npt

from weitiao.plan.cost import PROCESS_BYTES, Job, generation_memory, peak_memory
from weitiao.plan.machine import Machine
from weitiao.plan.recipe import Checkpointing, Device, Recipe
from weitiao.plan.rules import Reason, because, millions
from weitiao.plan.shape import ModelShape

MOST_TOKENS: dict[Device, int] = {"cpu": 4096, "cuda": 16384}
"""More tokens at once only take memory: the matrix products are at full speed before."""

ENOUGH_TOKENS: dict[Device, int] = {"cpu": 512, "cuda": 2048}
"""Fewer tokens at once cost more than checkpointing does."""

USABLE: dict[Device, float] = {"cpu": 0.9, "cuda": 0.95}
"""The share of the free memory that a plan may fill."""

_SHORTER_ROWS = (512, 256)
_CHECKPOINTING: tuple[Checkpointing, ...] = ("off", "full")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The training samples: tokens and scored tokens of each."""

    lengths: npt.NDArray[np.integer]
    scored: npt.NDArray[np.integer]

    @property
    def longest(self) -> int:
        """The tokens of the longest sample."""
        return int(self.lengths.max())

    @property
    def tokens(self) -> int:
        """The tokens of all samples."""
        return int(self.lengths.sum())

    def at_once(self, budget: int, batch_size: int) -> tuple[int, int]:
        """Return (tokens, scored tokens) of the largest micro-batch under ``budget``.

        It holds whole samples of one optimizer step; a longer sample goes alone.
        """
        top = min(batch_size, len(self.lengths))
        step = int(np.partition(self.lengths, -top)[-top:].sum())
        tokens = max(self.longest, min(budget, step))
        share = float(self.scored.sum()) / max(1, self.tokens)
        return tokens, min(tokens, max(int(self.scored.max()), round(tokens * share)))

    def cut_to(self, tokens: int) -> "Rows":
        """Return the rows as they would be with ``data.max_tokens`` at ``tokens``."""
        return Rows(np.minimum(self.lengths, tokens), np.minimum(self.scored, tokens))


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


def usable_bytes(machine: Machine, device: Device) -> int:
    """Return the bytes of free memory that a plan may fill."""
    return int(machine.free_on(device) * USABLE[device])


def fit(
    shape: ModelShape, job: Job, rows: Rows, limit: int, recipe: Recipe, batch_size: int
) -> Fit:
    """Return the job with the largest micro-batch that fits, checkpointing only where it must.

    What the recipe fixes stays fixed. Where nothing fits, the smallest of all is returned.
    """
    asked = recipe.train.gradient_checkpointing
    tried: list[Fit] = []
    for checkpointing in _CHECKPOINTING if asked is None else (asked,):
        for budget in _budgets(job.device, rows.longest, recipe.train.micro_batch_tokens):
            tokens, scored = rows.at_once(budget, batch_size)
            with_budget = replace(job, checkpointing=checkpointing, tokens=tokens, scored=scored)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Ask:
    """Something that could be asked instead, and the settings to type for it."""

    job: Job
    rows: Rows
    recipe: Recipe
    settings: tuple[str, ...] = ()


def remedies(
    shape: ModelShape, unfit: Fit, rows: Rows, machine: Machine, recipe: Recipe, batch_size: int
) -> list[Reason]:
    """Return what would make an unfit job fit: the fewest settings that suffice.

    Where no settings suffice: the memory and the model that would.
    """
    asked = _Ask(unfit.job, rows, recipe)
    smallest, with_settings = unfit, asked
    levers = _levers(asked)
    for count in range(1, len(levers) + 1):
        for chosen in combinations(levers, count):
            ask = reduce(lambda before, lever: lever(before), chosen, asked)
            one = fit(shape, ask.job, ask.rows, unfit.limit, ask.recipe, batch_size)
            if one.fits:
                shown = " ".join(ask.settings)
                need = gigabytes(one.free_needed)
                return [because("plan.remedy.settings", settings=shown, need=need)]
            if one.need < smallest.need:
                smallest, with_settings = one, ask
    return _other_means(shape, unfit, smallest, (asked, with_settings), machine, batch_size)


def _other_means(
    shape: ModelShape,
    unfit: Fit,
    smallest: Fit,
    asks: tuple[_Ask, _Ask],
    machine: Machine,
    batch_size: int,
) -> list[Reason]:
    found: list[Reason] = []
    device, ask = smallest.job.device, asks[-1]
    for on_cpu in asks if device == "cuda" else ():
        job = replace(on_cpu.job, device="cpu")
        limit = usable_bytes(machine, "cpu")
        one = fit(shape, job, on_cpu.rows, limit, on_cpu.recipe, batch_size)
        if one.fits:
            shown = " ".join((*on_cpu.settings, "train.device=cpu"))
            need = gigabytes(one.free_needed)
            found.append(because("plan.remedy.settings", settings=shown, need=need))
            break
    # Settings that save next to nothing are not worth a sentence.
    if ask.settings and smallest.need < 0.9 * unfit.need:
        shown = " ".join(ask.settings)
        need = gigabytes(smallest.free_needed)
        found.append(because("plan.remedy.machine_and_settings", settings=shown, need=need))
    else:
        found.append(because("plan.remedy.machine", need=gigabytes(unfit.free_needed)))
    room = (smallest.limit - PROCESS_BYTES[device]) / (smallest.need - PROCESS_BYTES[device])
    if room > 0:
        params = millions(int(shape.total_params * room))
        found.append(because("plan.remedy.model", params=params))
    return found


def _levers(ask: _Ask) -> list[Callable[[_Ask], _Ask]]:
    """Return the changes that could save memory, the least painful first."""
    train = ask.recipe.train
    useful = (
        (train.gradient_checkpointing == "off", ("gradient_checkpointing", "full")),
        (train.micro_batch_tokens is not None, ("micro_batch_tokens", None)),
        (ask.job.method == "full", ("method", "lora")),
        (ask.job.precision == "fp32", ("precision", "bf16")),
    )
    levers: list[Callable[[_Ask], _Ask]] = [
        partial(_with_train, *change) for helps, change in useful if helps
    ]
    levers.extend(partial(_with_shorter, n) for n in _SHORTER_ROWS if n < ask.rows.longest)
    return levers


def _with_train(option: str, value: object, ask: _Ask) -> _Ask:
    train = ask.recipe.train.model_copy(update={option: value})
    job = ask.job
    if option in ("method", "precision"):
        job = replace(job, **{option: value})  # type: ignore[arg-type]
    setting = f"train.{option}={json.dumps(value)}".replace('"', "")
    recipe = ask.recipe.model_copy(update={"train": train})
    return _Ask(job, ask.rows, recipe, (*ask.settings, setting))


def _with_shorter(tokens: int, ask: _Ask) -> _Ask:
    settings = (*ask.settings, f"data.max_tokens={tokens}")
    return replace(ask, rows=ask.rows.cut_to(tokens), settings=settings)


def gigabytes(size: int) -> str:
    """Return bytes for people, in units of 2^30 bytes as memory is sold: ``21.3``."""
    return f"{size / 2**30:.1f}"

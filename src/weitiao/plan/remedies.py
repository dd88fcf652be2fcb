"""What would make a job fit that does not: the cheapest changes, each tried by arithmetic."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import combinations

from weitiao.plan.fit import Fit, Rows, fit, gigabytes, usable_bytes
from weitiao.plan.job import Job
from weitiao.plan.machine import Machine
from weitiao.plan.recipe import Recipe
from weitiao.plan.rules import Reason, because, millions
from weitiao.plan.shape import KNOWN_SHAPES, ModelShape

MOST = 3
"""Remedies that are offered: more would be a list to study."""

_AT_ONCE = 4
"""Settings changed together at most."""

_SHORTER_ROWS = (768, 512, 256, 128)
_SMALL_RANK = 8


@dataclass(frozen=True, slots=True, eq=False)
class _Ask:
    """What could be asked instead: the settings to type for it, and what they cost.

    ``pains`` are in thirds of the training time, or what an equal loss of quality is worth.
    """

    job: Job
    rows: Rows
    recipe: Recipe
    settings: tuple[str, ...] = ()
    costs: tuple[Reason, ...] = ()
    pains: float = 0.0


_Lever = Callable[[_Ask], _Ask]


@dataclass(frozen=True, slots=True, eq=False)
class Unfit:
    """A job that does not fit, and all that it was to be fitted to; ``rows`` of each process."""

    shape: ModelShape
    fit: Fit
    rows: Rows
    machine: Machine
    recipe: Recipe
    batch_size: int

    def tried(self, ask: _Ask, limit: int | None = None) -> Fit:
        """Return how ``ask`` would fit."""
        room = self.fit.limit if limit is None else limit
        return fit(self.shape, ask.job, ask.rows, room, ask.recipe, self.batch_size)


def remedies(unfit: Unfit) -> list[Reason]:
    """Return up to three changes after which the job fits, the cheapest first.

    Settings, then a smaller model; where neither is enough, the memory that would be.
    """
    asked = _Ask(unfit.fit.job, unfit.rows, unfit.recipe)
    found = sorted(_settings(unfit, asked), key=lambda pair: pair[0].pains)[:MOST]
    told = [_told("plan.remedy.settings", ask, one) for ask, one in found]
    if len(told) < MOST:
        told += _smaller_model(unfit, asked)
    if len(told) < MOST:
        told.append(because("plan.remedy.machine", need=gigabytes(unfit.fit.free_needed)))
    return told


def _told(key: str, ask: _Ask, one: Fit) -> Reason:
    values = {"settings": " ".join(ask.settings), "need": gigabytes(one.free_needed)}
    return Reason(key, values, ask.costs)


def _settings(unfit: Unfit, asked: _Ask) -> Iterator[tuple[_Ask, Fit]]:
    """Yield the changes of settings that suffice and of which none can be left out."""
    levers, enough = _levers(unfit, asked), list[set[int]]()
    for count in range(1, _AT_ONCE + 1):
        for chosen in combinations(range(len(levers)), count):
            if any(less.issubset(chosen) for less in enough):
                continue
            ask = reduce(lambda before, i: levers[i](before), chosen, asked)
            if len(ask.settings) < count:
                continue  # two of them are about the same setting
            device = ask.job.device
            limit = usable_bytes(unfit.machine, device) if device != asked.job.device else None
            one = unfit.tried(ask, limit)
            if one.fits:
                enough.append(set(chosen))
                yield ask, one


def _smaller_model(unfit: Unfit, asked: _Ask) -> list[Reason]:
    """Return the largest known model that fits as it was asked, or else with LoRA."""
    lora = _with_train("method", "lora", "lora", 2.0, asked)
    for ask in (asked, lora) if asked.job.method == "full" else (asked,):
        for name, shape in reversed(KNOWN_SHAPES.items()):
            one = replace(unfit, shape=shape).tried(ask)
            if shape.total_params < unfit.shape.total_params and one.fits:
                values = {
                    "name": " ".join((name, *ask.settings)),
                    "need": gigabytes(one.free_needed),
                }
                params = millions(shape.total_params)
                return [because("plan.remedy.model", params=params, **values)]
    return []


def _levers(unfit: Unfit, asked: _Ask) -> list[_Lever]:
    """Return the changes that could save memory."""
    train, job, machine = asked.recipe.train, asked.job, unfit.machine
    full, cuda = job.method == "full", job.device == "cuda"
    # bf16 is said to fit where fp32 does not, but a card without it would crawl.
    half = "bf16" if not cuda or machine.gpus[0].bf16 else "fp16"
    may_cpu = cuda and not machine.elsewhere
    rank = job.adapted and job.rank > _SMALL_RANK
    may_quantize = train.lora.init != "pissa"
    useful: tuple[tuple[bool, str, object, str, float], ...] = (
        (train.micro_batch_tokens is not None, "micro_batch_tokens", None, "nothing", 0.1),
        (
            train.gradient_checkpointing == "off",
            "gradient_checkpointing",
            "selective",
            "sixth",
            0.5,
        ),
        (
            train.gradient_checkpointing in ("off", "selective"),
            "gradient_checkpointing",
            "full",
            "third",
            1.0,
        ),
        (job.precision == "fp32", "precision", half, "half", 0.5),
        (full and job.optimizer == "adamw", "optimizer", "adamw_8bit", "optimizer_8bit", 0.6),
        (
            full and cuda and not job.optimizer.startswith("paged"),
            "optimizer",
            "paged_adamw_8bit",
            "optimizer_paged",
            1.2,
        ),
        (full and job.optimizer != "adafactor", "optimizer", "adafactor", "adafactor", 1.5),
        (rank, "lora.rank", _SMALL_RANK, "rank", 1.5),
        (may_quantize and job.method == "lora", "method", "qlora", "qlora", 1.6),
        (full, "method", "lora", "lora", 2.0),
        (may_quantize and full, "method", "qlora", "qlora", 3.6),
        (may_cpu, "device", "cpu", "cpu", 9.0),
    )
    levers: list[_Lever] = [
        partial(_with_train, option, value, cost, pains)
        for helps, option, value, cost, pains in useful
        if helps
    ]
    levers += [
        partial(_with_shorter, tokens) for tokens in _SHORTER_ROWS if tokens < asked.rows.longest
    ]
    return levers


def _with_train(option: str, value: object, cost: str, pains: float, ask: _Ask) -> _Ask:
    """Return ``ask`` with one training option changed; unchanged where it was changed before."""
    name = f"train.{option}"
    if any(setting.startswith(f"{name}=") for setting in ask.settings):
        return ask
    changed: dict[str, object] = {option: value}
    job = ask.job
    if option == "lora.rank":
        changed = {"lora": ask.recipe.train.lora.model_copy(update={"rank": value})}
        job = replace(job, rank=_SMALL_RANK)
    elif option in ("method", "precision", "optimizer", "device"):
        job = replace(job, **{option: value})  # type: ignore[arg-type]
        if option == "method":
            job = replace(job, quantization="nf4" if value == "qlora" else "none")
    train = ask.recipe.train.model_copy(update=changed)
    shown = f"{name}={json.dumps(value)}".replace('"', "")
    return replace(
        ask,
        job=job,
        recipe=ask.recipe.model_copy(update={"train": train}),
        settings=(*ask.settings, shown),
        costs=(*ask.costs, because(f"plan.cost.{cost}")),
        pains=ask.pains + pains,
    )


def _with_shorter(tokens: int, ask: _Ask) -> _Ask:
    if any(setting.startswith("data.max_tokens=") for setting in ask.settings):
        return ask
    over = int((ask.rows.lengths > tokens).sum())
    return replace(
        ask,
        rows=ask.rows.cut_to(tokens),
        settings=(*ask.settings, f"data.max_tokens={tokens}"),
        costs=(*ask.costs, because("plan.cost.shorter", rows=over, tokens=tokens)),
        pains=ask.pains + 1.0 + 6.0 * over / len(ask.rows.lengths),
    )

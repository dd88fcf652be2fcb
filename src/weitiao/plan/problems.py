"""What keeps a plan from being carried out, and what a user should know of one that can be."""

from dataclasses import replace

import numpy as np

from weitiao.plan import rules
from weitiao.plan.fit import gigabytes
from weitiao.plan.memory import disk_bytes, peak_memory
from weitiao.plan.remedies import Unfit, remedies
from weitiao.plan.rules import Reason, because
from weitiao.plan.settle import Settled

LONG_HOURS = 12.0
"""A run predicted to take longer is warned about."""

Told = list[tuple[Reason, Reason | None]]
"""Problems, each with what would help where its own sentence does not say so."""


def warnings_of(settled: Settled, train_seconds: float) -> list[Reason]:
    """Return what the user should know before starting a run that does fit."""
    found, hours = [], train_seconds / 3600
    if hours > LONG_HOURS:
        in_an_hour = max(1, int(settled.values["steps"] / hours))
        found.append(because("plan.warning.slow", hours=round(hours), steps=in_an_hour))
    processes, strategy = settled.values["processes"], settled.values["strategy"]
    if processes == 1 and strategy in ("fsdp", "deepspeed"):
        found.append(because("plan.warning.strategy_alone", strategy=strategy))
    gpus = len(settled.machine.gpus)
    # No problem: the others may be on other computers, which only their start can tell.
    if settled.device == "cuda" and processes > gpus:
        found.append(because("plan.warning.processes", processes=processes, gpus=gpus))
    return found


def problems_of(settled: Settled) -> tuple[list[Reason], list[Reason]]:
    """Return what keeps the plan from being carried out, and what would help."""
    found, helps = _memory(settled)
    for problem, help_ in (
        *_rows(settled),
        *_hardware(settled),
        *_libraries(settled),
        *_adapter(settled),
        *_several(settled),
    ):
        found.append(problem)
        helps += [help_] if help_ else []
    return found, helps


def _memory(settled: Settled) -> tuple[list[Reason], list[Reason]]:
    found, machine, rows = settled.fit, settled.machine, settled.rows
    if found.fits:
        return [], []
    free = machine.free_on(found.job.device) // (
        settled.values["processes"] if settled.device == "cpu" and not settled.forked else 1
    )
    need = found.free_needed
    key = "plan.problem.memory_gpu" if found.job.device == "cuda" else "plan.problem.memory"
    missing = gigabytes(need - free)
    told = [because(key, need=gigabytes(need), free=gigabytes(free), missing=missing)]
    usual = int(np.median(rows.lengths))
    alone = replace(found.job, tokens=usual, scored=min(found.job.scored, usual))
    if rows.longest > 2 * usual and peak_memory(settled.shape, alone) <= found.limit:
        over = int((rows.lengths > usual).sum())
        told.append(because("plan.problem.longest", longest=rows.longest, usual=usual, rows=over))
    batch = -(-settled.values["batch_size"] // settled.values["processes"])
    unfit = Unfit(settled.shape, found, rows, machine, settled.recipe, batch)
    return told, remedies(unfit)


def _rows(settled: Settled) -> Told:
    """Virtual tokens take the first positions of every row."""
    most, virtual = settled.shape.max_positions, settled.virtual_tokens
    longest = max(settled.rows.longest, settled.rows.held_out)
    if longest + virtual <= most:
        return []
    key = "plan.problem.positions_virtual" if virtual else "plan.problem.positions"
    problem = because(key, longest=longest, most=most, virtual=virtual)
    return [(problem, because("plan.remedy.positions", most=most - virtual))]


def _hardware(settled: Settled) -> Told:
    told: Told = []
    machine, precision = settled.machine, settled.values["precision"]
    if not rules.computes(precision, settled.device, machine):
        gpu = machine.gpus[0].name if settled.device == "cuda" else ""
        key = "plan.problem.precision_gpu" if gpu else "plan.problem.precision_cpu"
        told.append((because(key, precision=precision, gpu=gpu), because("plan.remedy.precision")))
    disk = disk_bytes(settled.shape, settled.fit.job, settled.values["keep_checkpoints"])
    if disk > machine.disk_free_bytes and not machine.elsewhere:
        room = gigabytes(machine.disk_free_bytes)
        problem = because("plan.problem.disk", need=gigabytes(disk), free=room)
        told.append((problem, because("plan.remedy.disk")))
    return told


def _libraries(settled: Settled) -> Told:
    told: Told = []
    optimizer, machine = settled.values["optimizer"], settled.machine
    few_bits = settled.values["method"] == "qlora" or "8bit" in optimizer
    if (few_bits or optimizer.startswith("paged")) and not machine.bitsandbytes:
        told.append((because("plan.problem.bitsandbytes"), because("plan.remedy.bitsandbytes")))
    if settled.sharded == "deepspeed" and not machine.deepspeed:
        told.append((because("error.deepspeed_missing"), None))
    return told


def _adapter(settled: Settled) -> Told:
    """What :func:`weitiao.models.adapters.add_adapter` would refuse, where the shape tells."""
    told: Told = []
    values = settled.values
    if values["method"] not in ("lora", "qlora"):
        return told
    if values["lora_init"] == "pissa" and values["quantization"] != "none":
        told.append((because("error.pissa_quantized"), None))
    # Other architectures may call their layers otherwise, and fuse some.
    targets = settled.shape.targeted(values["lora_targets"]) if settled.shape.known else ()
    small = min(targets, key=lambda linear: linear.most_rank, default=None)
    if small is not None and values["lora_rank"] > small.most_rank:
        problem = because(
            "error.lora_rank",
            rank=values["lora_rank"],
            layer=small.name,
            inputs=small.inputs,
            outputs=small.outputs,
            most=small.most_rank,
        )
        told.append((problem, None))
    return told


def _several(settled: Settled) -> Told:
    refused = settled.sharded and rules.spreading_refused(settled.sharded, settled.fit.job)
    return [(refused, None)] if refused else []

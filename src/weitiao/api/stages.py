"""The stages, left to right: each does what is missing before it, then its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weitiao.api.begin import chat_format, data_path, load_pair_of, log_of, recipe_of, source_of
from weitiao.errors import RunError, TrainingError
from weitiao.events import Listener
from weitiao.runs import Run

if TYPE_CHECKING:
    from weitiao.evaluation.compare import Results
    from weitiao.plan.plan import Plan
    from weitiao.plan.recipe import Recipe
    from weitiao.records.record import Record
    from weitiao.records.render import ChatFormat, Sample
    from weitiao.records.report import DataReport


def split(run: Run, listeners: tuple[Listener, ...] = ()) -> DataReport:
    """Read, check and split the data of ``run`` into its ``records`` folder; return the report."""
    from weitiao.records.prepare import prepare
    from weitiao.records.report import load_report

    if run.stage_done("records"):
        return load_report(run.records / "report.json")
    recipe = recipe_of(run)
    with run.lock():
        return prepare(
            data_path(recipe), run.records, recipe.data, chat_format(recipe), log_of(run, listeners)
        )


def plan(run: Run, listeners: tuple[Listener, ...] = ()) -> Plan:
    """Settle what will be done on this machine and why; return the plan, whether or not it fits."""
    import numpy as np

    from weitiao.models.load import read_config, weights_on_disk
    from weitiao.plan.cost import measure_rates
    from weitiao.plan.machine import probe
    from weitiao.plan.plan import make_plan, read_plan, write_plan
    from weitiao.plan.resolved import recipe_yaml
    from weitiao.plan.settle import choose_device
    from weitiao.plan.shape import ModelShape
    from weitiao.records.files import write_atomic

    if run.stage_done("plan"):
        return read_plan(run.plan)
    split(run, listeners)
    recipe = recipe_of(run)
    source = source_of(recipe)
    samples, _ = _samples(run, "train", recipe, chat_format(recipe))
    shape = ModelShape.from_config(read_config(source), weights_on_disk(source))
    machine = probe(run.path)
    device, _ = choose_device(recipe, machine)
    made = make_plan(
        recipe,
        shape,
        np.array([len(sample.ids) for sample in samples]),
        np.array([int(sample.scored.sum()) for sample in samples]),
        machine,
        measure_rates(machine, device, shape.hidden_size),
    )
    with run.lock():
        write_plan(made, run.plan)
        write_atomic(run.recipe, recipe_yaml(recipe, made))
    return made


def train(run: Run, listeners: tuple[Listener, ...] = (), *, resume: bool = False) -> Plan:
    """Train as planned, or go on where a killed training was; return the plan it followed.

    Raises:
        PlanError: the plan does not fit this machine.
        RunError: a training was begun and not ended, and ``resume`` was not asked for.
        TrainingError: training had to stop; the run can be resumed.
    """
    import torch

    from weitiao.models.adapters import add_lora
    from weitiao.models.load import load_model
    from weitiao.training.loop import Work
    from weitiao.training.loop import train as train_loop

    settled = plan(run, listeners)
    if run.stage_done("train"):
        return settled
    settled.require_fit()
    if run.checkpoints() and not resume:
        raise RunError("error.training_begun", path=run.path, step=run.checkpoints()[-1][0])
    recipe = recipe_of(run)
    formatted = chat_format(recipe)
    samples, records = _samples(run, "train", recipe, formatted)
    held_out, _ = _samples(run, "val", recipe, formatted)
    if not samples:
        raise TrainingError("error.nothing_to_train", path=run.records)
    # What is trained itself stays fp32; a frozen base is held as the plan says.
    whole = settled.method == "full"
    dtype = torch.bfloat16 if settled.precision == "bf16" and not whole else torch.float32
    tokens = len(formatted.tokenizer)  # type: ignore[arg-type]
    base = load_model(source_of(recipe), dtype, torch.device(settled.device), tokens)
    model = (
        base
        if whole
        else add_lora(
            base,
            rank=settled.lora_rank,
            alpha=settled.lora_alpha,
            dropout=settled.lora_dropout,
            targets=settled.lora_targets,
            seed=settled.seed,
        )
    )
    work = Work(
        model,
        settled,
        samples,
        held_out,
        [record.origin for record in records],
        run,
        log_of(run, listeners),
        formatted.tokenizer.save_pretrained,  # type: ignore[attr-defined]
    )
    with run.lock():
        train_loop(work)
    return settled


def evaluate(run: Run, listeners: tuple[Listener, ...] = (), *, resume: bool = False) -> Results:
    """Measure the tuned model against its base on the held-out rows of ``run``.

    Raises:
        DataError: there are no held-out rows.
        ModelError: what was trained cannot be loaded.
    """
    from weitiao.evaluation.answers import answerer
    from weitiao.evaluation.evaluate import evaluate as evaluate_records
    from weitiao.evaluation.evaluate import load_results
    from weitiao.models.generate import Sampling
    from weitiao.records.prepare import load_records

    settled = train(run, listeners, resume=resume)
    if run.stage_done("evaluate"):
        return load_results(run.evaluation / "results.json")
    recipe = recipe_of(run)
    asked = recipe.evaluate
    formatted = chat_format(recipe)
    sampling = Sampling(
        settled.max_new_tokens, asked.temperature, asked.top_p, asked.repetition_penalty, asked.seed
    )
    with run.lock():
        pair = load_pair_of(run, recipe, settled)
        base, tuned = (
            answerer(
                voice.model,
                formatted,
                sampling,
                pad_id=formatted.tokenizer.pad_token_id,  # type: ignore[attr-defined]
                identity=which,
                loss_budget=settled.micro_batch_tokens,
                context=voice.speaking,
            )
            for which, voice in zip(("base", "tuned"), pair, strict=True)
        )
        return evaluate_records(
            load_records(run.records / "test.jsonl"),
            base,
            tuned,
            asked,
            run.evaluation,
            log_of(run, listeners),
            batch_size=settled.eval_batch_size,
            max_tokens=settled.max_tokens,
        )


def report(run: Run) -> Path:
    """Write ``report.html`` from the files of ``run`` as they are now; return its path."""
    from weitiao.evaluation.report.write import write_report

    with run.lock():
        return write_report(run)


def run(run: Run, listeners: tuple[Listener, ...] = (), *, resume: bool = False) -> Results:
    """Do every stage that is missing, to the measured model and its report."""
    results = evaluate(run, listeners, resume=resume)
    report(run)
    return results


def _samples(
    run: Run, part: str, recipe: Recipe, formatted: ChatFormat
) -> tuple[list[Sample], list[Record]]:
    from weitiao.records.prepare import load_records, load_samples

    records = load_records(run.records / f"{part}.jsonl")
    return load_samples(records, formatted, recipe.data), records

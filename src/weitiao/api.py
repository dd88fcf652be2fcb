"""What a program calls, and what every door calls: one function a stage, a few lines each.

The stages meet in the run directory. Each function takes the run so far and does what is
missing before it, so ``train(start("poems.json"))`` is enough; what a stage has already
written is not done again. torch and transformers are imported here, inside the functions,
and nowhere to the left: reading a run's files never waits for them.

    >>> from weitiao import api
    >>> run = api.start("poems.json", model="embedded", overrides=["epochs=3"])
    >>> results = api.evaluate(run)
    >>> print(results.verdict.outcome)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weitiao.errors import DataError, RunError, TrainingError
from weitiao.events import EventLog, Listener
from weitiao.runs import Exists, Run, RunSummary, create_run, list_runs, open_run

if TYPE_CHECKING:
    from weitiao.evaluation.compare import Results
    from weitiao.models.conversation import Conversation
    from weitiao.models.generate import Sampling
    from weitiao.models.load import ModelSource
    from weitiao.models.pair import Voice
    from weitiao.plan.plan import Plan
    from weitiao.plan.recipe import Recipe
    from weitiao.records.prepare import Checked
    from weitiao.records.record import Record
    from weitiao.records.render import ChatFormat, Sample
    from weitiao.records.report import DataReport

__all__ = [
    "Shown",
    "chat",
    "check",
    "evaluate",
    "open_or_start",
    "open_run",
    "plan",
    "recipe_for",
    "report",
    "run",
    "runs",
    "show",
    "split",
    "start",
    "train",
]


def recipe_for(
    data: str | Path | None = None,
    *,
    model: str | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    system: str | None = None,
    columns: str | None = None,
) -> Recipe:
    """Return the recipe by name or file, with what was said beside it put in.

    Raises:
        RecipeError: a key or a value that is not understood.
        DataError: ``columns`` is not understood.
    """
    from weitiao.plan.recipe import load_recipe
    from weitiao.records.options import parse_columns

    found = load_recipe(recipe, overrides)
    said = {
        "path": None if data is None else str(data),
        "system": system,
        "columns": None if columns is None else parse_columns(columns),
    }
    options = found.data.model_copy(update={k: v for k, v in said.items() if v is not None})
    base = found.model if model is None else found.model.model_copy(update={"name": model})
    return found.model_copy(update={"data": options, "model": base})


def check(recipe: Recipe, listeners: tuple[Listener, ...] = ()) -> Checked:
    """Read and check the recipe's data; nothing is written.

    Raises:
        DataError: the data cannot be read, or no row of it can be used.
        ModelError: the model's tokenizer cannot be read.
    """
    from weitiao.records.prepare import check as check_records

    return check_records(
        _data_path(recipe), recipe.data, _chat_format(recipe), EventLog(None, listeners)
    )


def start(
    recipe: Recipe, out: str | Path | None = None, exists: Exists = "refuse", root: str = "runs"
) -> Run:
    """Make the run directory for ``recipe``, with the recipe in it.

    The model is looked for before anything is written, so that a wrong name leaves no run.

    Raises:
        DataError: there is no such data.
        ModelError: there is no such model.
        RunError: the directory exists and nothing was said about it.
    """
    from weitiao.plan.resolved import recipe_yaml
    from weitiao.records.files import write_atomic
    from weitiao.records.readers import find_files

    data = _data_path(recipe)
    find_files(data)
    _source(recipe)
    run = create_run(None if out is None else Path(out), data.stem, exists, Path(root))
    if not run.recipe.exists():
        write_atomic(run.recipe, recipe_yaml(recipe, None))
    return run


def open_or_start(target: str, recipe: Recipe, out: str | None, exists: Exists) -> Run:
    """Return the run that ``target`` names, or a new one where it names a data file.

    Raises:
        RunError: it is neither.
    """
    try:
        return open_run(target)
    except RunError:
        if not Path(target).exists():
            raise
    return start(recipe, out, exists)


def split(run: Run, listeners: tuple[Listener, ...] = ()) -> DataReport:
    """Read, check and split the data of ``run`` into its ``records`` folder; return the report."""
    from weitiao.records.prepare import prepare
    from weitiao.records.report import load_report

    if run.stage_done("records"):
        return load_report(run.records / "report.json")
    recipe = _recipe(run)
    with run.lock():
        return prepare(
            _data_path(recipe), run.records, recipe.data, _chat_format(recipe), _log(run, listeners)
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
    recipe = _recipe(run)
    source = _source(recipe)
    samples, _ = _samples(run, "train", recipe, _chat_format(recipe))
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
    recipe = _recipe(run)
    formatted = _chat_format(recipe)
    samples, records = _samples(run, "train", recipe, formatted)
    held_out, _ = _samples(run, "val", recipe, formatted)
    if not samples:
        raise TrainingError("error.nothing_to_train", path=run.records)
    # What is trained itself stays fp32; a frozen base is held as the plan says.
    whole = settled.method == "full"
    dtype = torch.bfloat16 if settled.precision == "bf16" and not whole else torch.float32
    tokens = len(formatted.tokenizer)  # type: ignore[arg-type]
    base = load_model(_source(recipe), dtype, torch.device(settled.device), tokens)
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
    origins = [record.origin for record in records]
    with run.lock():
        train_loop(Work(model, settled, samples, held_out, origins, run, _log(run, listeners)))
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
    recipe = _recipe(run)
    asked = recipe.evaluate
    formatted = _chat_format(recipe)
    sampling = Sampling(
        settled.max_new_tokens, asked.temperature, asked.top_p, asked.repetition_penalty, asked.seed
    )
    with run.lock():
        pair = _load_pair(run, recipe, settled)
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
            _log(run, listeners),
            batch_size=settled.eval_batch_size,
            max_tokens=settled.max_tokens,
        )


def report(run: Run) -> Path:
    """Write ``report.html`` from the files of ``run`` as they are now; return its path."""
    from weitiao.evaluation.report.write import write_report

    with run.lock():
        return write_report(run)


def chat(run: Run, sampling: Sampling | None = None) -> Conversation:
    """Load the tuned model of ``run``, ready to talk; it can answer as its base too.

    The system prompt is the one that the training rows were given with ``data.system``.

    Raises:
        ModelError: nothing was trained yet, or it cannot be loaded.
    """
    from weitiao.models.conversation import Conversation
    from weitiao.models.generate import Sampling as Settings
    from weitiao.plan.plan import read_plan

    recipe = _recipe(run)
    formatted = _chat_format(recipe)
    base, tuned = _load_pair(run, recipe, read_plan(run.plan))
    tokenizer: Any = formatted.tokenizer
    return Conversation(
        tuned=tuned,
        base=base,
        chat=formatted,
        decode=partial(tokenizer.decode, skip_special_tokens=True),
        sampling=sampling or Settings(),
        system=_system_prompt(run),
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """A row as the model sees it: each token's text, and whether it is learnt from."""

    record: Record
    tokens: tuple[tuple[str, bool], ...]


def show(checked: Checked, recipe: Recipe, number: int) -> list[Shown]:
    """Return the kept row ``number`` (from 1) as the model sees it, one item a sample.

    Raises:
        DataError: there is no such row.
    """
    from weitiao.records.prepare import load_samples

    if not 1 <= number <= len(checked.records):
        raise DataError("error.no_such_row", number=number, rows=len(checked.records))
    record = checked.records[number - 1]
    formatted = _chat_format(recipe)
    decode: Any = formatted.tokenizer.decode  # type: ignore[attr-defined]
    return [
        Shown(
            record,
            tuple(
                (decode([token]), bool(scored))
                for token, scored in zip(sample.ids.tolist(), sample.scored, strict=True)
            ),
        )
        for sample in load_samples([record], formatted, recipe.data)
    ]


def run(run: Run, listeners: tuple[Listener, ...] = (), *, resume: bool = False) -> Results:
    """Do every stage that is missing, to the measured model and its report."""
    results = evaluate(run, listeners, resume=resume)
    report(run)
    return results


def runs(root: str | Path = "runs") -> list[RunSummary]:
    """Return the runs in ``root``, newest first."""
    return list_runs(Path(root))


def _data_path(recipe: Recipe) -> Path:
    if recipe.data.path is None:
        raise DataError("error.no_data_path")
    return Path(recipe.data.path).expanduser()


def _recipe(run: Run) -> Recipe:
    from weitiao.plan.recipe import load_recipe

    return load_recipe(str(run.recipe))


def _source(recipe: Recipe) -> ModelSource:
    from weitiao.models.load import find_model

    asked = recipe.model
    return find_model(asked.name, asked.revision, asked.trust_remote_code)


def _chat_format(recipe: Recipe) -> ChatFormat:
    from weitiao.models.load import load_tokenizer
    from weitiao.records.render import ChatFormat as Format

    return Format(load_tokenizer(_source(recipe)))


def _samples(
    run: Run, part: str, recipe: Recipe, formatted: ChatFormat
) -> tuple[list[Sample], list[Record]]:
    from weitiao.records.prepare import load_records, load_samples

    records = load_records(run.records / f"{part}.jsonl")
    return load_samples(records, formatted, recipe.data), records


def _load_pair(run: Run, recipe: Recipe, settled: Plan) -> tuple[Voice, Voice]:
    import torch

    from weitiao.models.pair import load_pair

    dtype = torch.bfloat16 if settled.precision == "bf16" else torch.float32
    trained = run.model if settled.method == "full" else run.adapter
    return load_pair(_source(recipe), trained, dtype, torch.device(settled.device))


def _system_prompt(run: Run) -> str | None:
    """Return the system prompt that all training rows share, if they do."""
    from weitiao.records.prepare import load_records

    heads = {record.messages[:1] for record in load_records(run.records / "train.jsonl")}
    head = heads.pop() if len(heads) == 1 else ()
    return head[0].content if head and head[0].role == "system" else None


def _log(run: Run, listeners: tuple[Listener, ...]) -> EventLog:
    return EventLog(run.events, listeners)

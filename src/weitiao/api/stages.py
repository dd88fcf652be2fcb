"""The stages, left to right: each does what is missing before it, then its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from weitiao.api.begin import (
    chat_format,
    data_path,
    load_pair_of,
    log_of,
    note_base,
    recipe_of,
    refuse_in_team,
    source_of,
)
from weitiao.api.judging import judge
from weitiao.errors import DataError, RunError, TrainingError, WeitiaoError
from weitiao.events import EventLog, Listener
from weitiao.runs import Run

if TYPE_CHECKING:
    from weitiao.evaluation.compare import Results
    from weitiao.models.pair import Voice
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
    refuse_in_team()
    recipe = recipe_of(run)
    with run.lock():
        return prepare(
            data_path(recipe), run.records, recipe.data, chat_format(recipe), log_of(run, listeners)
        )


def plan(run: Run, listeners: tuple[Listener, ...] = (), *, probe: bool = False) -> Plan:
    """Settle what will be done on this machine and why; return the plan, whether or not it fits.

    With ``probe`` its time is measured by half a minute of training, and a plan that was made
    before is made again as long as nothing has been trained.
    """
    from weitiao.api.planning import make
    from weitiao.plan.machine import probe as look
    from weitiao.plan.plan import read_plan, write_plan
    from weitiao.plan.resolved import as_asked, recipe_yaml
    from weitiao.records.files import write_atomic
    from weitiao.records.prepare import load_records
    from weitiao.records.split import PARTS

    begun = run.checkpoints() or run.stage_done("train")
    try:
        planned = read_plan(run.plan) if run.stage_done("plan") else None
    except RunError:
        # Another version's: made again, unless something was trained by it.
        if begun:
            raise
        planned = None
    if planned is not None and (not probe or begun):
        return planned
    refuse_in_team()
    split(run, listeners)
    recipe = recipe_of(run) if planned is None else as_asked(recipe_of(run), planned)
    # What is wrong with the suite's rows is better told before hours of training than after.
    _own_rows(run, recipe)
    records = {part: load_records(run.records / f"{part}.jsonl") for part in PARTS}
    made = make(recipe, records, chat_format(recipe), look(run.path), probe=probe)
    with run.lock():
        write_plan(made, run.plan)
        write_atomic(run.recipe, recipe_yaml(recipe, made))
    return made


def train(run: Run, listeners: tuple[Listener, ...] = (), *, resume: bool = False) -> Plan:
    """Train as planned, or go on where a killed training was; return the plan it followed.

    Raises:
        PlanError: the plan does not fit this machine.
        RunError: a training was begun and not ended, and ``resume`` was not asked for.
        ModelError: it was begun on other weights than the base has now.
        TrainingError: training had to stop; the run can be resumed.
    """
    from weitiao.training.forked import may_fork
    from weitiao.training.launch import in_team, member_of_team, train_as_team

    with member_of_team():
        settled = plan(run, listeners)
        if run.stage_done("train"):
            return settled
        settled.require_fit()
        run.require_resumable(resume)
        note_base(run, recipe_of(run))
        if settled.processes > 1 and not may_fork(settled) and not in_team():
            train_as_team(run, settled, listeners)
        else:
            _train_here(run, settled, listeners)
    return settled


def _train_here(run: Run, settled: Plan, listeners: tuple[Listener, ...]) -> None:
    """Train in this process, alone or as one of several."""
    import torch

    from weitiao.models.adapters import add_adapter
    from weitiao.models.load import TYPES, load_model
    from weitiao.training.forked import may_fork, train_forked
    from weitiao.training.launch import lowered
    from weitiao.training.loop import Work
    from weitiao.training.loop import train as train_loop
    from weitiao.training.team import join

    recipe = recipe_of(run)
    formatted = chat_format(recipe)
    samples, records = _samples(run, "train", recipe, formatted)
    held_out, _ = _samples(run, "val", recipe, formatted)
    if not samples:
        raise TrainingError("error.nothing_to_train", path=run.records)
    # What is trained itself stays fp32; a frozen base is held as the plan says.
    whole = settled.method == "full"
    with join(settled) as team:
        base = load_model(
            source_of(recipe),
            torch.float32 if whole else TYPES[settled.precision],
            # Of weights that are spread out, only its part goes to each GPU.
            torch.device("cpu" if team.sharded else settled.device),
            len(formatted.tokenizer),  # type: ignore[arg-type]
            settled.quantization,
        )
        model = base if whole else add_adapter(base, settled)
        with _log_of_training(run, settled, listeners, leads=team.leads) as log:
            work = Work(
                model,
                lowered(settled),
                samples,
                held_out,
                [record.origin for record in records],
                run,
                log,
                formatted.tokenizer.save_pretrained,  # type: ignore[attr-defined]
                team,
            )
            if may_fork(settled) and team.size == 1:
                train_forked(work)
            else:
                train_loop(work)


@contextmanager
def _log_of_training(
    run: Run, settled: Plan, listeners: tuple[Listener, ...], *, leads: bool
) -> Iterator[EventLog]:
    """Keep others from the run and give its log; a process that does not lead tells nothing."""
    from weitiao.training.trackers import tracked

    if not leads:
        yield EventLog()
        return
    told = settled.model_dump(exclude={"reasons", "machine", "shape", "predicted"})
    log, folder = log_of(run, listeners), run.path / "trackers"
    with run.lock(), tracked(settled.trackers, run.path.name, folder, told, log) as more:
        yield log_of(run, (*listeners, *more))


def evaluate(run: Run, listeners: tuple[Listener, ...] = (), *, resume: bool = False) -> Results:
    """Measure the tuned model against its base on the held-out rows of ``run``.

    Where the recipe asks for a judge, it compares their answers afterwards; see
    :func:`~weitiao.api.judging.judge`.

    Raises:
        DataError: there are no held-out rows, or the suite's own were trained on.
        ModelError: what was trained cannot be loaded.
    """
    results = _measured(run, listeners, resume=resume)
    judge(run, listeners, again=resume)
    return results


def _measured(run: Run, listeners: tuple[Listener, ...], *, resume: bool) -> Results:
    from weitiao.api.measures import measure, missing
    from weitiao.evaluation.evaluate import load_results
    from weitiao.records.prepare import load_records

    known = None
    if run.stage_done("evaluate"):
        # Another version's file is made again: the answers are there.
        with suppress(RunError):
            known = load_results(run.evaluation / "results.json")
    if known is not None and _other_suite(run, known):
        known = None
    if known is not None and not missing(run, recipe_of(run).evaluate):
        return known
    settled = train(run, listeners, resume=resume)
    recipe = recipe_of(run)
    formatted = chat_format(recipe)
    log = log_of(run, listeners)
    with run.lock():
        pair = load_pair_of(run, recipe, settled)
        records = _own_rows(run, recipe) or load_records(run.records / "test.jsonl")
        found = known or _compare(run, recipe, settled, formatted, pair, records, log)
        measure(run, recipe, settled, formatted, pair, records, log)
    return found


def _other_suite(run: Run, known: Results) -> bool:
    """Return whether the suite is another, or holds other things, than what ``known`` counted.

    What ships changes with its version only, which a comparison tells of.
    """
    from weitiao.evaluation.suite import load_suite, suite_names

    which = recipe_of(run).evaluate.suite
    if which in suite_names():
        return known.suite.name != which
    # One that is gone, or broken by now, takes nothing away.
    with suppress(WeitiaoError):
        return load_suite(which).digest != known.suite.digest
    return False


def _compare(
    run: Run,
    recipe: Recipe,
    settled: Plan,
    formatted: ChatFormat,
    pair: tuple[Voice, Voice],
    records: list[Record],
    log: EventLog,
) -> Results:
    """Let both models answer ``records`` and compare what they say."""
    from weitiao.evaluation.answers import answerer
    from weitiao.evaluation.evaluate import evaluate as evaluate_records
    from weitiao.evaluation.suite import load_suite
    from weitiao.models.generate import Sampling

    asked = recipe.evaluate
    sampling = Sampling(
        settled.max_new_tokens, asked.temperature, asked.top_p, asked.repetition_penalty, asked.seed
    )
    base, tuned = (
        answerer(
            voice.model,
            formatted,
            sampling,
            pad_id=formatted.tokenizer.pad_token_id,  # type: ignore[attr-defined]
            identity=which,
            loss_budget=settled.micro_batch_tokens,
            context=voice.speaking,
            reasoning=recipe.data.reasoning,
        )
        for which, voice in zip(("base", "tuned"), pair, strict=True)
    )
    return evaluate_records(
        records,
        base,
        tuned,
        asked,
        load_suite(asked.suite),
        run.evaluation,
        log,
        batch_size=settled.eval_batch_size,
        max_tokens=settled.max_tokens,
    )


def _own_rows(run: Run, recipe: Recipe) -> list[Record]:
    """Return the rows that the suite brings along, which must be others than those to train on.

    None at all where it has none: then the rows that were kept out of training are answered.
    """
    from weitiao.evaluation.suite import load_suite
    from weitiao.evaluation.suite_rows import suite_records
    from weitiao.records.prepare import load_records
    from weitiao.records.similar import leaks

    suite = load_suite(recipe.evaluate.suite)
    if suite.rows is None:
        return []
    # What was said of the user's data need not hold for the suite's.
    plain = recipe.data.model_copy(update={"limit": None, "encoding": None, "columns": None})
    records = suite_records(Path(suite.rows), plain)
    trained = [record.asked for record in load_records(run.records / "train.jsonl")]
    asked, threshold = [record.asked for record in records], recipe.data.similar.threshold
    known = leaks(trained, asked, "prompt", threshold)
    if known and not recipe.evaluate.overlap:
        first = records[min(leak.test_row for leak in known)].origin
        values = {"file": first.file, "line": first.line}
        raise DataError("error.suite_overlaps", **values, count=len(known), rows=len(records))
    return records


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

"""A run from stage to stage on the screen, each shown as it is done."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from weitiao import api
from weitiao.cli import tables
from weitiao.cli.data_tables import show_report
from weitiao.cli.screen import blank, clean, show, verbatim
from weitiao.cli.view import View, spent
from weitiao.errors import DataError, ModelError
from weitiao.runs import Run
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.plan.plan import Plan
    from weitiao.plan.recipe import Recipe

Goal = Literal["split", "plan", "train", "eval", "run"]
_ORDER: tuple[Goal, ...] = ("split", "plan", "train", "eval", "run")

EXAMPLES_SHOWN = 3


def go(
    view: View,
    run: Run,
    goal: Goal,
    *,
    resume: bool = False,
    made: bool = False,
    probe: bool = False,
) -> None:
    """Do what is missing up to ``goal`` and show it; ``made``: the run was made just now.

    ``run`` shows every stage, the others their own and those that had to be done first.
    ``probe``: the plan's time is measured.
    """
    last = _ORDER.index(goal)
    if goal in ("split", "run") or not run.stage_done("records"):
        _data(view, run, made=made)
    if last >= 1 and (goal in ("plan", "run") or not run.stage_done("plan")):
        _plan(view, run, every=goal == "plan", probe=probe)
    if last >= 2 and (goal in ("train", "run") or not run.stage_done("train")):
        _train(view, run, resume=resume)
    if last >= 3:
        _evaluate(view, run, resume=resume)
    _next_step(view, run, goal)


def _data(view: View, run: Run, *, made: bool) -> None:
    view.heading(say("cli.stage.data"))
    view.wait(say("cli.progress.loading"))
    try:
        report = api.split(run, (view,))
    except (DataError, ModelError):
        # A run that never got its data holds nothing but the question.
        if made and not run.stage_done("records"):
            shutil.rmtree(run.path)
        raise
    view.still()
    view.note(say("cli.run_folder", path=clean(str(run.path))))
    show_report(view.console, report)
    if report.rejected:
        view.note(say("cli.data.rejected_file"))
        verbatim(view.console, str(run.records / "rejected.jsonl"), "")


def _plan(view: View, run: Run, *, every: bool, probe: bool) -> None:
    view.heading(say("cli.stage.plan"))
    view.wait(say("cli.progress.probing" if probe else "cli.progress.measuring"))
    settled = api.plan(run, (view,), probe=probe)
    view.still()
    _show_plan(view, settled, every=every)
    if not every:
        view.note(say("cli.plan.all", name=clean(str(run.path))), "dim")


def forecast(
    view: View, target: str, recipe: "Recipe", gpu: str | None, memory: str | None
) -> None:
    """Show the plan for a machine that is not here; nothing is written."""
    settled = api.forecast(target, recipe, gpu=gpu, memory=memory, listeners=(view,))
    view.still()
    view.heading(say("cli.stage.plan"))
    machine = settled.machine
    shown = machine.gpus[0].name if machine.gpus else f"{machine.memory_bytes / 2**30:.0f} GB"
    view.note(say("cli.plan.elsewhere" if machine.gpus else "cli.plan.no_gpu", machine=shown))
    _show_plan(view, settled, every=True)


def _show_plan(view: View, settled: "Plan", *, every: bool) -> None:
    view.note(
        say(
            "cli.plan.model",
            model=clean(settled.model),
            rows=f"{settled.rows:,}",
            tokens=f"{settled.tokens_per_epoch:,}",
        )
    )
    show(view.console, tables.settings(settled, every=every))
    view.note(tables.forecast(settled))
    for warning in settled.warnings:
        view.note(warning.sentence(), "yellow")
    if every:
        for problem in (*settled.problems, *settled.remedies):
            view.note(problem.sentence(), "red")


def _train(view: View, run: Run, *, resume: bool) -> None:
    from weitiao.evaluation.report.facts import read_facts

    view.heading(say("cli.stage.training"))
    view.wait(say("cli.progress.loading"))
    settled = api.train(run, (view,), resume=resume)
    view.still()
    happened = read_facts(run).training
    if happened is not None:
        predicted = settled.predicted
        view.note(
            spent(
                (predicted.train_seconds, predicted.peak_memory_bytes),
                (happened.seconds, happened.peak_memory_bytes),
            )
        )
        if happened.best_step:
            view.note(say("cli.kept", step=happened.best_step))


def _evaluate(view: View, run: Run, *, resume: bool) -> None:
    from weitiao.evaluation.judge import judge_sentences, load_judged
    from weitiao.evaluation.notes import notes

    view.heading(say("cli.stage.evaluation"))
    view.wait(say("cli.progress.loading"))
    results = api.evaluate(run, (view,), resume=resume)
    view.still()
    view.heading(say("cli.stage.result"))
    show(view.console, tables.scores(results))
    sentence, cautions = tables.verdict(results)
    view.console.print(sentence, soft_wrap=not view.console.is_terminal)
    for caution in cautions:
        view.note(caution, "yellow")
    for told, warns in notes(run.evaluation):
        view.note(told, "yellow" if warns else "")
    if (judged := run.evaluation / "judge.json").exists():
        for line in judge_sentences(load_judged(judged)):
            view.note(clean(line))
    drawn = [example for example in results.examples if example.why == "random"][:EXAMPLES_SHOWN]
    if drawn:
        blank(view.console)
        view.note(say("cli.result.examples"))
    for example in tables.side_by_side(drawn):
        show(view.console, example)


def _next_step(view: View, run: Run, goal: Goal) -> None:
    """Say where the result is and which command comes next."""
    console = view.console
    blank(console)
    if goal == "run":
        report(view, run)
    following = {
        "split": ("cli.next.plan", "weitiao plan"),
        "plan": ("cli.next.train", "weitiao train"),
        "train": ("cli.next.eval", "weitiao eval"),
        "eval": ("cli.next.report", "weitiao report"),
        "run": ("cli.next.chat", "weitiao chat"),
    }
    key, command = following[goal]
    view.note(say(key))
    verbatim(console, tables.command(command, str(run.path)))
    if goal == "run":
        view.note(say("cli.next.runs"))
        verbatim(console, "weitiao runs")


def report(view: View, run: Run) -> Path:
    """Write the report and say where it is."""
    path = api.report(run)
    view.note(say("cli.result.report"))
    verbatim(view.console, str(path))
    return path

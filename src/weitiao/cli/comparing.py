"""The verbs that compare: runs with each other, and a run's two models on public tasks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from weitiao import api
from weitiao.cli import tables
from weitiao.cli.asked import RunName
from weitiao.cli.growing import whole
from weitiao.cli.screen import clean, screen, sentence, show, verbatim
from weitiao.cli.view import View
from weitiao.errors import RecipeError
from weitiao.events import Event
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.evaluation.comparing import RunsCompared
    from weitiao.evaluation.lm_eval_tasks import LmEval, TaskLine

_STYLES = {"better": "bold green", "worse": "bold red", "caution": "yellow"}


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="cli.help.compare_runs")],
    out: Annotated[str | None, typer.Option(metavar="FILE", help="cli.help.compare_out")] = None,
) -> None:
    """Compare runs."""
    from weitiao.evaluation.comparing import write_page
    from weitiao.evaluation.comparing.present import verdict_sentences

    if out is not None and Path(out).suffix.lower() != ".html":
        raise RecipeError("cli.usage.compare_out", value=out)
    console = screen()
    found = api.compare([api.open_run(run) for run in runs])
    show(console, _side_by_side(found))
    _show_pairs(console, found)
    _show_differences(console, found)
    for said, kind in verdict_sentences(found):
        sentence(console, clean(said), _STYLES.get(kind, "bold yellow"))
    for note in found.notes:
        sentence(console, clean(note.sentence()), "yellow")
    if out is not None:
        write_page(found, Path(out))
        sentence(console, say("cli.compare.page"))
        verbatim(console, clean(out))


def _side_by_side(found: "RunsCompared") -> Table:
    from weitiao.evaluation.comparing.present import table_lines

    made = tables.table("", *(clean(column.name) for column in found.columns))
    for line in table_lines(found):
        style = "bold" if line.decides else ""
        made.add_row(clean(line.label, 60), *map(clean, line.cells), style=style)
    return made


def _show_pairs(console: Console, found: "RunsCompared") -> None:
    from weitiao.evaluation.comparing.present import pair_lines

    # The unit stands in the column before.
    first, unit = clean(found.columns[0].name), say("unit.points", value="")
    for against in found.against:
        name = clean(against.name)
        sentence(console, say("compare.of", name=name, first=first))
        confidence = f"{100 * against.results.confidence:g}%"
        headings = say("report.difference"), say("cli.result.interval", confidence=confidence)
        made = tables.table(say("report.score"), first, name, *headings, "")
        for column in made.columns[1:5]:
            column.justify = "right"
        for line, (score, before, after, change, interval) in pair_lines(against):
            cells = (before, after, change, interval.removesuffix(unit))
            made.add_row(clean(score, 40), *cells, _mark(line.change))
        show(console, made)


def _show_differences(console: Console, found: "RunsCompared") -> None:
    if not found.differences:
        return
    sentence(console, say("compare.settings"))
    made = tables.table("", *(clean(column.name) for column in found.columns))
    for difference in found.differences:
        made.add_row(difference.setting, *(clean(value, 80) for value in difference.values))
    show(console, made)


def _mark(change: str | None) -> Text:
    style = _STYLES.get(change or "", "").removeprefix("bold ")
    return Text(say(f"report.change.{change}") if change else "", style=style)


def benchmark(
    run: RunName,
    tasks: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="cli.help.benchmark_tasks")
    ] = None,
    limit: Annotated[str | None, typer.Option(metavar="N", help="cli.help.benchmark_limit")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="cli.help.benchmark_chat")] = False,
) -> None:
    """Ask both models public tasks."""
    names = list(dict.fromkeys(filter(None, map(str.strip, (tasks or "").split(",")))))
    if not names:
        raise RecipeError("cli.usage.benchmark_tasks")
    most = None if limit is None else whole("--limit", limit)
    opened = api.open_run(run)
    with View(screen()) as view:

        def told(event: Event) -> None:
            if event.kind == "lm_eval.start":
                said = say(f"cli.benchmark.{event.data['which']}", tasks=event.data["tasks"])
                view.wait(clean(said))

        view.wait(say("cli.benchmark.fetching"))
        found = api.benchmark(opened, names, most, (told,), chat=chat)
        view.still()
        _show_benchmark(view.console, found)


def _show_benchmark(console: Console, found: "LmEval") -> None:
    from weitiao.evaluation.lm_eval_tasks import CONFIDENCE

    made = tables.table(
        say("cli.benchmark.task"),
        say("cli.benchmark.metric"),
        say("cli.benchmark.rows"),
        say("report.base"),
        say("report.tuned"),
        say("report.difference"),
        "",
    )
    for column in made.columns[2:6]:
        column.justify = "right"
    for line in found.lines:
        made.add_row(*_cells(line), _mark(line.change))
    show(console, made)
    sentence(console, say("cli.benchmark.note", confidence=f"{100 * CONFIDENCE:g}%"), "dim")


def _cells(line: "TaskLine") -> list[str]:
    def within(value: float, error: float | None, sign: str = "") -> str:
        number = f"{value:{sign}.3f}"
        return number if error is None else f"{number} ± {error:.3f}"

    return [
        clean(line.task, 40),
        clean(line.metric, 40),
        f"{line.rows:,}",
        within(line.base, line.base_error),
        within(line.tuned, line.tuned_error),
        within(line.difference, line.error, "+"),
    ]

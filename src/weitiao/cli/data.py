"""The verbs of ``weitiao data``: everything between a person's file and rows to train on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from weitiao import api
from weitiao.cli import growing
from weitiao.cli.asked import (
    Asked,
    Columns,
    DataFile,
    Model,
    RecipeName,
    Rows,
    Settings,
    System,
    Target,
    add_stage,
    one_of,
)
from weitiao.cli.screen import screen, sentence, show, verbatim
from weitiao.cli.usage import Command, Group
from weitiao.errors import RecipeError
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.plan.recipe import Recipe
    from weitiao.records.record import Record

data_app = typer.Typer(cls=Group, help="cli.help.data", add_completion=False)


@data_app.command("check", help="cli.help.check", cls=Command)
def check(
    data: DataFile,
    settings: Settings = None,
    model: Model = None,
    recipe: RecipeName = None,
    system: System = None,
    columns: Columns = None,
    no_tokens: Annotated[bool, typer.Option("--no-tokens", help="cli.help.no_tokens")] = False,
) -> None:
    """Read and check a data file; write nothing."""
    from weitiao.cli import tables
    from weitiao.cli.data_tables import show_report
    from weitiao.cli.view import View

    asked = Asked(model, recipe, system=system, columns=columns, settings=settings or ())
    wanted = asked.recipe_for(data)
    with View(screen()) as view:
        view.wait(say("cli.progress.loading"))
        checked = api.check(wanted, (view,), tokens=not no_tokens)
        view.still()
        show_report(view.console, checked.report)
        view.note(say("cli.next.show"))
        verbatim(view.console, tables.command("weitiao data show", data, "--tokens"))
        view.note(say("cli.next.data_report"))
        verbatim(view.console, tables.command("weitiao data report", data))


add_stage(data_app, "split", "cli.help.split")


@data_app.command("show", help="cli.help.show", cls=Command)
def show_rows(
    target: Target,
    rows: Rows = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="cli.help.tokens")] = False,
    model: Model = None,
    recipe: RecipeName = None,
    system: System = None,
    columns: Columns = None,
) -> None:
    """Show rows as they are used."""
    from weitiao.cli.rows import FIRST_ROWS, legend, row_head, shown_text, shown_tokens
    from weitiao.cli.view import View

    numbers = [int(word) for word in rows or () if _is_number(word)]
    words = [word for word in rows or () if not _is_number(word)]
    asked = Asked(model, recipe, system=system, columns=columns, settings=words)
    console = screen()
    with View(console) as view:
        view.wait(say("cli.progress.loading"))
        wanted, records = _kept(target, asked)
        numbers = numbers or list(range(1, min(FIRST_ROWS, len(records)) + 1))
        found = [(n, api.show(records, wanted, n)) for n in numbers]
    for number, samples in found:
        sentence(console, row_head(number, samples[0].record), "bold")
        for sample in samples:
            show(console, shown_tokens(sample, console) if tokens else shown_text(sample.record))
    if tokens:
        sentence(console, legend(console), "dim")


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _refuse_settings(target: str, settings: "Sequence[str] | None") -> None:
    if settings and api.find_run(target) is not None:
        raise RecipeError("cli.usage.settings_of_run", target=target)


def _kept(target: str, asked: Asked) -> "tuple[Recipe, Sequence[Record]]":
    """Return the recipe and the usable rows of a run or of a data file."""
    _refuse_settings(target, asked.settings)
    run = api.find_run(target)
    if run is None:
        recipe = asked.recipe_for(target)
        return recipe, api.check(recipe).records
    return api.recipe_of(run), api.kept_rows(run)


@data_app.command("report", help="cli.help.data_report", cls=Command)
def report(
    target: Target,
    settings: Settings = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="cli.help.out_page")] = None,
    model: Model = None,
    recipe: RecipeName = None,
    system: System = None,
    columns: Columns = None,
) -> None:
    """Write the page on the data."""
    _refuse_settings(target, settings)
    from weitiao.cli import tables
    from weitiao.cli.view import View

    asked = Asked(model, recipe, system=system, columns=columns, settings=settings or ())
    wanted = asked.recipe_for(target)
    with View(screen()) as view:
        view.wait(say("cli.progress.loading"))
        path, found = api.report_data(target, wanted, out, (view,))
        view.still()
        for text in tables.data_sentences(found):
            view.note(text)
        view.note(say("cli.data.page"))
        verbatim(view.console, str(path))


@data_app.command("convert", help="cli.help.convert", cls=Command)
def convert(
    target: Target,
    settings: Settings = None,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="cli.help.to")] = "openai",
    out: Annotated[str | None, typer.Option(metavar="FILE", help="cli.help.out_file")] = None,
    part: Annotated[str | None, typer.Option(metavar="PART", help="cli.help.part")] = None,
    columns: Columns = None,
) -> None:
    """Write the rows as another tool reads them."""
    from weitiao.cli.screen import clean
    from weitiao.records.shaping import Format

    form = one_of("--to", to, get_args(Format))
    chosen = None if part is None else one_of("--part", part, get_args(api.Part))
    wanted = Asked(columns=columns, settings=settings or ()).recipe_for(target)
    path = out or f"{Path(target).stem}.{form}.jsonl"
    done = api.convert(target, wanted, form, path, chosen)
    console = screen()
    for text in done.told:
        sentence(console, clean(text))
    sentence(console, say("cli.data.converted", rows=f"{done.rows:,}", format=form))
    if done.rows:
        verbatim(console, path)
    if done.aside:
        sentence(console, say("cli.data.put_aside", rows=f"{done.rejected:,}"), "yellow")
        verbatim(console, str(done.aside), "")


@data_app.command("leaks", help="cli.help.leaks", cls=Command)
def leaks(
    target: Target,
    settings: Settings = None,
    test: Annotated[
        str | None, typer.Option("--test", metavar="FILE", help="cli.help.test")
    ] = None,
    columns: Columns = None,
) -> None:
    """Look for test rows that the training rows give away."""
    from weitiao.cli import data_tables
    from weitiao.cli.view import View

    if test is None:
        raise RecipeError("cli.usage.missing_test")
    wanted = Asked(columns=columns, settings=settings or ()).recipe_for(target)
    with View(screen()) as view:
        view.wait(say("cli.progress.comparing"))
        found = api.leaks(target, wanted, test)
        view.still()
        if found.unread:
            view.note(say("cli.data.unread", rows=f"{found.unread:,}"), "yellow")
        rows, tested = f"{found.rows:,}", f"{found.test_rows:,}"
        threshold = f"{100 * wanted.data.similar.threshold:.0f}%"
        if not found.rows:
            view.note(say("cli.data.no_leaks", rows=tested, threshold=threshold))
            return
        view.note(say("cli.data.leaked", rows=rows, all=tested, threshold=threshold))
        show(view.console, data_tables.leaks(found))


growing.add_verbs(data_app)

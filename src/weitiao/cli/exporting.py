"""The verb that writes what was trained for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from weitiao import api
from weitiao.cli import tables
from weitiao.cli.asked import RunName
from weitiao.cli.growing import whole
from weitiao.cli.screen import blank, clean, screen, sentence, show, verbatim
from weitiao.cli.view import View
from weitiao.errors import RecipeError
from weitiao.events import Event
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.export.write import Target

FAILED = 1
"""The exit status where a form failed the gate."""


def export(
    run: RunName,
    to: Annotated[str | None, typer.Option(metavar="FORM,FORM", help="cli.help.export_to")] = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="cli.help.export_out")] = None,
    prompts: Annotated[str, typer.Option(metavar="N", help="cli.help.export_prompts")] = "32",
    table: Annotated[bool, typer.Option("--table", help="cli.help.export_table")] = False,
    force: Annotated[bool, typer.Option("--force", help="cli.help.export_force")] = False,
    no_server: Annotated[
        bool, typer.Option("--no-server", help="cli.help.export_no_server")
    ] = False,
) -> None:
    """Write the tuned model for other programs."""
    targets, count = _targets(to), whole("--prompts", prompts)
    opened = api.open_run(run)
    folder = opened.path / "exports" if out is None else Path(out)
    done: list[api.Exported] = []
    with View(screen()) as view:

        def told(event: Event) -> None:
            if event.kind in ("export.writing", "export.asking", "export.progress"):
                view.wait(clean(say(f"cli.{event.kind}", **event.data)))

        view.wait(say("cli.progress.loading"))
        for exported in api.export(
            opened,
            targets,
            (told,),
            out=folder,
            prompts=count,
            force=force,
            server=not no_server,
        ):
            done.append(exported)
            view.still()
            _show(view.console, exported)
        _show_table(view.console, done)
        if table:
            sentence(view.console, say("cli.export.page"))
            verbatim(view.console, clean(str(api.export_page(folder, opened.path.resolve().name))))
    if any(exported.parity.failures for exported in done):
        raise typer.Exit(FAILED)


def _targets(to: str | None) -> "list[Target]":
    """Return the forms that ``--to`` names.

    Raises:
        RecipeError: one is unknown, or none is named.
    """
    from weitiao.export.write import TARGETS

    names = list(dict.fromkeys(filter(None, map(str.strip, (to or "").split(",")))))
    if names == ["all"]:
        return list(TARGETS)
    known = ", ".join(TARGETS)
    if not names:
        raise RecipeError("cli.usage.export_to", targets=known)
    for name in names:
        if name not in TARGETS:
            choices = f"{known}, all"
            raise RecipeError("cli.usage.choice", option="--to", value=name, choices=choices)
    return [target for target in TARGETS if target in names]


def _show(console: Console, exported: api.Exported) -> None:
    from weitiao.export.present import sentences

    failed = bool(exported.parity.failures)
    for said in sentences(exported.parity):
        sentence(console, clean(said), "red" if failed else "")
    if exported.target == "server":
        return
    if exported.path is None:
        sentence(console, say("cli.export.gone"), "red")
        return
    verbatim(console, clean(str(exported.path)))
    if exported.note is not None:
        sentence(console, clean(exported.note), "yellow")


def _show_table(console: Console, done: list[api.Exported]) -> None:
    from weitiao.export.present import headings, row, trained_row

    if not done:
        return
    made = tables.table(*headings())
    for column in made.columns[1:8]:
        column.justify = "right"
    made.add_row(*map(clean, trained_row(done[0].parity)))
    for exported in done:
        failed = bool(exported.parity.failures)
        made.add_row(*map(clean, row(exported.parity)), style="red" if failed else "")
    blank(console)
    show(console, made)

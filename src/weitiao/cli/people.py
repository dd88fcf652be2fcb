"""The verb with which people compare answers: a page, what came out, rows to train on."""

import os
import sys
import webbrowser
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from weitiao import api
from weitiao.api import people
from weitiao.cli import tables
from weitiao.cli.asked import one_of
from weitiao.cli.growing import whole
from weitiao.cli.screen import blank, clean, screen, sentence, show, verbatim
from weitiao.errors import RecipeError
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.evaluation.people import Match, ReviewServer
    from weitiao.runs import Run

_LAST_PORT = 65535


def review(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="cli.help.people_runs")],
    reviewer: Annotated[
        str | None, typer.Option(metavar="NAME", help="cli.help.people_reviewer")
    ] = None,
    port: Annotated[str, typer.Option(metavar="N", help="cli.help.people_port")] = "8765",
    rows: Annotated[str | None, typer.Option(metavar="N", help="cli.help.people_rows")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="cli.help.no_browser")] = False,
    results: Annotated[bool, typer.Option("--results", help="cli.help.people_results")] = False,
    export: Annotated[
        str | None, typer.Option(metavar="FILE", help="cli.help.people_export")
    ] = None,
    form: Annotated[
        str, typer.Option("--as", metavar="FORM", help="cli.help.people_as")
    ] = "preferences",
) -> None:
    """Have people compare answers."""
    from weitiao.evaluation.people import FORMS

    if len(runs) > 2:
        raise RecipeError("cli.usage.two_runs", number=len(runs))
    if results and export is not None:
        raise RecipeError("cli.usage.export_or_results")
    written, number = one_of("--as", form, FORMS), port_number(port)
    most = None if rows is None else whole("--rows", rows)
    console, opened = screen(), [api.open_run(run) for run in runs]
    matched = people.match(opened, most)
    if export is not None:
        done = people.export(opened, matched, written, export)
        counts = {"rows": f"{done.rows:,}", "ties": f"{done.ties:,}", "wrong": f"{done.wrong:,}"}
        sentence(console, say("cli.people.exported", **counts))
        if done.rows:
            verbatim(console, clean(export))
    elif results:
        if not _show_results(console, opened, matched):
            sentence(console, say("cli.people.none"))
            verbatim(console, tables.command("weitiao review", *runs))
    else:
        with people.reviewing(opened, matched, number, reviewer or "") as server:
            _serve(console, matched, server, browser=not no_browser)
        blank(console)
        _show_results(console, opened, matched)
        sentence(console, say("cli.people.ended"))


def _serve(console: Console, matched: "Match", server: "ReviewServer", *, browser: bool) -> None:
    counts = {"rows": f"{len(matched.rows):,}", "identical": f"{matched.identical:,}"}
    sentence(console, say("cli.people.rows", **counts))
    if matched.unmatched:
        sentence(console, say("cli.people.unmatched", rows=f"{matched.unmatched:,}"), "yellow")
    sentence(console, say("cli.people.address"))
    verbatim(console, server.address)
    sys.stdout.flush()
    if browser and _has_windows():
        webbrowser.open(server.address)
    with suppress(KeyboardInterrupt):
        server.serve_forever()


def _has_windows() -> bool:
    """Return whether a browser would have a screen; one of text would take the terminal."""
    wanted = ("DISPLAY", "WAYLAND_DISPLAY")
    return not sys.platform.startswith("linux") or any(map(os.environ.get, wanted))


def _show_results(console: Console, runs: list["Run"], matched: "Match") -> bool:
    """Show what came out, if anybody has voted; return whether somebody has."""
    from weitiao.evaluation.people.present import facts, headline

    found = people.results(runs, matched)
    if found is None:
        return False
    sentence(console, clean(headline(found)), "bold")
    made = tables.table("", "")
    made.show_header = False
    for name, value in facts(found):
        made.add_row(clean(name), clean(value))
    show(console, made)
    for comment in found.comments:
        line = f"{comment.reviewer}: {comment.text} ({comment.question})"
        sentence(console, clean(line, 300, lines=3), "dim")
    return True


def port_number(text: str) -> int:
    """Return the port that was typed.

    Raises:
        RecipeError: it is none.
    """
    if text.isdecimal() and int(text) <= _LAST_PORT:
        return int(text)
    raise RecipeError("cli.usage.port", value=text)

"""The verbs of ``weitiao feedback``: what people said of the answers they got."""

from datetime import datetime
from typing import Annotated

import typer

from weitiao.api import feedback
from weitiao.cli import tables
from weitiao.cli.asked import one_of
from weitiao.cli.growing import whole
from weitiao.cli.screen import clean, screen, sentence, show, verbatim
from weitiao.cli.usage import Command, Group
from weitiao.errors import RecipeError
from weitiao.words import say

feedback_app = typer.Typer(cls=Group, help="cli.help.feedback", add_completion=False)

Place = Annotated[str, typer.Argument(metavar="RUN|FILE", help="cli.help.feedback_place")]


@feedback_app.command("list", help="cli.help.feedback_list", cls=Command)
def list_feedback(
    place: Place,
    rows: Annotated[str, typer.Option("-n", metavar="N", help="cli.help.feedback_rows")] = "20",
) -> None:
    """Show the last feedback."""
    most, console = whole("-n", rows), screen()
    found = feedback.listing(place)
    if not found:
        sentence(console, say("cli.feedback.none"))
        return
    columns = (
        say("cli.feedback.when"),
        say("cli.feedback.thumb"),
        say("cli.feedback.question"),
        say("cli.feedback.answer"),
        say("cli.feedback.correction"),
        say("cli.feedback.comment"),
        say("cli.feedback.id"),
    )
    made = tables.table(*columns)
    # To be copied for weitiao feedback delete.
    made.columns[-1].no_wrap = True
    thumbs = {"up": say("cli.feedback.up"), "down": say("cli.feedback.down"), None: ""}
    for entry in reversed(found[-most:]):
        said = entry.feedback
        asked = said.messages[-1]["content"] if said.messages else ""
        texts = (asked, said.answer or "", said.correction or "", said.comment or "")
        when = datetime.fromtimestamp(entry.time).strftime("%Y-%m-%d %H:%M")
        shown = (clean(text, 60, lines=1) for text in texts)
        made.add_row(when, thumbs[said.thumb], *shown, clean(entry.request))
    show(console, made)
    counts = {"shown": f"{min(most, len(found)):,}", "all": f"{len(found):,}"}
    sentence(console, say("cli.feedback.shown", **counts))


@feedback_app.command("export", help="cli.help.feedback_export", cls=Command)
def export(
    place: Place,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="cli.help.out_file")],
    form: Annotated[
        str, typer.Option("--as", metavar="FORM", help="cli.help.feedback_as")
    ] = "answers",
) -> None:
    """Write rows to train on."""
    from weitiao.serving.feedback_rows import FORMS

    written, console = one_of("--as", form, FORMS), screen()
    done = feedback.export(place, out, written)
    sentence(console, say("cli.feedback.exported", rows=f"{done.rows:,}"))
    if done.rows:
        verbatim(console, clean(out))
    if done.unknown:
        sentence(console, say("cli.feedback.unknown", rows=f"{done.unknown:,}"), "yellow")
    if done.cut:
        sentence(console, say("cli.feedback.cut", rows=f"{done.cut:,}"), "yellow")
    if done.same:
        sentence(console, say("cli.feedback.same", rows=f"{done.same:,}"), "yellow")


@feedback_app.command("delete", help="cli.help.feedback_delete", cls=Command)
def delete(
    place: Place,
    id_: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="cli.help.feedback_id")
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="DATE", help="cli.help.feedback_before")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="cli.help.feedback_all")] = False,
) -> None:
    """Delete requests and feedback."""
    if bool(id_) + (before is not None) + all_ != 1:
        raise RecipeError("cli.usage.feedback_delete")
    until = None if before is None else _day(before)
    done = feedback.delete(place, id_ or None, until)
    counts = {"requests": f"{done.requests:,}", "feedbacks": f"{done.feedbacks:,}"}
    sentence(screen(), say("cli.feedback.deleted", **counts))


def _day(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%d").timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise RecipeError("cli.usage.feedback_day", value=text) from error

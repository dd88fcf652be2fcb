"""The verbs that make rows and let people judge them: grow, draft, review."""

import getpass
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weitiao import api
from weitiao.cli import data_tables, tables
from weitiao.cli.asked import Asked, Columns, DataFile, Settings, one_of
from weitiao.cli.screen import clean, screen, sentence, show, verbatim
from weitiao.cli.usage import Command
from weitiao.cli.view import View
from weitiao.errors import RecipeError
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.endpoint import Endpoint
    from weitiao.plan.recipe import Recipe
    from weitiao.records.growing import Grown, Method

METHODS = ("synonyms", "paraphrase", "back_translation")
_SHARE = 0.2
"""The largest share of words that is exchanged where nothing else is said."""

OutFile = Annotated[str | None, typer.Option("--out", metavar="FILE", help="cli.help.out_file")]


def add_verbs(home: typer.Typer) -> None:
    """Put the verbs of this file into ``home``."""
    for name, verb in (("grow", grow), ("draft", draft), ("review", review)):
        home.command(name, help=f"cli.help.{name}", cls=Command)(verb)


def grow(
    data: DataFile,
    settings: Settings = None,
    by: Annotated[str, typer.Option("--by", metavar="METHOD", help="cli.help.by")] = "synonyms",
    thesaurus: Annotated[
        str | None, typer.Option(metavar="FILE", help="cli.help.thesaurus")
    ] = None,
    number: Annotated[str, typer.Option("-n", metavar="N", help="cli.help.variants")] = "1",
    words: Annotated[
        str | None, typer.Option("--share", metavar="SHARE", help="cli.help.share")
    ] = None,
    answers: Annotated[bool, typer.Option("--answers", help="cli.help.answers")] = False,
    via: Annotated[str | None, typer.Option(metavar="LANGUAGE", help="cli.help.via")] = None,
    out: OutFile = None,
    columns: Columns = None,
) -> None:
    """Write the rows and new wordings of them."""
    wanted = Asked(columns=columns, settings=settings or ()).recipe_for(data)
    path = out or f"{Path(data).stem}.grown.jsonl"
    with View(screen()) as view:
        view.wait(say("cli.progress.growing"))
        count, part = whole("-n", number), share("--share", words)
        with ExitStack() as service:
            if one_of("--by", by, METHODS) == "synonyms":
                method = _synonyms(thesaurus, part, answers)
            else:
                method = _rewording(by, via, service.enter_context(api.endpoint(wanted)))
            grown, unread = api.grow(wanted, method, path, count)
        view.still()
        counts = {"rows": f"{grown.rows:,}", "new": f"{grown.new:,}"}
        view.note(say("cli.grow.done", **counts))
        _tell(view, grown, unread)
        view.note(say("cli.grow.next"))
        verbatim(view.console, tables.command("weitiao run", path))


def draft(
    documents: DataFile,
    settings: Settings = None,
    pairs: Annotated[str, typer.Option(metavar="N", help="cli.help.pairs")] = "3",
    out: OutFile = None,
) -> None:
    """Write questions and answers drafted from documents."""
    wanted = Asked(settings=settings or ()).recipe_for(documents)
    path = out or f"{Path(documents).stem}.drafts.jsonl"
    with View(screen()) as view:
        view.wait(say("cli.progress.drafting"))
        drafted, unread = api.draft(wanted, path, whole("--pairs", pairs))
        view.still()
        counts = {"passages": f"{drafted.rows:,}", "new": f"{drafted.new:,}"}
        view.note(say("cli.draft.done", **counts))
        _tell(view, drafted, unread)
        view.note(say("cli.draft.next"))
        verbatim(view.console, tables.command("weitiao data review", path))


def review(
    data: DataFile,
    settings: Settings = None,
    reviewer: Annotated[str | None, typer.Option(metavar="NAME", help="cli.help.reviewer")] = None,
    double: Annotated[str | None, typer.Option(metavar="SHARE", help="cli.help.double")] = None,
    export: Annotated[str | None, typer.Option(metavar="FILE", help="cli.help.export")] = None,
    take_in: Annotated[
        str | None, typer.Option("--import", metavar="FILE", help="cli.help.import")
    ] = None,
    columns: Columns = None,
) -> None:
    """Accept, edit or reject rows."""
    wanted = Asked(columns=columns, settings=settings or ()).recipe_for(data)
    console = screen()
    if export is not None:
        _export(wanted, export)
    elif take_in is not None:
        _import(wanted, take_in)
    else:
        from weitiao.cli.review import run_review

        with View(console) as view:
            view.wait(say("cli.progress.loading"))
            name, part = reviewer or getpass.getuser(), share("--double", double)
            session, unread = api.review(wanted, name, part)
            _tell_unread(view, unread)
        run_review(session, console)


def whole(option: str, text: str) -> int:
    """Return a number above 0.

    Raises:
        RecipeError: it is no such number.
    """
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise RecipeError("cli.usage.number", option=option, value=text)


def share(option: str, text: str | None) -> float | None:
    """Return a share from 0 to 1; None where none was given.

    Raises:
        RecipeError: it is no such share.
    """
    try:
        value = None if text is None else float(text)
    except ValueError:
        value = -1.0
    if value is None or 0 <= value <= 1:
        return value
    raise RecipeError("cli.usage.share", option=option, value=text)


def _synonyms(thesaurus: str | None, words: float | None, answers: bool) -> "Method":
    from weitiao.records import growing

    if thesaurus is None:
        raise RecipeError("cli.usage.no_thesaurus")
    found = growing.load_thesaurus(thesaurus)
    return growing.synonyms(found, _SHARE if words is None else words, answers)


def _rewording(by: str, via: str | None, service: "Endpoint") -> "Method":
    from weitiao.records import growing

    if by == "paraphrase":
        return growing.paraphrase(service)
    return growing.back_translation(service, via)


def _tell(view: View, grown: "Grown", unread: int) -> None:
    """Say what was refused and where it stands, and what could not be read."""
    if grown.aside is not None:
        show(view.console, data_tables.refusals(grown))
        view.note(say("cli.data.put_aside", rows=f"{sum(grown.rejected.values()):,}"))
        verbatim(view.console, str(grown.aside), "")
    _tell_unread(view, unread)
    view.note(say("cli.data.written"))
    verbatim(view.console, str(grown.path))


def _tell_unread(view: View, unread: int) -> None:
    if unread:
        view.note(say("cli.data.unread", rows=f"{unread:,}"), "yellow")


def _export(recipe: "Recipe", path: str) -> None:
    from weitiao.records.review.label_studio import labelling_page

    console = screen()
    rows, unread = api.export_review(recipe, path)
    sentence(console, say("cli.review.exported", rows=f"{rows:,}"))
    verbatim(console, path)
    if unread:
        sentence(console, say("cli.data.unread", rows=f"{unread:,}"), "yellow")
    sentence(console, say("cli.review.labelling"))
    verbatim(console, labelling_page(), "")


def _import(recipe: "Recipe", path: str) -> None:
    imported, votes, new = api.import_review(recipe, path)
    console = screen()
    unused = imported.cancelled + imported.unusable + imported.foreign
    told = {"new": f"{new:,}", "known": f"{len(imported.votes) - new:,}", "unused": f"{unused:,}"}
    sentence(console, say("cli.review.imported", **told))
    verbatim(console, clean(str(votes)))

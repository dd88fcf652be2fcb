"""The verbs. Each is a thin door: it gathers what was said and calls ``weitiao.api``.

Help texts and headings are keys of the catalogue, put into words when they are shown.
Nothing heavy is imported before a verb needs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weitiao import __version__, api
from weitiao.cli.screen import screen, sentence, show, verbatim
from weitiao.cli.usage import Command, Group
from weitiao.errors import RecipeError
from weitiao.runs import Exists, Run
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.cli.stages import Goal
    from weitiao.plan.recipe import Recipe
    from weitiao.records.record import Record

Target = Annotated[str, typer.Argument(metavar="DATA|RUN", help="cli.help.target")]
DataFile = Annotated[str, typer.Argument(metavar="DATA", help="cli.help.data_file")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="cli.help.run_name")]
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="key=value", help="cli.help.settings")
]
Rows = Annotated[list[str] | None, typer.Argument(metavar="NUMBER", help="cli.help.row_number")]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="cli.help.model")]
RecipeName = Annotated[str | None, typer.Option("--recipe", metavar="NAME", help="cli.help.recipe")]
Out = Annotated[str | None, typer.Option("--out", metavar="DIR", help="cli.help.out")]
System = Annotated[str | None, typer.Option("--system", metavar="TEXT", help="cli.help.system")]
Columns = Annotated[
    str | None, typer.Option("--columns", metavar="ASK,ANSWER", help="cli.help.columns")
]
Resume = Annotated[bool, typer.Option("--resume", help="cli.help.resume")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="cli.help.overwrite")]

_START, _STAGES = "cli.panel.start", "cli.panel.stages"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was said beside the data or the run."""

    model: str | None = None
    recipe: str | None = None
    out: str | None = None
    system: str | None = None
    columns: str | None = None
    resume: bool = False
    overwrite: bool = False
    settings: Sequence[str] = ()

    def recipe_for(self, data: str | None) -> "Recipe":
        """Return the recipe with all of it put in."""
        return api.recipe_for(
            data,
            model=self.model,
            recipe=self.recipe,
            overrides=self.settings,
            system=self.system,
            columns=self.columns,
        )

    @property
    def exists(self) -> Exists:
        """What is to become of a run directory that is there already."""
        if self.resume and self.overwrite:
            raise RecipeError("cli.usage.resume_or_overwrite")
        return "resume" if self.resume else "overwrite" if self.overwrite else "refuse"


app = typer.Typer(cls=Group, help="cli.help.weitiao", add_completion=False)
data_app = typer.Typer(cls=Group, help="cli.help.data", add_completion=False)


def command_line() -> Any:
    """Return the command line, ready to be given arguments."""
    return typer.main.get_command(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"weitiao {__version__}")
        raise typer.Exit


@app.callback()
def options(
    lang: Annotated[
        str | None, typer.Option("--lang", metavar="en|zh", help="cli.help.lang")
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="cli.help.version"),
    ] = False,
) -> None:
    """Show what every verb has; ``main`` takes ``--lang`` off the line wherever it stands."""


def _go(target: str, asked: Asked, goal: "Goal") -> None:
    from weitiao.cli.stages import go
    from weitiao.cli.view import View

    recipe = asked.recipe_for(target)
    with View(screen()) as view:
        view.wait(say("cli.progress.loading"))
        run, made = api.open_or_start(target, recipe, asked.out, asked.exists)
        go(view, run, goal, resume=asked.resume, made=made)


def _stage(name: "Goal", key: str, panel: str) -> None:
    """Make the verb ``name``, which does what is missing up to its stage."""

    def verb(
        target: Target,
        settings: Settings = None,
        model: Model = None,
        recipe: RecipeName = None,
        out: Out = None,
        system: System = None,
        columns: Columns = None,
        resume: Resume = False,
        overwrite: Overwrite = False,
    ) -> None:
        asked = Asked(model, recipe, out, system, columns, resume, overwrite, settings or ())
        _go(target, asked, name)

    home = data_app if name == "split" else app
    home.command(name, help=key, cls=Command, rich_help_panel=panel)(verb)


_stage("run", "cli.help.run", _START)


@app.command("demo", help="cli.help.demo", cls=Command, rich_help_panel=_START)
def demo(
    settings: Settings = None,
    model: Model = None,
    out: Out = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Run on the bundled data."""
    from importlib import resources

    from weitiao.cli.stages import go
    from weitiao.cli.view import View

    data = str(resources.files("weitiao.examples") / "bank" / "bank.jsonl")
    asked = Asked(
        model, "bank", out, resume=resume, overwrite=overwrite, settings=settings or ()
    )  # fmt: skip
    recipe = asked.recipe_for(data)
    with View(screen()) as view:
        view.note(say("cli.demo"))
        view.wait(say("cli.progress.loading"))
        run = api.start(recipe, out, asked.exists, name="demo")
        go(view, run, "run", resume=resume, made=not resume)


@app.command("chat", help="cli.help.chat", cls=Command, rich_help_panel=_START)
def chat(
    run: RunName,
    temperature: Annotated[str, typer.Option(metavar="N", help="cli.help.temperature")] = "0",
    top_p: Annotated[str, typer.Option(metavar="N", help="cli.help.top_p")] = "1",
    repetition_penalty: Annotated[
        str, typer.Option(metavar="N", help="cli.help.repetition_penalty")
    ] = "1",
    max_new_tokens: Annotated[
        str, typer.Option(metavar="N", help="cli.help.max_new_tokens")
    ] = "256",
    seed: Annotated[str, typer.Option(metavar="N", help="cli.help.seed")] = "0",
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="cli.help.chat_system")] = None,
) -> None:
    """Talk to a tuned model."""
    from weitiao.cli.talk import SETTINGS, Talk, parse_setting
    from weitiao.cli.view import View

    typed = (temperature, top_p, repetition_penalty, max_new_tokens, seed)
    parsed = {n: parse_setting(n, text) for n, text in zip(SETTINGS, typed, strict=True)}
    opened = api.open_run(run)
    api.require_trained(opened)
    console = screen()
    with View(console) as view:
        view.wait(say("cli.progress.loading"))
        conversation = api.chat(opened)
    conversation.sampling = replace(conversation.sampling, **parsed)
    if system is not None:
        conversation.system = system or None
    Talk(conversation, console).run()


@app.command("runs", help="cli.help.runs", cls=Command, rich_help_panel=_START)
def runs(
    root: Annotated[str, typer.Option(metavar="DIR", help="cli.help.root")] = "runs",
) -> None:
    """List the runs."""
    from weitiao.cli import tables

    console, found = screen(), api.runs(root)
    if found:
        show(console, tables.runs(found))
    else:
        sentence(console, say("cli.runs.none", root=root))
        verbatim(console, "weitiao demo")


app.add_typer(data_app, name="data", rich_help_panel=_STAGES)


@data_app.command("check", help="cli.help.check", cls=Command)
def check(
    data: DataFile,
    settings: Settings = None,
    model: Model = None,
    recipe: RecipeName = None,
    system: System = None,
    columns: Columns = None,
) -> None:
    """Read and check a data file; write nothing."""
    from weitiao.cli import tables
    from weitiao.cli.view import View

    asked = Asked(model, recipe, system=system, columns=columns, settings=settings or ())
    wanted = asked.recipe_for(data)
    with View(screen()) as view:
        view.wait(say("cli.progress.loading"))
        checked = api.check(wanted, (view,))
        view.still()
        for text in tables.data_sentences(checked.report):
            view.note(text)
        first: dict[str, tables.Rejection] = {}
        for row in checked.rejected:
            first.setdefault(row.reason.name, (row.origin.file, row.origin.line, row.reason))
        if first:
            show(view.console, tables.rejections(checked.report, first))
        for text in tables.split_sentences(checked.report):
            view.note(text)
        view.note(say("cli.next.show"))
        verbatim(view.console, tables.command("weitiao data show", data, "--tokens"))


_stage("split", "cli.help.split", _STAGES)


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

    numbers = [int(word) for word in rows or () if word.isdigit()]
    words = [word for word in rows or () if not word.isdigit()]
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


def _kept(target: str, asked: Asked) -> "tuple[Recipe, Sequence[Record]]":
    """Return the recipe and the usable rows of a run or of a data file."""
    run = api.find_run(target)
    if run is None:
        recipe = asked.recipe_for(target)
        return recipe, api.check(recipe).records
    return api.recipe_of(run), api.kept_rows(run)


_stage("plan", "cli.help.plan", _STAGES)
_stage("train", "cli.help.train", _STAGES)
_stage("eval", "cli.help.eval", _STAGES)


@app.command("report", help="cli.help.report", cls=Command, rich_help_panel=_STAGES)
def report(run: RunName) -> None:
    """Write the report."""
    from weitiao.cli.stages import report as write_report
    from weitiao.cli.view import View

    opened: Run = api.open_run(run)
    with View(screen()) as view:
        write_report(view, opened)

"""The verbs. Each is a thin door: it gathers what was said and calls ``weitiao.api``.

Help texts and headings are keys of the catalogue, put into words when they are shown.
Nothing heavy is imported before a verb needs it.
"""

from dataclasses import replace
from typing import Annotated, Any

import typer

from weitiao import __version__, api
from weitiao.cli.asked import (
    STAGES,
    START,
    Asked,
    Model,
    Out,
    Overwrite,
    Resume,
    RunName,
    Settings,
    add_stage,
)
from weitiao.cli.comparing import benchmark, compare
from weitiao.cli.data import data_app
from weitiao.cli.exporting import export
from weitiao.cli.feedback import feedback_app
from weitiao.cli.people import review
from weitiao.cli.screen import screen, sentence, show, verbatim
from weitiao.cli.serving import serve
from weitiao.cli.usage import Command, Group
from weitiao.runs import Run
from weitiao.words import say

app = typer.Typer(cls=Group, help="cli.help.weitiao", add_completion=False)
app.add_typer(data_app, name="data", rich_help_panel=STAGES)
app.add_typer(feedback_app, name="feedback", rich_help_panel=STAGES)


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


add_stage(app, "run", "cli.help.run")


@app.command("demo", help="cli.help.demo", cls=Command, rich_help_panel=START)
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
        run = api.start(recipe, out, asked.exists, name="demo", listeners=(view,))
        go(view, run, "run", resume=resume, made=not resume)


@app.command("chat", help="cli.help.chat", cls=Command, rich_help_panel=START)
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


@app.command("runs", help="cli.help.runs", cls=Command, rich_help_panel=START)
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


@app.command("logs", help="cli.help.logs", cls=Command, rich_help_panel=START)
def logs(
    run: RunName,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="cli.help.follow")] = False,
) -> None:
    """Show what a run in the background says."""
    from weitiao.cli.detached import show_log

    console, opened = screen(), api.open_run(run)
    try:
        show_log(console, opened, follow=follow)
    except KeyboardInterrupt:
        sentence(console, say("cli.logs.left"))


@app.command("stop", help="cli.help.stop", cls=Command, rich_help_panel=START)
def stop(
    run: RunName,
    now: Annotated[bool, typer.Option("--now", help="cli.help.now")] = False,
) -> None:
    """Stop a run."""
    from weitiao.cli.detached import stop as stop_run
    from weitiao.cli.view import View

    opened = api.open_run(run)
    with View(screen()) as view:
        try:
            stop_run(view, opened, now=now)
        except KeyboardInterrupt:
            view.still()
            view.note(say("cli.stop.left"))


add_stage(app, "plan", "cli.help.plan")
add_stage(app, "train", "cli.help.train")
add_stage(app, "eval", "cli.help.eval")

app.command("review", help="cli.help.people", cls=Command, rich_help_panel=STAGES)(review)
app.command("compare", help="cli.help.compare", cls=Command, rich_help_panel=STAGES)(compare)
app.command("export", help="cli.help.export_model", cls=Command, rich_help_panel=STAGES)(export)
app.command("serve", help="cli.help.serve", cls=Command, rich_help_panel=STAGES)(serve)
app.command("benchmark", help="cli.help.benchmark", cls=Command, rich_help_panel=STAGES)(benchmark)


@app.command("report", help="cli.help.report", cls=Command, rich_help_panel=STAGES)
def report(run: RunName) -> None:
    """Write the report."""
    from weitiao.cli.stages import report as write_report
    from weitiao.cli.view import View

    opened: Run = api.open_run(run)
    with View(screen()) as view:
        write_report(view, opened)

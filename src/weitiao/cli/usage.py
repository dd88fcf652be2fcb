"""Commands whose help and whose complaints are in the language spoken now."""

from difflib import get_close_matches
from typing import Any

from rich.table import Table
from rich.text import Text
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.exceptions import TyperException

from weitiao.cli.screen import blank, screen, sentence, show
from weitiao.errors import RecipeError
from weitiao.words import say


class _Spoken:
    """What verbs and groups of verbs share: a help page of our own."""

    def get_help(self, ctx: Any) -> str:
        """Print the help page. typer's own folds no Chinese and shows the types of Python."""
        command: Any = self
        console = screen()
        sentence(console, say("cli.usage.usage", usage=_usage(command, ctx)), "bold")
        blank(console)
        sentence(console, say(command.help))
        arguments = _arguments(command)
        options = [p for p in command.get_params(ctx) if p not in arguments]
        _panel("cli.panel.arguments", [(p.metavar, say(p.help)) for p in arguments])
        _panel("cli.panel.options", [_option(p) for p in options])
        for panel, verbs in _verbs(command).items():
            _panel(panel, [(verb.name, say(verb.help)) for verb in verbs])
        if any(argument.name == "settings" for argument in arguments):
            _panel("cli.panel.settings", _settings(command.name))
        return ""


class Command(_Spoken, TyperCommand):
    """A verb. What is too much on its line is refused in words of ours."""

    allow_extra_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the line; refuse what no parameter takes."""
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            raise RecipeError("cli.usage.extra", text=" ".join(rest), command=ctx.command_path)
        return rest


class Group(_Spoken, TyperGroup):
    """Verbs under one name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb; say which are near where there is none of this name."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            names = list(self.commands)
            near = get_close_matches(name, names, n=3, cutoff=0.5)
            key = "cli.usage.no_command_near" if near else "cli.usage.no_command"
            raise RecipeError(
                key, name=name, near=", ".join(near), all=", ".join(names), command=ctx.command_path
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Carry out the verb; say which there are where none is given."""
        if not ctx._protected_args and not ctx.args:
            names = ", ".join(self.commands)
            raise RecipeError("cli.usage.no_verb", all=names, command=ctx.command_path)
        return super().invoke(ctx)


def _arguments(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if isinstance(parameter, TyperArgument)]


def _usage(command: Any, ctx: Any) -> str:
    pieces = [p.metavar if p.required else f"[{p.metavar} …]" for p in _arguments(command)]
    if isinstance(command, TyperGroup):
        pieces = [say("cli.usage.command")]
    return " ".join([ctx.command_path, *pieces, say("cli.usage.options")])


def _option(parameter: Any) -> tuple[str, str]:
    names = ", ".join(parameter.opts)
    if names == "--help":
        return names, say("cli.help.help")
    told = say(parameter.help)
    # A default that is a word on the line; a flag's is that it is not there.
    if isinstance(parameter.default, str):
        told += say("cli.panel.default", value=parameter.default)
    return f"{names} {parameter.metavar}" if parameter.metavar else names, told


def _verbs(command: Any) -> dict[str, list[Any]]:
    """Return heading → verbs of a group; none for a verb."""
    found: dict[str, list[Any]] = {}
    for verb in getattr(command, "commands", {}).values():
        panel = getattr(verb, "rich_help_panel", None)
        found.setdefault(panel if isinstance(panel, str) else "cli.panel.commands", []).append(verb)
    return found


def _panel(heading: str, lines: list[tuple[str, str]]) -> None:
    """Print names beside what they mean; nothing where there are none."""
    if not lines:
        return
    console = screen()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, told in lines:
        grid.add_row("  " + name, Text(told))
    blank(console)
    sentence(console, say(heading), "bold")
    show(console, grid)


def _settings(verb: str) -> list[tuple[str, str]]:
    """Return every setting with what its declaration says of it, which is in English."""
    from weitiao.plan.recipe import Recipe
    from weitiao.plan.yaml_file import dotted, option_paths
    from weitiao.serving.settings import ServerSettings

    whole: Any = ServerSettings if verb == "serve" else Recipe
    found = []
    for path in option_paths(whole):
        kind = whole
        for part in path[:-1]:
            kind = kind.model_fields[part].annotation
        found.append((dotted(path), kind.model_fields[path[-1]].description or ""))
    return found


def complaint(error: TyperException) -> str:
    """Return in one sentence what typer found wrong with the line."""
    # typer keeps these classes to itself; their names have been click's for ten years.
    kind, found = type(error).__name__, vars(error)
    context = found.get("ctx")
    command = context.command_path if context else "weitiao"
    option = found.get("option_name")
    parameter = found.get("param")
    if kind == "NoSuchOption":
        near = ", ".join(found.get("possibilities") or ())
        key = "cli.usage.no_option_near" if near else "cli.usage.no_option"
        return say(key, option=option, near=near, command=command)
    if kind == "BadOptionUsage":
        return say("cli.usage.option_value", option=option, command=command)
    if kind == "MissingParameter" and parameter is not None:
        return say("cli.usage.missing", name=parameter.display_name_raw, command=command)
    return say("cli.usage.not_understood", why=error.message, command=command)

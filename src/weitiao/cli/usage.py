"""Commands whose help and whose complaints are in the language spoken now."""

from difflib import get_close_matches
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from weitiao.errors import RecipeError
from weitiao.words import say


def spoken(command: Any) -> Any:
    """Put the sentences of the catalogue where ``command`` and those below it hold keys."""
    command.help = say(command.help)
    command.options_metavar = say("cli.usage.options")
    if panel := getattr(command, "rich_help_panel", None):
        command.rich_help_panel = say(panel)
    for parameter in command.params:
        parameter.help = say(parameter.help)
    if isinstance(command, TyperGroup):
        command.subcommand_metavar = say("cli.usage.command")
        for below in command.commands.values():
            spoken(below)
    return command


def _speak_in_help() -> None:
    """Give typer's own words on a help page in the language spoken now."""
    from typer import rich_utils

    rich_utils.OPTIONS_PANEL_TITLE = say("cli.panel.options")
    rich_utils.ARGUMENTS_PANEL_TITLE = say("cli.panel.arguments")
    rich_utils.COMMANDS_PANEL_TITLE = say("cli.panel.commands")
    rich_utils.DEFAULT_STRING = say("cli.panel.default")


def _with_help_in_words(option: Any) -> Any:
    if option is not None:
        option.help = say("cli.help.help")
    return option


def _usage(text: str) -> str:
    return text.replace("Usage: ", say("cli.usage.usage"), 1)


class Command(TyperCommand):
    """A verb. What is too much on its line is refused in words of ours."""

    allow_extra_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the line; refuse what no parameter takes."""
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            raise RecipeError("cli.usage.extra", text=" ".join(rest), command=ctx.command_path)
        return rest

    def get_help_option(self, ctx: Any) -> Any:
        """Return ``--help`` with its words."""
        return _with_help_in_words(super().get_help_option(ctx))

    def get_usage(self, ctx: Any) -> str:
        """Return the usage line with its words."""
        return _usage(super().get_usage(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help page."""
        _speak_in_help()
        super().format_help(ctx, formatter)


class Group(TyperGroup):
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
            raise RecipeError(
                "cli.usage.no_verb", all=", ".join(self.commands), command=ctx.command_path
            )
        return super().invoke(ctx)

    def get_help_option(self, ctx: Any) -> Any:
        """Return ``--help`` with its words."""
        return _with_help_in_words(super().get_help_option(ctx))

    def get_usage(self, ctx: Any) -> str:
        """Return the usage line with its words."""
        return _usage(super().get_usage(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help page."""
        _speak_in_help()
        super().format_help(ctx, formatter)


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
    name = parameter.display_name_raw if parameter is not None else ""
    if kind == "MissingParameter":
        return say("cli.usage.missing", name=name, command=command)
    return say("cli.usage.bad_value", name=name, why=error.message, command=command)

"""What a verb can be given, and the recipe that comes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from weitiao import api
from weitiao.cli.screen import screen
from weitiao.cli.usage import Command
from weitiao.errors import RecipeError
from weitiao.runs import Exists
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.cli.stages import Goal
    from weitiao.plan.recipe import Recipe

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


START, STAGES = "cli.panel.start", "cli.panel.stages"
"""The panels of the help page."""


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


def _go(target: str, asked: Asked, goal: "Goal") -> None:
    from weitiao.cli.stages import go
    from weitiao.cli.view import View

    recipe = asked.recipe_for(target)
    with View(screen()) as view:
        view.wait(say("cli.progress.loading"))
        run, made = api.open_or_start(target, recipe, asked.out, asked.exists)
        go(view, run, goal, resume=asked.resume, made=made)


def add_stage(home: typer.Typer, name: "Goal", key: str) -> None:
    """Put the verb ``name``, which does what is missing up to its stage, into ``home``."""

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

    panel = START if name == "run" else STAGES
    home.command(name, help=key, cls=Command, rich_help_panel=panel)(verb)


Choice = TypeVar("Choice", bound=str)


def one_of(option: str, value: str, choices: Sequence[Choice]) -> Choice:
    """Return ``value`` if it is one of ``choices``.

    Raises:
        RecipeError: it is not.
    """
    for choice in choices:
        if choice == value:
            return choice
    raise RecipeError("cli.usage.choice", option=option, value=value, choices=", ".join(choices))

"""What a verb can be given, and the recipe that comes of it."""

import inspect
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
Detach = Annotated[bool, typer.Option("--detach", help="cli.help.detach")]

Gpu = Annotated[str | None, typer.Option("--gpu", metavar="CARD|GB", help="cli.help.gpu")]
Cpu = Annotated[bool, typer.Option("--cpu", help="cli.help.cpu")]
Memory = Annotated[str | None, typer.Option("--memory", metavar="GB", help="cli.help.memory")]
Probe = Annotated[bool, typer.Option("--probe", help="cli.help.probe")]

_VERBS_WITH: dict[str, tuple[str, ...]] = {
    "detach": ("train", "eval", "run"),
    **dict.fromkeys(("gpu", "cpu", "memory", "probe"), ("plan",)),
}
"""The options that only some of the stages' verbs have."""

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
    detach: bool = False
    gpu: str | None = None
    cpu: bool = False
    memory: str | None = None
    probe: bool = False

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
    def elsewhere(self) -> bool:
        """Whether a machine was described that need not be this one."""
        described = self.cpu or self.gpu is not None or self.memory is not None
        if self.gpu is not None and self.cpu:
            raise RecipeError("cli.usage.gpu_or_cpu")
        if described and self.probe:
            raise RecipeError("cli.usage.probe_elsewhere")
        return described

    @property
    def exists(self) -> Exists:
        """What is to become of a run directory that is there already."""
        if self.resume and self.overwrite:
            raise RecipeError("cli.usage.resume_or_overwrite")
        return "resume" if self.resume else "overwrite" if self.overwrite else "refuse"


def _go(target: str, asked: Asked, goal: "Goal") -> None:
    from weitiao.cli.stages import forecast, go
    from weitiao.cli.view import View

    recipe = asked.recipe_for(target)
    with View(screen()) as view:
        view.wait(say("cli.progress.loading"))
        if asked.elsewhere:
            forecast(view, target, recipe, asked.gpu, asked.memory)
            return
        run, made = api.open_or_start(target, recipe, asked.out, asked.exists, (view,))
        if asked.detach:
            from weitiao.cli.detached import begin

            begin(view, run, goal, resume=asked.resume)
        else:
            go(view, run, goal, resume=asked.resume, made=made, probe=asked.probe)


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
        detach: Detach = False,
        gpu: Gpu = None,
        cpu: Cpu = False,
        memory: Memory = None,
        probe: Probe = False,
    ) -> None:
        asked = Asked(
            model, recipe, out, system, columns, resume, overwrite, settings or (), detach,
            gpu, cpu, memory, probe,
        )  # fmt: skip
        _go(target, asked, name)

    signature = inspect.signature(verb)
    kept = [p for p in signature.parameters.values() if name in _VERBS_WITH.get(p.name, (name,))]
    verb.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
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

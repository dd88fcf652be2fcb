"""From what was asked to a run directory, and what both stages and onlookers need of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weitiao.errors import DataError, ModelError, RunError
from weitiao.events import EventLog, Listener
from weitiao.runs import Exists, Run, RunSummary, Stage, create_run, list_runs, open_run

if TYPE_CHECKING:
    from weitiao.models.load import ModelSource
    from weitiao.models.pair import Voice
    from weitiao.plan.plan import Plan
    from weitiao.plan.recipe import Recipe
    from weitiao.records.render import ChatFormat


def recipe_for(
    data: str | Path | None = None,
    *,
    model: str | None = None,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    system: str | None = None,
    columns: str | None = None,
) -> Recipe:
    """Return the recipe by name or file, with what was said beside it put in.

    Raises:
        RecipeError: a key or a value that is not understood.
        DataError: ``columns`` is not understood.
    """
    from weitiao.plan.recipe import load_recipe
    from weitiao.records.options import parse_columns

    found = load_recipe(recipe, overrides)
    said = {
        "path": None if data is None else str(data),
        "system": system,
        "columns": None if columns is None else parse_columns(columns),
    }
    options = found.data.model_copy(update={k: v for k, v in said.items() if v is not None})
    base = found.model if model is None else found.model.model_copy(update={"name": model})
    return found.model_copy(update={"data": options, "model": base})


def recipe_of(run: Run) -> Recipe:
    """Return what was asked of ``run``, with what its plan settled.

    Raises:
        RecipeError: its ``recipe.yaml`` was changed and cannot be understood any more.
    """
    from weitiao.plan.recipe import load_recipe

    return load_recipe(str(run.recipe))


def start(
    recipe: Recipe,
    out: str | Path | None = None,
    exists: Exists = "refuse",
    root: str = "runs",
    name: str | None = None,
    listeners: tuple[Listener, ...] = (),
) -> Run:
    """Make the run directory for ``recipe``, with the recipe in it.

    The model is looked for before anything is written, so that a wrong name leaves no run.
    Without ``out`` the directory is called ``name``, or as the data file. ``listeners`` are
    told what is changed of a run that is gone on with.

    Raises:
        DataError: there is no such data.
        ModelError: there is no such model.
        RunError: the directory exists and nothing was said about it, or the run there was
            begun with other settings.
        EndpointError: a judge is asked for, and cannot be asked as it is set.
    """
    from weitiao.api.judging import require_judge
    from weitiao.evaluation.suite import require_suite
    from weitiao.plan.resolved import recipe_yaml
    from weitiao.records.files import write_atomic
    from weitiao.records.reading import find_files
    from weitiao.training.trackers import require_trackers

    refuse_in_team()
    data = data_path(recipe)
    find_files(data)
    source_of(recipe)
    require_trackers(recipe.train.trackers)
    require_suite(recipe.evaluate.suite)
    require_judge(recipe)
    run = create_run(None if out is None else Path(out), name or data.stem, exists, Path(root))
    if run.recipe.exists():
        _go_on_with(run, recipe, exists, listeners)
    else:
        write_atomic(run.recipe, recipe_yaml(recipe, None))
    return run


def find_run(target: str) -> Run | None:
    """Return the run that ``target`` names by folder or name; None where it names data.

    Raises:
        RunError: it is neither a run nor data.
    """
    from weitiao.records.reading import KINDS

    path = Path(target).expanduser()
    # What is called like a data file is one, or one that is missing.
    if path.suffix.lower() in KINDS or (path.exists() and not Run(path).begun):
        return None
    try:
        return open_run(target)
    except RunError as error:
        if error.key == "error.run_missing":
            raise RunError("error.neither_data_nor_run", name=target) from error
        raise


def open_or_start(
    target: str,
    recipe: Recipe,
    out: str | None,
    exists: Exists,
    listeners: tuple[Listener, ...] = (),
) -> tuple[Run, bool]:
    """Return the run that ``target`` names, or one made for the data it names; and which it is.

    The second value says whether the run was made just now.
    ``recipe`` is what was asked: its data are ``target`` where that is no run. ``listeners``
    are told what is changed of a run that is gone on with.

    Raises:
        RunError: it is neither, or the run was begun with other settings.
    """
    if (run := find_run(target)) is None:
        return start(recipe, out, exists, listeners=listeners), exists != "resume"
    if out is not None or exists == "overwrite":
        raise RunError("error.run_given", path=run.path)
    without_data = recipe.data.model_copy(update={"path": None})
    without_path = recipe.model_copy(update={"data": without_data})
    _go_on_with(run, without_path, exists, listeners)
    return run, False


def runs(root: str | Path = "runs") -> list[RunSummary]:
    """Return the runs in ``root``, newest first."""
    return list_runs(Path(root))


def refuse_in_team() -> None:
    """Raise where several processes were started for what one must do: to begin and to plan.

    Raises:
        RunError: this is one of several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RunError("error.team_unplanned")


def data_path(recipe: Recipe) -> Path:
    """Return where the recipe's data are.

    Raises:
        DataError: no data were named.
    """
    if recipe.data.path is None:
        raise DataError("error.no_data_path")
    path = Path(recipe.data.path).expanduser()
    return path if path.name else path.resolve()  # "." and ".." have no name of their own


def source_of(recipe: Recipe) -> ModelSource:
    """Return where the recipe's base model is."""
    from weitiao.models.load import find_model

    asked = recipe.model
    return find_model(asked.name, asked.revision, asked.trust_remote_code)


def chat_format(recipe: Recipe) -> ChatFormat:
    """Return the tokenizer of the recipe's model with its chat template."""
    from weitiao.models.load import load_tokenizer
    from weitiao.records.render import ChatFormat as Format

    return Format(load_tokenizer(source_of(recipe)))


def noted_base(run: Run) -> str | None:
    """Return the fingerprint of the base that ``run`` is trained on; None where nobody knows."""
    return run.base.read_text(encoding="utf-8") if run.base.is_file() else None


def base_of_run(run: Run, recipe: Recipe) -> ModelSource:
    """Return where the base of ``run`` is, whose weights are still those it is trained on.

    Raises:
        ModelError: there are others by now.
    """
    from weitiao.models.fingerprint import base_fingerprint

    source, noted = source_of(recipe), noted_base(run)
    if noted and base_fingerprint(source) not in (None, noted):
        raise ModelError("error.base_replaced", path=run.path, base=source.location)
    return source


def note_base(run: Run, recipe: Recipe) -> None:
    """Write down on which weights ``run`` is trained; where that was done, they must be the same.

    Raises:
        ModelError: there are others by now.
    """
    from weitiao.models.fingerprint import base_fingerprint
    from weitiao.records.files import write_atomic

    source = base_of_run(run, recipe)
    if noted_base(run) is None and (found := base_fingerprint(source)):
        write_atomic(run.base, found)


def load_pair_of(run: Run, recipe: Recipe, settled: Plan) -> tuple[Voice, Voice]:
    """Return (base, tuned) of ``run``, loaded as they were trained.

    Raises:
        ModelError: they cannot be loaded, or the base is another one by now.
    """
    import torch

    from weitiao.models.load import TYPES
    from weitiao.models.pair import load_pair

    trained = run.model if settled.method == "full" else run.adapter
    device, dtype = torch.device(settled.device), TYPES[settled.precision]
    return load_pair(base_of_run(run, recipe), trained, dtype, device, settled.quantization)


def log_of(run: Run, listeners: tuple[Listener, ...]) -> EventLog:
    """Return the log that writes into ``run`` and tells ``listeners``."""
    return EventLog(run.events, listeners)


def _go_on_with(run: Run, recipe: Recipe, exists: Exists, listeners: tuple[Listener, ...]) -> None:
    """Let ``run`` be as ``recipe`` asks, as far as it can still be changed, and tell what was.

    Raises:
        RunError: it asks for something else than the run was begun with.
    """
    begun = recipe_of(run)
    asked = list(_differences(begun, recipe))
    if recipe.data.path and data_path(begun).resolve() != data_path(recipe).resolve():
        asked.insert(0, ("data.path", begun.data.path, recipe.data.path))
    for setting, before, now in asked:
        if exists != "resume" or not _changeable(run, setting, before, now):
            values = {"setting": setting, "before": before, "now": now}
            raise RunError("error.run_settled", path=run.path, **values)
    if asked:
        _change(run, begun, asked, listeners)


def _changeable(run: Run, setting: str, before: Any, now: Any) -> bool:
    """Return whether ``setting`` has an effect still, and none on what was learnt before."""
    from weitiao.plan.resolved import AFTERWARDS, CHANGEABLE
    from weitiao.training.launch import in_team

    if setting in AFTERWARDS:
        return not in_team()
    stage: Stage = "evaluate" if setting.startswith("evaluate.") else "train"
    measure = run.evaluation / f"{setting.removeprefix('evaluate.')}.json"
    if setting in ("evaluate.forgetting", "evaluate.memorising", "evaluate.speed"):
        return not measure.exists() and not in_team()
    if setting not in CHANGEABLE or run.stage_done(stage) or in_team():
        return False
    # A checkpoint's may have been lowered where memory was short, so it is never raised.
    return setting != "train.micro_batch_tokens" or before is None or now < before


def _change(
    run: Run,
    begun: Recipe,
    asked: Sequence[tuple[str, Any, Any]],
    listeners: tuple[Listener, ...],
) -> None:
    from weitiao.api.judging import require_judge
    from weitiao.plan.plan import read_plan, write_plan
    from weitiao.plan.resolved import change, recipe_yaml
    from weitiao.records.files import write_atomic
    from weitiao.training.trackers import require_trackers

    planned = read_plan(run.plan) if run.stage_done("plan") else None
    recipe, plan = change(begun, planned, {setting: now for setting, _, now in asked})
    require_trackers(recipe.train.trackers)
    require_judge(recipe)
    log = log_of(run, listeners)
    with run.lock():
        if plan is not None:
            write_plan(plan, run.plan)
        write_atomic(run.recipe, recipe_yaml(recipe, plan))
        for setting, before, now in asked:
            log.emit("run.changed", setting=setting, before=before, now=now)


def _differences(begun: Any, asked: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, value then, value now) of what was given in ``asked`` and differs.

    Nothing, given for what a plan settles, leaves it as it was settled; else it unsets the option.
    """
    from weitiao.plan.resolved import derived

    for name in sorted(asked.model_fields_set - {"path", "description"}):
        before, now = getattr(begun, name), getattr(asked, name)
        if hasattr(now, "model_fields_set"):
            yield from _differences(before, now, f"{prefix}{name}.")
        elif before != now and (now is not None or not derived(f"{prefix}{name}")):
            yield f"{prefix}{name}", before, now

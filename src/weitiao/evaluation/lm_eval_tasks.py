"""Tasks of EleutherAI's lm-evaluation-harness, counted by its own package ``lm_eval``."""

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from weitiao.errors import RecipeError, RunError
from weitiao.evaluation.beside import reader, write_measure
from weitiao.evaluation.compare import Change
from weitiao.evaluation.resample import holm
from weitiao.events import EventLog

if TYPE_CHECKING:
    from weitiao.models.pair import Voice

CONFIDENCE = 0.95
"""``TaskLine.change`` names what is certain at this level."""


@dataclass(frozen=True, slots=True)
class TaskLine:
    """One metric of one task or group of tasks, in the package's own words.

    ``version``: the task's own; ``rows``: documents asked, ``shots``: worked examples before each.
    ``base_error`` and ``tuned_error``: the package's standard errors, None where it gives none.
    ``difference`` is tuned minus base, ``error`` the standard error that it would have if each
    model had been asked other documents: rather too large, as both were asked the same.
    ``p_adjusted``: two-sided, by the normal distribution, for all lines together (Holm).
    """

    task: str
    metric: str
    version: str
    rows: int
    shots: int
    base: float
    tuned: float
    base_error: float | None
    tuned_error: float | None
    difference: float
    error: float | None
    p_adjusted: float | None = None
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class LmEval:
    """The content of ``lm_eval.json``.

    ``asked``: the tasks as they were named; ``limit``: the most documents of each; ``chat``:
    whether the model's chat template was put around them, which most published numbers are
    without. ``package``: the version of ``lm_eval``.
    """

    asked: tuple[str, ...]
    lines: tuple[TaskLine, ...]
    limit: int | None
    chat: bool
    package: str
    seconds: float


load_lm_eval = reader(LmEval, "error.lm_eval_unreadable")
"""Read ``lm_eval.json``; RunError where it is missing or is not of this version."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks found, with their data: ``asked`` as they were named, ``found`` as the package's."""

    asked: tuple[str, ...]
    found: tuple[Any, ...]
    manager: Any


def find_tasks(names: Sequence[str]) -> Tasks:
    """Return the tasks with these names, or in these YAML files, and fetch their data.

    Raises:
        RecipeError: the package is not installed, or there is no such task.
        RunError: a task's data cannot be had.
    """
    if find_spec("lm_eval") is None:
        raise RecipeError("error.lm_eval_missing")
    manager = _manager()
    for name in names:
        if Path(name).suffix in (".yaml", ".yml"):
            if not Path(name).is_file():
                raise RecipeError("error.lm_eval_no_file", path=name)
        elif name not in manager.task_index:
            near = get_close_matches(name.lower(), manager.all_tasks, n=5, cutoff=0.5)
            key = "error.lm_eval_unknown_near" if near else "error.lm_eval_unknown"
            raise RecipeError(key, name=name, near=", ".join(near))
    found = [task for name in names for task in _loaded(manager, name)]
    return Tasks(tuple(names), tuple(found), manager)


@cache
def _manager() -> Any:
    """Return the package's list of tasks, for which it reads thousands of files."""
    with _silent():
        from lm_eval.tasks import TaskManager

        return TaskManager()


def _loaded(manager: Any, name: str) -> list[Any]:
    """Return the task ``name``; of a group the group, which counts its tasks together."""
    try:
        with _silent():
            loaded = manager.load([name])
    except Exception as error:  # tasks are code and data of others: anything can be wrong there
        raise RunError("error.lm_eval_data", name=name, cause=_first_line(error)) from error
    groups = list(loaded.get("groups", {}).values())
    return groups[:1] or list(loaded["tasks"].values())


def measure_lm_eval(
    tasks: Tasks,
    pair: "tuple[Voice, Voice]",
    tokenizer: Any,
    path: Path,
    events: EventLog,
    *,
    batch_size: int,
    limit: int | None = None,
    chat: bool = False,
) -> LmEval:
    """Ask base and tuned model what ``tasks`` ask, and write ``path``.

    Emits ``lm_eval.start``: which (base or tuned), tasks.

    Raises:
        RunError: a task cannot be carried out, or the file cannot be written.
    """
    started = time.monotonic()
    sides = []
    for which, voice in zip(("base", "tuned"), pair, strict=True):
        events.emit("lm_eval.start", which=which, tasks=", ".join(tasks.asked))
        sides.append(_ask(tasks, voice, tokenizer, batch_size, limit, chat=chat))
    found = LmEval(
        asked=tasks.asked,
        lines=tuple(_adjusted(list(_lines(*sides)), sides[0]["higher_is_better"])),
        limit=limit,
        chat=chat,
        package=version("lm_eval"),
        seconds=round(time.monotonic() - started, 1),
    )
    write_measure(path, found)
    return found


def _ask(
    tasks: Tasks, voice: "Voice", tokenizer: Any, batch_size: int, limit: int | None, *, chat: bool
) -> dict[str, Any]:
    try:
        with _silent(), voice.speaking():
            from lm_eval.api import metrics
            from lm_eval.evaluator import simple_evaluate
            from lm_eval.models.huggingface import HFLM

            # It announces each bootstrap on the screen, and asks nobody whether to.
            vars(metrics)["print"] = lambda *_: None
            model = HFLM(pretrained=voice.model, tokenizer=tokenizer, batch_size=batch_size)
            found = simple_evaluate(
                model,
                tasks=list(tasks.found),
                limit=limit,
                apply_chat_template=chat,
                log_samples=False,
                task_manager=tasks.manager,
            )
    except Exception as error:  # as above
        name = ", ".join(tasks.asked)
        raise RunError("error.lm_eval_failed", name=name, cause=_first_line(error)) from error
    return dict(found or {})


@contextmanager
def _silent() -> Iterator[None]:
    """Keep bars and warnings off the screen: the package's, and those of programs it starts."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        os.dup2(nowhere.fileno(), 2)
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            os.dup2(kept, 2)
            os.close(kept)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _lines(base: dict[str, Any], tuned: dict[str, Any]) -> Iterator[TaskLine]:
    """Yield a line for each metric; the package calls it ``metric,filter``, ``none`` mostly."""
    for task, values in base["results"].items():
        other = tuned["results"][task]
        for key, value in values.items():
            metric, _, filtered = key.partition(",")
            told = f"{metric}_stderr,{filtered}"
            if metric.endswith("_stderr") or not filtered or not _is_number(value):
                continue
            errors = [_error(side.get(told)) for side in (values, other)]
            known = [error for error in errors if error is not None]
            yield TaskLine(
                task=task,
                metric=metric if filtered == "none" else f"{metric} ({filtered})",
                version=str(base["versions"].get(task, "–")),
                # A group counts only those of its tasks that have the metric.
                rows=values.get("sample_count", {}).get(key, values["sample_len"]),
                shots=int(base["n-shot"].get(task) or 0),
                base=float(value),
                tuned=float(other[key]),
                base_error=errors[0],
                tuned_error=errors[1],
                difference=float(other[key]) - float(value),
                error=math.hypot(*known) if len(known) == 2 else None,
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _error(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _adjusted(
    lines: Sequence[TaskLine], higher: dict[str, dict[str, bool | None]]
) -> list[TaskLine]:
    """Return the lines with what changed for certain, all of them counted (Holm)."""
    told = [line for line in lines if line.error is not None]
    p_values = holm([_p_value(line) for line in told])
    adjusted = {id(line): p for line, p in zip(told, p_values, strict=True)}
    found = []
    for line in lines:
        p = adjusted.get(id(line))
        better = higher.get(line.task, {}).get(line.metric.partition(" ")[0])
        change = None if p is None else _change(line.difference, better, p)
        found.append(replace(line, p_adjusted=p, change=change))
    return found


def _p_value(line: TaskLine) -> float:
    if not line.error:
        return 1.0  # both gave the same to all documents, or the error says nothing
    return 2 * NormalDist().cdf(-abs(line.difference / line.error))


def _change(difference: float, higher_is_better: bool | None, p: float) -> Change:
    if p > 1 - CONFIDENCE:
        return "same"
    if higher_is_better is None:
        return "up" if difference > 0 else "down"
    return "better" if (difference > 0) == higher_is_better else "worse"

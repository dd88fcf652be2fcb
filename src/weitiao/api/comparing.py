"""Runs against each other, and a run against tasks that others have made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from weitiao.api.begin import chat_format, load_pair_of, log_of, recipe_of
from weitiao.api.look import require_trained
from weitiao.events import Listener
from weitiao.runs import Run

if TYPE_CHECKING:
    from weitiao.evaluation.comparing import RunsCompared
    from weitiao.evaluation.lm_eval_tasks import LmEval


def compare(runs: Sequence[Run]) -> RunsCompared:
    """Compare evaluated runs with the first of them, from their files alone.

    Raises:
        RunError: they are fewer than two, or cannot be compared.
    """
    from weitiao.evaluation.comparing import compare_runs

    return compare_runs(runs)


def benchmark(
    run: Run,
    tasks: Sequence[str],
    limit: int | None = None,
    listeners: tuple[Listener, ...] = (),
    *,
    chat: bool = False,
) -> LmEval:
    """Ask base and tuned model of ``run`` lm-eval's tasks, at most ``limit`` documents of each.

    The results stand in the run's ``evaluation/lm_eval.json``.

    Raises:
        RecipeError: the package is not installed, or there is no such task.
        RunError: nothing was trained, or a task's data cannot be had.
    """
    from weitiao.evaluation.lm_eval_tasks import find_tasks, measure_lm_eval
    from weitiao.plan.plan import read_plan

    require_trained(run)
    found = find_tasks(tasks)
    recipe, settled = recipe_of(run), read_plan(run.plan)
    with run.lock():
        return measure_lm_eval(
            found,
            load_pair_of(run, recipe, settled),
            chat_format(recipe).tokenizer,
            run.evaluation / "lm_eval.json",
            log_of(run, listeners),
            batch_size=settled.eval_batch_size,
            limit=limit,
            chat=chat,
        )

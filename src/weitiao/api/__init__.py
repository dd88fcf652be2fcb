"""What a program calls, and what every door calls: one function a stage, a few lines each.

The stages meet in the run directory. Each function takes the run so far and does what is
missing before it, so ``evaluate(start(recipe))`` is enough; what a stage has already
written is not done again. torch and transformers are imported here, inside the functions,
and nowhere to the left: reading a run's files never waits for them.

    >>> from weitiao import api
    >>> recipe = api.recipe_for("poems.json", model="embedded", overrides=["epochs=3"])
    >>> run = api.start(recipe, "runs/poems")
    >>> results = api.evaluate(run)
    >>> print(results.verdict.outcome)
"""

from weitiao.api.begin import find_run, open_or_start, recipe_for, recipe_of, runs, start
from weitiao.api.comparing import benchmark, compare
from weitiao.api.data import (
    Leaks,
    Part,
    check,
    convert,
    draft,
    endpoint,
    export_review,
    grow,
    import_review,
    leaks,
    report_data,
    review,
)
from weitiao.api.exporting import Exported, export
from weitiao.api.exporting import page as export_page
from weitiao.api.judging import judge
from weitiao.api.look import Shown, chat, kept_rows, require_trained, show
from weitiao.api.planning import forecast
from weitiao.api.serving import Ready, serve
from weitiao.api.stages import evaluate, plan, report, run, split, train
from weitiao.runs import open_run

__all__ = [
    "Exported",
    "Leaks",
    "Part",
    "Ready",
    "Shown",
    "benchmark",
    "chat",
    "check",
    "compare",
    "convert",
    "draft",
    "endpoint",
    "evaluate",
    "export",
    "export_page",
    "export_review",
    "find_run",
    "forecast",
    "grow",
    "import_review",
    "judge",
    "kept_rows",
    "leaks",
    "open_or_start",
    "open_run",
    "plan",
    "recipe_for",
    "recipe_of",
    "report",
    "report_data",
    "require_trained",
    "review",
    "run",
    "runs",
    "serve",
    "show",
    "split",
    "start",
    "train",
]

"""Another model's verdict on a measured run, where the recipe asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weitiao.api.begin import log_of, recipe_of
from weitiao.errors import RunError, WeitiaoError
from weitiao.events import Listener
from weitiao.runs import Run

if TYPE_CHECKING:
    from weitiao.evaluation.judge import Judged
    from weitiao.plan.recipe import Recipe


def judge(run: Run, listeners: tuple[Listener, ...] = (), *, again: bool = False) -> Judged | None:
    """Let the judge compare the answers of ``run``, unless it did so with the same settings.

    ``again``: ask once more about the rows of which no answer came.

    None where no judge is asked for, or where it could not come to its end: the run's results
    stand without it, so that is an event, ``judge.failed`` (path, cause). What was answered is
    in the endpoint's cache, and the next call goes on from there.

    Raises:
        RunError: another process works on this run.
    """
    from weitiao.api.data import endpoint
    from weitiao.evaluation.common_rows import kept_answers
    from weitiao.evaluation.judge import judge_answers, load_judged, settings_of
    from weitiao.evaluation.suite import load_suite

    recipe = recipe_of(run)
    if not recipe.evaluate.judge.enabled:
        return None
    path, log = run.evaluation / "judge.json", log_of(run, listeners)
    with run.lock():
        try:
            known = load_judged(path)
        except RunError:
            known = None  # None yet, or another version's.
        try:
            suite = load_suite(recipe.evaluate.suite)
            base, tuned = (kept_answers(run.evaluation / f"{s}.jsonl") for s in ("base", "tuned"))
            same = known and known.settings == settings_of(recipe, suite, base, tuned)
            if known and same and not (again and known.left_out.get("no_answer")):
                return known
            require_judge(recipe)
            with endpoint(recipe) as service:
                return judge_answers(base, tuned, service, recipe, suite, path, log)
        except WeitiaoError as error:
            log.emit("judge.failed", path=str(run.path), cause=error.sentence())
            return None


def require_judge(recipe: Recipe) -> None:
    """Make sure that the judge, where one is asked for, can be asked as it is set.

    Raises:
        EndpointError: no service or model is set, or the key or the address cannot be used.
        RecipeError: the judge's settings do not agree.
    """
    from weitiao.api.data import endpoint
    from weitiao.evaluation.judge import require_affordable

    if recipe.evaluate.judge.enabled:
        require_affordable(recipe)
        endpoint(recipe).close()

"""What is measured beside the scores; what fails or is broken off leaves the others whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from weitiao.errors import RunError, WeitiaoError
from weitiao.events import EventLog
from weitiao.runs import Run

if TYPE_CHECKING:
    from weitiao.evaluation.beside import Both
    from weitiao.models.pair import Voice
    from weitiao.plan.evaluate_options import EvaluateOptions
    from weitiao.plan.plan import Plan
    from weitiao.plan.recipe import Recipe
    from weitiao.records.record import Record
    from weitiao.records.render import ChatFormat


def missing(run: Run, options: EvaluateOptions) -> list[str]:
    """Return the names of the measures that are asked for and have no file of this version."""
    from weitiao.evaluation.forgetting import load_forgetting
    from weitiao.evaluation.memorising import load_memorising
    from weitiao.evaluation.speed import load_speed

    def lacks(name: str, load: Callable[..., object]) -> bool:
        try:
            load(run.evaluation / f"{name}.json")
        except RunError:
            return True
        return False

    loads = {"forgetting": load_forgetting, "memorising": load_memorising, "speed": load_speed}
    # 0 and false: not asked for; None: as many as take little time.
    asked = {name: getattr(options, name) not in (0, False) for name in loads}
    return [name for name, load in loads.items() if asked[name] and lacks(name, load)]


def measure(
    run: Run,
    recipe: Recipe,
    settled: Plan,
    formatted: ChatFormat,
    pair: tuple[Voice, Voice],
    test: list[Record],
    log: EventLog,
) -> None:
    """Take each measure of ``run`` that is missing; ``test``: the rows that were answered.

    A measure that fails is told as ``evaluation.failed`` (which, cause), and tried again by the
    next call.
    """
    from weitiao.evaluation.beside import Both

    size, budget = settled.eval_batch_size, settled.micro_batch_tokens
    both = Both(*pair, formatted, size, budget)
    take: dict[str, Callable[[], object]] = {
        "forgetting": lambda: _forgetting(run, recipe, settled, both, log),
        "memorising": lambda: _memorising(run, recipe, settled, both, test, log),
        "speed": lambda: _speed(run, both, log),
    }
    for name in missing(run, recipe.evaluate):
        try:
            take[name]()
        except (WeitiaoError, RuntimeError, MemoryError) as error:
            cause = (str(error) or type(error).__name__).splitlines()[0]
            log.emit("evaluation.failed", which=name, cause=cause)


def _forgetting(run: Run, recipe: Recipe, settled: Plan, both: Both, log: EventLog) -> None:
    from weitiao.evaluation.forgetting import measure_forgetting
    from weitiao.plan.rules import general_questions

    params = settled.shape.total_params
    count = general_questions(recipe.evaluate.forgetting, settled.device, params)
    path = run.evaluation / "forgetting.json"
    measure_forgetting(both, recipe.evaluate, path, log, count)


def _memorising(
    run: Run, recipe: Recipe, settled: Plan, both: Both, test: list[Record], log: EventLog
) -> None:
    from weitiao.evaluation.memorising import measure_memorising
    from weitiao.plan.rules import rows_by_heart
    from weitiao.records.prepare import load_records

    measure_memorising(
        both,
        load_records(run.records / "train.jsonl"),
        test,
        run.evaluation / "memorising.json",
        log,
        count=rows_by_heart(recipe.evaluate.memorising, settled.device),
        seed=recipe.evaluate.seed,
        max_tokens=settled.max_tokens,
        reasoning=recipe.data.reasoning,
    )


def _speed(run: Run, both: Both, log: EventLog) -> None:
    from weitiao.evaluation.speed import measure_speed

    log.emit("speed.start")
    measure_speed(both, run.evaluation / "speed.json")

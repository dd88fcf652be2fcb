"""What the report tells, read from the files of a run directory alone."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from weitiao.evaluation.compare import Results
from weitiao.evaluation.evaluate import load_results
from weitiao.evaluation.forgetting import Forgetting, load_forgetting
from weitiao.evaluation.judge import Judged, load_judged
from weitiao.evaluation.lm_eval_tasks import LmEval, load_lm_eval
from weitiao.evaluation.memorising import Memorising, load_memorising
from weitiao.evaluation.people import People, load_people
from weitiao.evaluation.speed import Speed, load_speed
from weitiao.events import Event, read_events
from weitiao.plan.plan import Plan, read_plan
from weitiao.records.report import DataReport, load_report
from weitiao.runs import Run

Measure = TypeVar("Measure")


@dataclass(frozen=True, slots=True)
class Training:
    """What happened in training: (step, loss) of every step and of every look at validation.

    ``best_step`` is the step whose weights were kept; the last four are None where training
    did not come to its end.
    """

    steps: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]
    best_step: int | None = None
    seconds: float | None = None
    tokens: int | None = None
    peak_memory_bytes: int | None = None
    stopped_early: bool = False

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens over the seconds spent training."""
        return self.tokens / self.seconds if self.tokens and self.seconds else None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the page shows; a part is None where the run has not come so far."""

    name: str
    recipe: str | None
    plan: Plan | None
    data: DataReport | None
    kept_sha256: str | None
    training: Training | None
    results: Results | None
    evaluation_seconds: float | None
    forgetting: Forgetting | None
    memorising: Memorising | None
    speed: Speed | None
    judged: Judged | None
    people: People | None
    lm_eval: LmEval | None


def read_facts(run: Run) -> Facts:
    """Read a run directory.

    Raises:
        RunError: a file of the run is there but is not of this version.
    """
    events = list(read_events(run.events)) if run.events.exists() else []
    kept = run.records / "kept.jsonl"
    report, measures = run.records / "report.json", run.evaluation
    measured = [e.data for e in events if e.kind == "evaluation.done"]
    return Facts(
        name=run.path.resolve().name,
        recipe=run.recipe.read_text(encoding="utf-8") if run.recipe.exists() else None,
        plan=_if_there(run.plan, read_plan),
        data=_if_there(report, load_report),
        kept_sha256=hashlib.sha256(kept.read_bytes()).hexdigest() if kept.exists() else None,
        training=_training(events),
        results=_if_there(measures / "results.json", load_results),
        evaluation_seconds=measured[-1].get("seconds") if measured else None,
        forgetting=_if_there(measures / "forgetting.json", load_forgetting),
        memorising=_if_there(measures / "memorising.json", load_memorising),
        speed=_if_there(measures / "speed.json", load_speed),
        judged=_if_there(measures / "judge.json", load_judged),
        people=_if_there(measures / "people.json", load_people),
        lm_eval=_if_there(measures / "lm_eval.json", load_lm_eval),
    )


def _if_there(path: Path, load: Callable[[Path], Measure]) -> Measure | None:
    return load(path) if path.exists() else None


def _training(events: list[Event]) -> Training | None:
    # A resumed run tells the steps after its checkpoint again: the last telling counts.
    steps = {e.data["step"]: e.data["loss"] for e in events if e.kind == "train.step"}
    if not steps:
        return None
    looks = {e.data["step"]: e.data["loss"] for e in events if e.kind == "train.eval"}
    done = next((e.data for e in reversed(events) if e.kind == "train.done"), {})
    return Training(
        steps=tuple(sorted(steps.items())),
        validation=tuple(sorted(looks.items())),
        best_step=done.get("best_step"),
        seconds=done.get("seconds"),
        tokens=done.get("tokens"),
        peak_memory_bytes=done.get("peak_memory_bytes"),
        stopped_early=bool(done.get("stopped_early")),
    )

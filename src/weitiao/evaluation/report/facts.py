"""What the report tells, read from the files of a run directory alone."""

import hashlib
from dataclasses import dataclass

from weitiao.evaluation.compare import Results
from weitiao.evaluation.evaluate import load_results
from weitiao.events import Event, read_events
from weitiao.plan.plan import Plan, read_plan
from weitiao.records.report import DataReport, load_report
from weitiao.runs import Run


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


def read_facts(run: Run) -> Facts:
    """Read a run directory.

    Raises:
        RunError: a file of the run is there but is not of this version.
    """
    events = list(read_events(run.events)) if run.events.exists() else []
    kept = run.records / "kept.jsonl"
    report = run.records / "report.json"
    results = run.evaluation / "results.json"
    measured = [e.data for e in events if e.kind == "evaluation.done"]
    return Facts(
        name=run.path.resolve().name,
        recipe=run.recipe.read_text(encoding="utf-8") if run.recipe.exists() else None,
        plan=read_plan(run.plan) if run.plan.exists() else None,
        data=load_report(report) if report.exists() else None,
        kept_sha256=hashlib.sha256(kept.read_bytes()).hexdigest() if kept.exists() else None,
        training=_training(events),
        results=load_results(results) if results.exists() else None,
        evaluation_seconds=measured[-1].get("seconds") if measured else None,
    )


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

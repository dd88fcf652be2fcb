"""What ``weitiao runs`` tells of each run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from weitiao.runs.directory import Run, folders, last_of_training, when_written

Status = Literal["planned", "running", "training", "trained", "evaluated", "failed"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A line of ``weitiao runs``; None where the run has not come so far.

    ``when``: seconds since the epoch at which the run last wrote something. ``verdict``:
    better, worse, same or cannot_tell, as the evaluation found.
    """

    name: str
    path: Path
    when: float
    model: str | None
    rows: int | None
    steps: int | None
    status: Status
    verdict: str | None


def list_runs(root: Path = Path("runs")) -> list[RunSummary]:
    """Return the runs in ``root``, newest first, from their files alone."""
    runs = [Run(folder) for folder in folders(root) if Run(folder).begun]
    return sorted((_summary(run) for run in runs), key=lambda line: -line.when)


def _summary(run: Run) -> RunSummary:
    plan = _json(run.plan)
    verdict = _json(run.evaluation / "results.json").get("verdict")
    return RunSummary(
        name=run.path.name,
        path=run.path,
        when=when_written(run.path),
        model=plan.get("model"),
        rows=plan.get("rows"),
        steps=plan.get("steps"),
        status=_status(run),
        verdict=verdict.get("outcome") if isinstance(verdict, dict) else None,
    )


def _status(run: Run) -> Status:
    last = last_of_training(run.events)
    if run.worked_on():
        return "training" if last == "train.start" else "running"
    if run.stage_done("evaluate"):
        return "evaluated"
    if run.stage_done("train"):
        return "trained"
    return "planned" if run.stage_done("plan") and last is None else "failed"


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}

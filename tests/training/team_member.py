"""One process of a team: does what a file of jobs says, one training after the other.

A job is {folder, overrides, strategy, happens}; what happens: [rank, step, "killed" (as by
kill -9, in every process), "stopped" (by SIGTERM), "short" (of memory, once) or "nan"].
"""

import json
import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from small_work import work

from weitiao.errors import WeitiaoError
from weitiao.events import Event, EventLog
from weitiao.models.flat import row_losses
from weitiao.training import step
from weitiao.training import team as team_module
from weitiao.training.launch import launch, member_of_team
from weitiao.training.loop import train
from weitiao.training.team import Team, join


def do(home: Path, jobs: list[dict[str, Any]]) -> None:
    """Do ``jobs`` in two processes; one start serves them all."""
    (home / "jobs.json").write_text(json.dumps(jobs))
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), str(here.parents[1]), *sys.path])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.setattr("weitiao.training.launch.GRACE", 1.0)
        command = [sys.executable, str(here), str(home / "jobs.json")]
        launch(command, 2, home / "logs", lambda: None)


def job(folder: Path, strategy: str, *overrides: str, happens: Any = (0, 0, "")) -> dict[str, Any]:
    """Return a job; see above."""
    return {
        "folder": str(folder), "strategy": strategy, "overrides": overrides, "happens": happens
    }  # fmt: skip


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


def main(jobs: list[dict[str, Any]]) -> None:
    plan = work(Path(jobs[0]["folder"]), plan={"processes": 2}).plan
    with join(plan) as team:
        for asked in jobs:
            step.row_losses = row_losses
            try:
                carry_out(asked, replace(team, strategy=asked["strategy"]))
            except Killed:
                pass
            except WeitiaoError as error:
                if error.key == "error.team_memory":
                    raise
                said = Path(asked["folder"]) / f"error-{team.rank}.txt"
                said.write_text(str(error))


def carry_out(asked: dict[str, Any], team: Team) -> None:
    rank, at, what = asked["happens"]

    def look(event: Event) -> None:
        if event.kind != "train.step" or event.data["step"] != at:
            return
        if what == "killed":
            raise Killed
        if what == "stopped" and team.rank == rank:
            os.kill(os.getpid(), signal.SIGTERM)
        if what in WRONG and team.rank == rank:
            step.row_losses = WRONG[what]

    changes = {"processes": team.size, "strategy": team.strategy}
    made = work(Path(asked["folder"]), *asked["overrides"], plan=changes)
    path = made.run.events if team.leads else None
    train(replace(made, team=team, events=EventLog(path, (look,))))


def no_room(*given: Any, **options: Any) -> torch.Tensor:
    """Fail as a GPU does, once."""
    step.row_losses = row_losses
    raise torch.OutOfMemoryError("CUDA out of memory")


def not_a_number(*given: Any, **options: Any) -> torch.Tensor:
    return row_losses(*given, **options) * float("nan")


WRONG = {"short": no_room, "nan": not_a_number}

if __name__ == "__main__":
    torch.set_num_threads(1)
    # Processes that wait for each other in vain are to fail a test, not to stop it.
    team_module.PATIENCE = timedelta(seconds=90)
    with member_of_team():
        main(json.loads(Path(sys.argv[1]).read_text()))

"""The run directory, where stages meet; whether one is done is told by its files alone."""

from weitiao.runs.directory import (
    Exists,
    Run,
    Stage,
    create_run,
    mend,
    open_run,
    publish_directory,
)
from weitiao.runs.listing import RunSummary, Status, list_runs
from weitiao.runs.owner import Owner, owner, write_owner

__all__ = [
    "Exists",
    "Owner",
    "Run",
    "RunSummary",
    "Stage",
    "Status",
    "create_run",
    "list_runs",
    "mend",
    "open_run",
    "owner",
    "publish_directory",
    "write_owner",
]

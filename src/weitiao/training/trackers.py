"""Trackers that show a training beside the run's own files, through Accelerate's classes.

Each keeps its own ways: what the user set in its environment variables stays. What a
tracker does wrong is told once and never ends the training.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from weitiao.errors import RecipeError
from weitiao.events import Event, EventLog, Listener

PROJECT = "weitiao"
"""Under which the trackers that know projects file the runs."""

_PREFIXES = {"train.step": "train/", "train.eval": "eval/"}


def require_trackers(names: Sequence[str]) -> None:
    """Make sure that the trackers ``names`` can be imported; the packages are called as they are.

    Raises:
        RecipeError: one is not installed.
    """
    for name in names:
        found = find_spec(name)
        # A folder that a tracker left in the working directory looks like a package without origin.
        if found is None or found.origin is None:
            raise RecipeError("error.tracker_missing", tracker=name)


@contextmanager
def tracked(
    names: Sequence[str], run_name: str, folder: Path, config: Mapping[str, Any], log: EventLog
) -> Iterator[tuple[Listener, ...]]:
    """Yield listeners that hand steps and evaluations to the trackers ``names``; end them after.

    Enter it in the process of rank 0 alone, and before signals are caught: some trackers catch
    Ctrl-C, too. What they keep on the disk lies in ``folder``, but trackio's, whose page reads
    one folder for all projects. ``config`` is shown as the settings of the run. That a tracker
    failed is told to ``log`` as ``train.tracker_failed``.

    Raises:
        RecipeError: one is not installed.
    """
    require_trackers(names)
    trackers = [_Tracked(name, log) for name in names]
    try:
        for tracker in trackers:
            tracker.start(run_name, folder, config)
        yield tuple(trackers)
    finally:
        for tracker in trackers:
            tracker.finish()


class _Tracked:
    """One of Accelerate's trackers, dropped at its first failure."""

    def __init__(self, name: str, log: EventLog) -> None:
        self.name = name
        self._log = log
        self._tracker: Any = None

    def start(self, run_name: str, folder: Path, config: Mapping[str, Any]) -> None:
        def start() -> None:
            from accelerate import PartialState

            # Accelerate's trackers log through it and raise where it was not made.
            PartialState()
            self._tracker = _MAKERS[self.name](run_name, folder / self.name)
            self._tracker.start()
            self._tracker.store_init_configuration(dict(_flat(config)))

        self._attempt(start)

    def __call__(self, event: Event) -> None:
        if self._tracker is not None and event.kind in _PREFIXES:
            values = _numbers(_PREFIXES[event.kind], event.data)
            self._attempt(lambda: self._tracker.log(values, step=event.data["step"]))

    def finish(self) -> None:
        if self._tracker is not None:
            self._attempt(self._tracker.finish)

    def _attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever it is: a tracker is no reason to stop
            self._tracker = None
            cause = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            self._log.emit("train.tracker_failed", tracker=self.name, cause=cause)


def _tensorboard(run_name: str, folder: Path) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(run_name, logging_dir=folder)


def _trackio(run_name: str, folder: Path) -> Any:
    from accelerate.tracking import TrackioTracker

    return TrackioTracker(PROJECT, name=run_name)


def _mlflow(run_name: str, folder: Path) -> Any:
    import mlflow
    from accelerate.tracking import MLflowTracker

    # Its own values let a step wait up to half an hour for a server that is gone.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    artifacts = None
    if "MLFLOW_TRACKING_URI" not in os.environ:
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        artifacts = (folder.resolve() / "artifacts").as_uri()
    return MLflowTracker(PROJECT, logging_dir=artifacts, run_name=run_name)


def _wandb(run_name: str, folder: Path) -> Any:
    from accelerate.tracking import WandBTracker

    # It makes a folder of its own name in there.
    folder.parent.mkdir(parents=True, exist_ok=True)
    return WandBTracker(
        os.environ.get("WANDB_PROJECT", PROJECT),
        name=os.environ.get("WANDB_NAME", run_name),
        dir=os.environ.get("WANDB_DIR", str(folder.parent)),
    )


def _swanlab(run_name: str, folder: Path) -> Any:
    from accelerate.tracking import SwanLabTracker

    project = os.environ.get("SWANLAB_PROJ_NAME", PROJECT)
    logs = os.environ.get("SWANLAB_LOG_DIR", str(folder))
    return SwanLabTracker(project, experiment_name=run_name, logdir=logs)


_MAKERS: dict[str, Callable[[str, Path], Any]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "swanlab": _swanlab,
}


def _numbers(prefix: str, data: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among the values of an event, but its place."""
    return {
        prefix + name: value
        for name, value in data.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name not in ("step", "steps")
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name → value, each a number, a truth value or text."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            plain = isinstance(value, bool | int | float | str)
            yield prefix + name, value if plain else str(value)

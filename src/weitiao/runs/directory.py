"""The run directory: the names in it, how it comes to be, and which stages are done."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from weitiao.errors import RunError
from weitiao.events import read_events
from weitiao.records.files import write_error
from weitiao.runs.owner import Owner, read_owner, take_lock

Stage = Literal["records", "plan", "train", "evaluate", "report"]
Exists = Literal["refuse", "resume", "overwrite"]

_STEP = re.compile(r"step-(\d+)")
_NEW, _OLD = ".new", ".old"


@dataclass(frozen=True, slots=True)
class Run:
    """One run directory; making the value makes nothing on the disk."""

    path: Path

    @property
    def recipe(self) -> Path:
        """What was asked, every value resolved."""
        return self.path / "recipe.yaml"

    @property
    def plan(self) -> Path:
        """What will be done, and why."""
        return self.path / "plan.json"

    @property
    def records(self) -> Path:
        """The folder of kept and rejected rows and of the three parts."""
        return self.path / "records"

    @property
    def events(self) -> Path:
        """One line an event."""
        return self.path / "events.jsonl"

    @property
    def adapter(self) -> Path:
        """The best adapter so far, in PEFT's format."""
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        """The best weights so far, where all of them are trained."""
        return self.path / "model"

    @property
    def base(self) -> Path:
        """The fingerprint of the base's weights, since the training began."""
        return self.path / "base.txt"

    @property
    def evaluation(self) -> Path:
        """The folder of answers and ``results.json``."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """The page a person reads."""
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """What a run in the background has said."""
        return self.path / "log.txt"

    @property
    def process(self) -> Path:
        """Which process carries out the run in the background: an :class:`Owner`."""
        return self.path / "process.json"

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint after ``step`` optimizer steps."""
        return self.path / "checkpoints" / f"step-{step}"

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Return (step, folder) of the complete checkpoints, oldest first."""
        found = []
        for folder in folders(self.path / "checkpoints"):
            if match := _STEP.fullmatch(folder.name):
                found.append((int(match[1]), folder))
        return sorted(found)

    def keep_last(self, count: int) -> None:
        """Delete all checkpoints but the last ``count``."""
        for _, folder in self.checkpoints()[:-count] if count else self.checkpoints():
            # Renamed first: a half-deleted folder must not look like a checkpoint.
            leaving = folder.with_name(f".{folder.name}{_OLD}")
            folder.rename(leaving)
            shutil.rmtree(leaving)

    def stage_done(self, stage: Stage) -> bool:
        """Return whether the files of ``stage`` are complete, so that it can be passed over."""
        if stage == "train":
            has_weights = self.adapter.is_dir() or self.model.is_dir()
            return has_weights and last_of_training(self.events) == "train.done"
        last_written = {
            "records": self.records / "report.json",
            "plan": self.plan,
            "evaluate": self.evaluation / "results.json",
            "report": self.report,
        }
        return last_written[stage].is_file()

    def require_resumable(self, resume: bool) -> None:
        """Make sure that a training that was broken off goes on only where that was asked.

        Raises:
            RunError: it was not.
        """
        checkpoints = self.checkpoints()
        if checkpoints and not resume and not self.stage_done("train"):
            raise RunError("error.training_begun", path=self.path, step=checkpoints[-1][0])

    @property
    def begun(self) -> bool:
        """Whether the folder holds anything that a run writes."""
        return any(path.exists() for path in (self.recipe, self.plan, self.events, self.records))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing to this run inside the block.

        The lock of a process that no longer lives is taken over, and what a kill left
        between two renames is put right.

        Raises:
            RunError: another process works on this run.
        """
        try:
            take_lock(self._lock)
        except OSError as error:
            raise write_error(self._lock, error) from error
        try:
            mend(self.path)
            mend(self.path / "checkpoints")
            yield
        finally:
            self._lock.unlink(missing_ok=True)

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

    def worker(self) -> Owner | None:
        """Return the living process that works on the run, by itself or in a terminal."""
        # The background process counts from end to end, the lock only within its stages. On
        # a shared disk another computer's process cannot be looked up: its lock alone counts.
        background, locking = read_owner(self.process), read_owner(self._lock)
        if background is not None and background.is_here and background.lives():
            return background
        return locking if locking is not None and locking.lives() else None

    def worked_on(self) -> bool:
        """Return whether a living process works on the run."""
        return self.worker() is not None


def create_run(
    out: Path | None,
    name_hint: str,
    exists: Exists = "refuse",
    root: Path = Path("runs"),
) -> Run:
    """Make a run directory: ``out``, or one in ``root`` named after ``name_hint``.

    A name that weitiao chose itself gets a number where it is taken, so that running the
    same command twice keeps both. ``resume`` opens what is there; ``overwrite`` moves it
    aside to ``NAME.old-1`` and deletes nothing.

    Raises:
        RunError: ``out`` exists and nothing was said about it, is no run, or is in use.
    """
    if out is None:
        name = re.sub(r"[^\w.-]+", "-", name_hint).strip("-.") or "run"
        path = _chosen_by_us(root, name, exists)
    else:
        path = out
    run = Run(path)
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            if not run.begun:
                raise RunError("error.run_not_a_run", path=path)
            if exists == "refuse":
                raise RunError("error.run_exists", path=path)
            if exists == "overwrite":
                if (worker := run.worker()) is not None:
                    raise RunError("error.run_in_use", path=path, pid=worker.pid)
                path.rename(_free(path, ".old-"))
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
    return run


def _chosen_by_us(root: Path, name: str, exists: Exists) -> Path:
    path = root / name
    if exists == "refuse":
        return _free(path, "-") if path.exists() else path
    if exists == "resume":
        same = [
            path,
            *(p for p in folders(root) if re.fullmatch(re.escape(name) + r"-\d+", p.name)),
        ]
        begun = [p for p in same if Run(p).begun]
        return max(begun, key=when_written, default=path)
    return path


def _free(path: Path, joint: str) -> Path:
    number = 2 if joint == "-" else 1
    while (free := path.with_name(f"{path.name}{joint}{number}")).exists():
        number += 1
    return free


def open_run(path_or_name: str | Path, root: Path = Path("runs")) -> Run:
    """Return a run that exists, by its folder or by its name in ``root``.

    Raises:
        RunError: there is none; near names are given.
    """
    for path in (Path(path_or_name).expanduser(), root / path_or_name):
        if path.is_dir() and Run(path).begun:
            return Run(path)
    names = [folder.name for folder in folders(root) if Run(folder).begun]
    wanted = Path(path_or_name).name
    if near := get_close_matches(wanted, names, n=3, cutoff=0.5):
        raise RunError("error.run_missing_near", name=path_or_name, near=", ".join(near))
    raise RunError("error.run_missing", name=path_or_name)


@contextmanager
def publish_directory(final: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place of ``final`` when the block ends without an error.

    Its files are on the disk before the rename. A kill at any moment leaves the old folder
    or the new one under the name; between two renames the old one waits beside it, and
    :meth:`Run.lock` puts it back.

    Raises:
        RunError: the disk is full, or the place cannot be written.
    """
    new, old = final.with_name(f".{final.name}{_NEW}"), final.with_name(f".{final.name}{_OLD}")
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
        for file in new.rglob("*"):
            if file.is_file():
                _to_disk(file)
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
            final.rename(old)
        new.rename(final)
        _to_disk(final.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise write_error(final, error) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def mend(folder: Path) -> None:
    """Put right what a kill in :func:`publish_directory` or ``keep_last`` left in ``folder``."""
    for left in folders(folder, hidden=True):
        name = left.name.removeprefix(".").removesuffix(_OLD)
        is_checkpoint = _STEP.fullmatch(name) is not None
        if left.name.endswith(_OLD) and not is_checkpoint and not (folder / name).exists():
            left.rename(folder / name)
        elif left.name.endswith((_OLD, _NEW)):
            shutil.rmtree(left)


def _to_disk(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def last_of_training(events: Path) -> str | None:
    """Return train.start or train.done, whichever came last; None before training."""
    if not events.is_file():
        return None
    kinds = (event.kind for event in read_events(events))
    return next(reversed([k for k in kinds if k in ("train.start", "train.done")]), None)


def when_written(path: Path) -> float:
    """Return when the run last wrote something, in seconds since the epoch."""
    files = [path, *(p for p in path.glob("*") if p.is_file())]
    return max(file.stat().st_mtime for file in files)


def folders(parent: Path, hidden: bool = False) -> list[Path]:
    """Return the folders in ``parent``: the hidden ones, or the others."""
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and p.name.startswith(".") is hidden)

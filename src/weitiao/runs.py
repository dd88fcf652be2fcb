"""The run directory: the names in it, how it comes to be, and what its files tell.

Stages meet here and nowhere else; whether one is done is told by its files alone.
"""

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from weitiao.errors import RunError
from weitiao.events import read_events
from weitiao.records.files import write_error

Stage = Literal["records", "plan", "train", "evaluate", "report"]
Status = Literal["planned", "training", "trained", "evaluated", "failed"]
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
    def evaluation(self) -> Path:
        """The folder of answers and ``results.json``."""
        return self.path / "evaluation"

    @property
    def report(self) -> Path:
        """The page a person reads."""
        return self.path / "report.html"

    def checkpoint(self, step: int) -> Path:
        """Return the folder of the checkpoint after ``step`` optimizer steps."""
        return self.path / "checkpoints" / f"step-{step}"

    def checkpoints(self) -> list[tuple[int, Path]]:
        """Return (step, folder) of the complete checkpoints, oldest first."""
        found = []
        for folder in _folders(self.path / "checkpoints"):
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
            return has_weights and _last_of_training(self.events) == "train.done"
        last_written = {
            "records": self.records / "report.json",
            "plan": self.plan,
            "evaluate": self.evaluation / "results.json",
            "report": self.report,
        }
        return last_written[stage].is_file()

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
            _take_lock(self._lock)
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

    def worked_on(self) -> bool:
        """Return whether a living process holds the lock."""
        return _owner_lives(self._lock)


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
                if run.worked_on():
                    raise RunError("error.run_in_use", path=path, pid=_json(run._lock)["pid"])
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
            *(p for p in _folders(root) if re.fullmatch(re.escape(name) + r"-\d+", p.name)),
        ]
        begun = [p for p in same if Run(p).begun]
        return max(begun, key=_when, default=path)
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
    names = [folder.name for folder in _folders(root) if Run(folder).begun]
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
    for left in _folders(folder, hidden=True):
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


def _take_lock(path: Path) -> None:
    import psutil  # type: ignore[import-untyped]

    me = {
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "host": socket.gethostname(),
    }
    # Linked into place whole: a lock file is never seen half written.
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    mine.write_text(json.dumps(me), encoding="utf-8")
    try:
        for _ in range(2):
            with suppress(FileExistsError):
                os.link(mine, path)
                return
            if _owner_lives(path):
                break
            path.unlink(missing_ok=True)
        raise RunError("error.run_in_use", path=path.parent, pid=_json(path).get("pid", "?"))
    finally:
        mine.unlink(missing_ok=True)


def _owner_lives(path: Path) -> bool:
    """Return whether the process in the lock file lives; a reused number is told by its start."""
    owner = _json(path)
    if not owner:
        return False
    if owner.get("host") != socket.gethostname():
        # On a shared disk another machine may hold it; that cannot be looked up from here.
        return True
    import psutil

    try:
        started = psutil.Process(owner["pid"]).create_time()
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
    return bool(abs(started - float(owner.get("started", 0.0))) < 1.0)


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
    runs = [Run(folder) for folder in _folders(root) if Run(folder).begun]
    return sorted((_summary(run) for run in runs), key=lambda line: -line.when)


def _summary(run: Run) -> RunSummary:
    plan = _json(run.plan)
    verdict = _json(run.evaluation / "results.json").get("verdict")
    return RunSummary(
        name=run.path.name,
        path=run.path,
        when=_when(run.path),
        model=plan.get("model"),
        rows=plan.get("rows"),
        steps=plan.get("steps"),
        status=_status(run),
        verdict=verdict.get("outcome") if isinstance(verdict, dict) else None,
    )


def _status(run: Run) -> Status:
    if run.stage_done("evaluate"):
        return "evaluated"
    if run.stage_done("train"):
        return "trained"
    begun = _last_of_training(run.events) is not None
    if run.worked_on():
        return "training" if begun else "planned"
    return "planned" if run.stage_done("plan") and not begun else "failed"


def _last_of_training(events: Path) -> str | None:
    """Return train.start or train.done, whichever came last; None before training."""
    if not events.is_file():
        return None
    kinds = (event.kind for event in read_events(events))
    return next(reversed([k for k in kinds if k in ("train.start", "train.done")]), None)


def _when(path: Path) -> float:
    files = [path, *(p for p in path.glob("*") if p.is_file())]
    return max(file.stat().st_mtime for file in files)


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _folders(parent: Path, hidden: bool = False) -> list[Path]:
    """Return the folders in ``parent``: the hidden ones, or the others."""
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and p.name.startswith(".") is hidden)

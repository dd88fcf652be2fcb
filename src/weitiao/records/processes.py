"""The stage on several processes: blocks of rows out, what became of them back, in order.

The processes are started from the command line, not forked (torch and tokenizers hold
threads) and not through :mod:`multiprocessing`, which would run a user's own script again.
Tasks and results go through files, so that nobody waits for another to read, and the process
that asks works on rows itself whenever its helpers have enough to do.
"""

import gc
import os
import pickle
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 2
"""Tasks that a helper has at a time: one in hand and the next."""

_UNSAVED = 8
"""The most results that wait here for an earlier one of a helper."""

_SECONDS_BETWEEN_LOOKS = 0.001


def in_order(
    make: Callable[..., Callable[[Task], Result]],
    arguments: tuple[Any, ...],
    tasks: Iterable[Task],
    helpers: int,
) -> Iterator[Result]:
    """Yield ``make(*arguments)(task)`` for each task, worked out here and by ``helpers`` processes.

    ``make`` is a function of a module; its arguments and all tasks and results can be pickled.
    """
    work = make(*arguments)
    with TemporaryDirectory(prefix="weitiao-") as name:
        folder = Path(name)
        _save(folder / "make", (make, arguments))
        started = [_Helper(folder, work) for _ in range(helpers)]
        # Of each task in turn: its result, or the number under which a helper saves it.
        waiting: deque[tuple[_Helper | None, Any]] = deque()
        try:
            for number, task in enumerate(tasks):
                helper = next((one for one in started if one.is_free()), None)
                if helper is not None:
                    helper.give(number, task)
                waiting.append((helper, number) if helper else (None, work(task)))
                while waiting and (
                    _is_there(waiting[0]) or len(waiting) > _UNSAVED * (helpers + 1)
                ):
                    yield _result(*waiting.popleft())
            while waiting:
                yield _result(*waiting.popleft())
        finally:
            for one in started:
                one.end()


class _Helper:
    """A process that works on the tasks it is given, in turn; if it dies, they are done here."""

    def __init__(self, folder: Path, work: Callable[[Any], Any]) -> None:
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", __name__, str(folder)]
        self._folder, self._work_here = folder, work
        self._given: deque[int] = deque()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
        )

    def is_free(self) -> bool:
        """Return whether another task would be begun soon."""
        while self._given and self.has_done(self._given[0]):
            self._given.popleft()
        return len(self._given) < _AHEAD and self._process.poll() is None

    def give(self, number: int, task: Any) -> None:
        """Give the helper a task, whose result it saves under ``number``."""
        _save(self._folder / f"{number}.task", task)
        assert self._process.stdin is not None
        self._given.append(number)
        with suppress(OSError):  # it has died just now
            self._process.stdin.write(b"%d\n" % number)
            self._process.stdin.flush()

    def has_done(self, number: int) -> bool:
        """Return whether the result of the task is there, or was."""
        return (self._folder / f"{number}.done").exists() or number not in self._given

    def result(self, number: int) -> Any:
        """Wait for the result of a task; raise what was raised there."""
        path = self._folder / f"{number}.done"
        while not path.exists():
            if self._process.poll() is not None and not path.exists():
                # Most likely for want of memory, of which there is more now.
                task = pickle.loads((self._folder / f"{number}.task").read_bytes())
                return self._work_here(task)
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        worked, result = pickle.loads(path.read_bytes())
        path.unlink()
        if number in self._given:
            self._given.remove(number)
        if not worked:
            raise result
        return result

    def end(self) -> None:
        """Stop, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()


def _is_there(found: tuple[_Helper | None, Any]) -> bool:
    helper, number = found
    return helper is None or helper.has_done(number)


def _result(helper: _Helper | None, found: Any) -> Any:
    return found if helper is None else helper.result(found)


def _save(path: Path, value: Any) -> None:
    """Write ``value`` such that the file is there as a whole or not at all."""
    new = path.with_suffix(".new")
    new.write_bytes(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    new.replace(path)


@contextmanager
def rarely_collecting() -> Iterator[None]:
    """Look for cycles of objects less often: rows hold none, and there are very many of them.

    Looking among them as often as Python does takes half as long as all that is done with them.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _work(folder: Path) -> None:
    """Be a helper: work on the tasks whose numbers come in, until no more come."""
    make, arguments = pickle.loads((folder / "make").read_bytes())
    work = make(*arguments)
    with rarely_collecting():
        for line in sys.stdin.buffer:
            number = int(line)
            task = folder / f"{number}.task"
            try:
                answer: tuple[bool, Any] = (True, work(pickle.loads(task.read_bytes())))
            except Exception as error:
                answer = (False, error)
            _save(folder / f"{number}.done", answer)
            task.unlink()


if __name__ == "__main__":
    _work(Path(sys.argv[1]))

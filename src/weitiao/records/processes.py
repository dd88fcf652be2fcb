"""The stage on several processes: blocks of rows out, what became of them back, in order.

The processes are started from the command line, not forked (torch and tokenizers hold
threads) and not through :mod:`multiprocessing`, which would run a user's own script again.
"""

import gc
import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import IO, Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(
    make: Callable[..., Callable[[Task], Result]],
    arguments: tuple[Any, ...],
    tasks: Iterable[Task],
    processes: int,
) -> Iterator[Result]:
    """Yield ``make(*arguments)(task)`` for each task, from ``processes`` processes.

    ``make`` is a function of a module, its arguments and all tasks and results can be
    pickled. At most two tasks a process are waiting, so memory stays bounded.
    """
    started = [_start() for _ in range(processes)]
    for process in started:
        _send(process.stdin, (make, arguments))
    free: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
    for process in started:
        free.put(process)

    def carry_out(task: Task) -> Result:
        process = free.get()
        try:
            result: Result = _ask(process, task)
            return result
        finally:
            free.put(process)

    waiting: deque[Future[Result]] = deque()
    try:
        with ThreadPoolExecutor(processes) as threads:
            for task in tasks:
                waiting.append(threads.submit(carry_out, task))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        for process in started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


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


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )


def _ask(process: subprocess.Popen[bytes], task: Any) -> Any:
    _send(process.stdin, task)
    worked, result = pickle.load(process.stdout)  # type: ignore[arg-type]
    if not worked:
        raise result
    return result


def _send(pipe: IO[bytes] | None, value: Any) -> None:
    assert pipe is not None
    pickle.dump(value, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _work() -> None:
    """Be one of the processes: read tasks until there are no more."""
    into, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not stand between the results
    make, arguments = pickle.load(into)
    work = make(*arguments)
    with rarely_collecting():
        while True:
            try:
                task = pickle.load(into)
            except EOFError:
                return
            try:
                answer: tuple[bool, Any] = (True, work(task))
            except Exception as error:
                answer = (False, error)
            _send(out, answer)


if __name__ == "__main__":
    _work()

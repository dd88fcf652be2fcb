"""SIGTERM, Ctrl-C and a lost terminal end the training after the step at hand, not in its midst."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from types import FrameType


@dataclass(slots=True)
class Stop:
    """Whether the training has been asked to stop."""

    asked: bool = False


@contextmanager
def stop_requested(tell: Callable[[], object]) -> Iterator[Stop]:
    """Give what SIGTERM, SIGINT or SIGHUP marks; a second SIGINT interrupts at once.

    ``tell`` is called at the first signal, in a thread of its own: a step can take half a
    minute, and nothing may be written from within a signal handler. A second SIGTERM changes
    nothing: ``timeout`` and others send it twice. SIGHUP comes when the terminal is gone, and
    what is said to it from then on goes nowhere; ``nohup`` keeps it from coming. Outside the
    main thread signals cannot be caught, and nothing is ever marked.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # Its put() alone, of all that wakes a thread, may be called from a signal handler.
    waking: SimpleQueue[bool] = SimpleQueue()
    # Of a terminal that is gone it cannot be told any more that it was one.
    terminals = [output for output in (1, 2) if os.isatty(output)]

    def on_signal(number: int, frame: FrameType | None) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            _silence(terminals)
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop.asked:
            stop.asked = True
            waking.put(True)

    def wait_and_tell() -> None:
        if waking.get():
            tell()

    teller = threading.Thread(target=wait_and_tell, daemon=True)
    teller.start()
    before = {n: signal.signal(n, on_signal) for n in _heeded()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        waking.put(False)
        teller.join()


def _heeded() -> list[int]:
    """Return the signals that ask to stop; Windows has no SIGHUP, and nohup has it ignored."""
    hang_up = getattr(signal, "SIGHUP", None)
    lost = [] if hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN else [hang_up]
    return [signal.SIGTERM, signal.SIGINT, *lost]


def _silence(outputs: list[int]) -> None:
    """Let what is written to ``outputs`` go nowhere: writing to a lost terminal is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in outputs:
        os.dup2(nowhere, output)
    os.close(nowhere)

"""SIGTERM and Ctrl-C end the training after the step at hand, not in the midst of it."""

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
    """Give what SIGTERM or SIGINT marks; a second SIGINT interrupts at once.

    ``tell`` is called at the first signal, in a thread of its own: a step can take half a
    minute, and nothing may be written from within a signal handler. A second SIGTERM changes
    nothing: ``timeout`` and others send it twice. Outside the main thread signals cannot be
    caught, and nothing is ever marked.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # Its put() alone, of all that wakes a thread, may be called from a signal handler.
    waking: SimpleQueue[bool] = SimpleQueue()

    def on_signal(number: int, frame: FrameType | None) -> None:
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
    before = {n: signal.signal(n, on_signal) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        waking.put(False)
        teller.join()

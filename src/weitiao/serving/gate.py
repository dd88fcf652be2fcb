"""How many may ask at once, and how often."""

import math
import time
from collections import Counter
from collections.abc import Callable
from threading import Lock

from weitiao.serving.engine import Engine
from weitiao.serving.faults import RequestError

_MOST_BUCKETS = 10_000


class Gate:
    """Bounds what waits for the engine, which takes requests in the order of their arrival.

    Where there are several keys, none may fill more than its share of the places to wait.
    """

    def __init__(self, engine: Engine, max_waiting: int, keys: int) -> None:
        self._engine, self._places = engine, max_waiting
        self._share = math.ceil(max_waiting / max(keys, 1))
        self._inside: Counter[str] = Counter()
        self._seconds = 1.0

    def enter(self, key: str, asks: int) -> None:
        """Take ``asks`` more in.

        Raises:
            RequestError: too many wait already.
        """
        running = self._engine.load().running
        waiting = max(0, self._inside.total() - running)
        own = max(0, self._inside[key] - running)
        # What nobody waits before is taken in, however much it is: it could never be otherwise.
        if (waiting and waiting + asks > self._places) or (own and own + asks > self._share):
            after = math.ceil(self._seconds * waiting / max(running, 1))
            raise RequestError(
                "serve.error.queue", retry_after=min(max(after, 1), 60), waiting=waiting
            )
        self._inside[key] += asks

    def leave(self, key: str, seconds: float) -> None:
        """Let one out after ``seconds``."""
        self._inside[key] -= 1
        if not self._inside[key]:
            del self._inside[key]
        self._seconds += 0.1 * (seconds - self._seconds)


class RateLimit:
    """A bucket of tokens for each asker: ``a_minute`` at most at once, refilled evenly."""

    def __init__(self, a_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = a_minute, clock
        self._buckets: dict[str, tuple[float, float]] = {}
        # Requests are counted in several threads.
        self._one_at_a_time = Lock()

    def take(self, asker: str) -> None:
        """Count a request.

        Raises:
            RequestError: it is one too many.
        """
        if self._most is None:
            return
        with self._one_at_a_time:
            now = self._clock()
            left, then = self._buckets.pop(asker, (float(self._most), now))
            left = min(self._most, left + (now - then) * self._most / 60)
            # Popped and put back: the first is who asked longest ago, and is forgotten first.
            self._buckets[asker] = (left - 1 if left >= 1 else left, now)
            if len(self._buckets) > _MOST_BUCKETS:
                del self._buckets[next(iter(self._buckets))]
        if left < 1:
            after = math.ceil((1 - left) * 60 / self._most)
            raise RequestError("serve.error.rate", retry_after=after, most=self._most)

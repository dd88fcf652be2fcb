"""What one application keeps while it runs: the engine's state, the gate, and who asks what."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from weitiao.serving.engine import Ask, EngineError, Sampling
from weitiao.serving.faults import RequestError
from weitiao.serving.gate import Gate, RateLimit
from weitiao.serving.keys import Keys
from weitiao.serving.metrics import Metrics
from weitiao.serving.service import Served, Service
from weitiao.words import Language

LOG = logging.getLogger("weitiao.serving")


_PROBE_SECONDS = 30.0
"""How long an engine that failed may take for one token, behind all that waits for it."""
_PROBE_PAUSE = 5.0
"""Seconds from one try to the next."""
_PATIENCE = 1.0
"""Seconds for which is waited for a try; who asks whether the server is ready soon asks again."""


@dataclass(slots=True)
class Seen:
    """What is known of one request so far; times are the event loop's, in seconds."""

    id: str
    tongue: Language
    arrived: float
    asker: str = ""
    """Whose key it is, or the address where there are no keys."""
    owner: str = ""
    """The key's digest, by which it is known after a restart; '' where there are no keys."""
    route: str = "other"
    model: str = ""
    status: int = 499
    code: str | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    first_token: float | None = None
    """Seconds from the arrival on."""
    texts: dict[str, object] = field(default_factory=dict)
    """What was asked and answered, where the log is to hold it."""


class Desk:
    """Between the routes and the engine."""

    def __init__(self, service: Service) -> None:
        options = service.options
        self.service, self.options = service, options
        self.keys = Keys(options)
        self.gate = Gate(service.engine, options.max_waiting, len(self.keys))
        self.rate = RateLimit(options.rate_limit)
        self.metrics = Metrics(service.engine)
        self.state: Literal["loading", "ready", "broken", "closed"] = "loading"
        self.failure: BaseException | None = None
        """Why the engine did not start."""
        self.on_failure: Callable[[], None] = lambda: None
        self.aside = ThreadPoolExecutor(1, "tokenise")
        """For what would hold the event loop; one thread, because tokenizers are shared."""
        self._starting: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._probe_at = 0.0
        self._served = {served.name: served for served in service.served}

    def start(self) -> None:
        """Begin to load the engine; requests are told to wait until it is there."""
        self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        try:
            await self.service.engine.start()
        except Exception as error:
            self.state, self.failure = "broken", error
            self.on_failure()
        else:
            self.state = "ready"

    async def close(self) -> None:
        """Give everything back; once is enough."""
        if self.state == "closed":
            return
        self.state = "closed"
        for task in (self._starting, self._probe):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.aside.shutdown(wait=False, cancel_futures=True)
        await self.service.engine.close()

    def check_ready(self) -> None:
        """Raise what a request is told while nothing can be answered.

        Raises:
            RequestError: the engine is loading, or did not start.
        """
        if self.state == "loading":
            raise RequestError("serve.error.loading", retry_after=2)
        if self.failure is not None or self.state == "closed":
            raise RequestError("serve.error.engine")

    def broke(self, error: EngineError) -> RequestError:
        """Remember that the engine failed, until it answers again; return what is told."""
        if self.state == "ready":
            self.state = "broken"
        LOG.error("engine", exc_info=error)
        return RequestError("serve.error.engine", retry_after=5)

    def works(self) -> None:
        """Remember that the engine answers."""
        if self.state == "broken":
            self.state = "ready"
            LOG.info("engine works")

    async def recovered(self) -> bool:
        """Return whether the engine works; one that failed is tried, but rarely.

        Nobody else may find out: where a load balancer asks, it sends no questions meanwhile.
        """
        now = asyncio.get_running_loop().time()
        if self.state == "broken":
            if now >= self._probe_at and (self._probe is None or self._probe.done()):
                self._probe_at = now + _PROBE_PAUSE
                self._probe = asyncio.create_task(self._try_engine())
            if self._probe is not None:
                await asyncio.wait([self._probe], timeout=_PATIENCE)
        return self.state == "ready"

    async def _try_engine(self) -> None:
        served = self.service.served[0]
        stop_ids = served.chat.stop_ids
        ask = Ask(served.name, stop_ids[:1], Sampling(1), stop_ids)
        # Why it fails was logged when it failed first.
        with suppress(Exception):
            async with asyncio.timeout(_PROBE_SECONDS):
                async for step in self.service.engine.stream(ask):
                    if step.finish:
                        self.works()

    def find(self, model: str | None) -> Served:
        """Return the model of that name; without a name, the first.

        Raises:
            RequestError: there is none.
        """
        if model is None:
            return self.service.served[0]
        if model not in self._served:
            names = ", ".join(self._served)
            raise RequestError("serve.error.model", param="model", model=model[:100], models=names)
        return self._served[model]

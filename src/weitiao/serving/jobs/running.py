"""The jobs of one server while it runs: who does them, and what becomes of those left behind."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI

from weitiao.errors import RunError
from weitiao.serving.app import keys_of
from weitiao.serving.desk import LOG, Desk
from weitiao.serving.jobs.asking import within
from weitiao.serving.jobs.celery_broker import AGAIN_SECONDS, RUNNER, announcer
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.routes import ROUTER, WORKERS, Board
from weitiao.serving.jobs.store import Job, Store
from weitiao.serving.jobs.turns import Turns
from weitiao.serving.jobs.worker import work

_LOOK_SECONDS = 5.0
"""How often is looked for what other servers queued, and for what workers left behind."""

_LOADING_SECONDS = 0.1


def add_jobs(app: FastAPI, path: Path, options: JobOptions) -> None:
    """Let an application of :func:`~weitiao.serving.app.create_app` do jobs, kept in ``path``.

    They are done while it runs: within the server, or by Celery's workers where ``options``
    name a broker.

    Raises:
        RunError: the file cannot be used, or Celery is not installed.
    """
    desk: Desk = app.state.desk
    announce = announcer(options) if options.broker else None
    jobs = Jobs(Store(path), desk, options, announce)
    app.state.jobs = Board(jobs.store, options, jobs.wake, jobs.turns)
    app.state.body_limits = {ROUTER.prefix: options.max_job_bytes}
    app.include_router(ROUTER, dependencies=keys_of(app))
    app.include_router(WORKERS)
    rest = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with rest(app), jobs.running():
            yield

    app.router.lifespan_context = lifespan


class Jobs:
    """Does the jobs of ``store``, or with ``announce`` tells others to."""

    def __init__(
        self,
        store: Store,
        desk: Desk,
        options: JobOptions,
        announce: Callable[[], None] | None = None,
    ) -> None:
        self.store, self.turns = store, Turns(options.parallel)
        self._desk, self._options, self._announce = desk, options, announce
        self._look = min(_LOOK_SECONDS, options.stale_seconds / 2)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._new = asyncio.Event()
        self._runner = uuid.uuid4().hex
        self._doing: set[asyncio.Task[None]] = set()
        """The jobs that are done within this server: of each owner one at a time."""
        self._down = False
        """Whether the broker could not be reached when it was last tried."""

    def wake(self) -> None:
        """Tell that a job was queued; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._new.set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do jobs within; at its end, those under way are queued again and the file closed."""
        self._loop = asyncio.get_running_loop()
        does = self._tell if self._announce else self._begin_one
        tasks = [
            asyncio.create_task(self._ever(self._sweep)),
            asyncio.create_task(self._ever(does)),
        ]
        try:
            yield
        finally:
            await _end(tasks)
            await _end(list(self._doing))
            self.store.close()

    async def _ever(self, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat ``step``; what goes wrong in it (a full disk) is logged, and tried again."""
        while True:
            try:
                await step()
            except Exception:
                LOG.exception("jobs")
                await asyncio.sleep(self._look)

    async def _sweep(self) -> None:
        """Queue again what dead workers left, and delete what is old."""
        why = RunError("jobs.failed.worker_died", attempts=self._options.max_attempts)
        seconds, attempts = self._options.stale_seconds, self._options.max_attempts
        if await asyncio.to_thread(self.store.requeue, seconds, attempts, why):
            self._new.set()
        await asyncio.to_thread(self.store.purge, self._options.keep_days)
        await asyncio.sleep(self._look)

    async def _begin_one(self) -> None:
        """Begin the job whose turn it is, or wait for one."""
        while self._desk.state == "loading":
            await asyncio.sleep(_LOADING_SECONDS)
        self._new.clear()
        job = await asyncio.to_thread(self.store.claim, self._runner)
        if job is None:
            await self._wait()
        else:
            self._doing.add(task := asyncio.create_task(self._do(job)))
            task.add_done_callback(self._doing.discard)

    async def _do(self, job: Job) -> None:
        try:
            ask = within(self._desk, self.turns, job.owner)
            await work(self.store, job, ask, self._options)
        except Exception:
            # Not heard of any more, it is queued again.
            LOG.exception("jobs")
        finally:
            self._new.set()

    async def _tell(self) -> None:
        """Tell Celery's workers of what could be begun."""
        self._new.clear()
        told = await asyncio.to_thread(self.store.announce, RUNNER, AGAIN_SECONDS)
        try:
            await asyncio.to_thread(self._send, len(told))
        except Exception as error:
            # The jobs stay in the table; they are told of when the broker is there again.
            await asyncio.to_thread(self.store.unannounce, told)
            if not self._down:
                LOG.warning("broker", extra={"fields": {"error": str(error)[:200]}})
            self._down = True
        else:
            self._down = self._down and not told
        await self._wait()

    def _send(self, many: int) -> None:
        assert self._announce is not None
        for _ in range(many):
            self._announce()

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._new.wait(), self._look)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

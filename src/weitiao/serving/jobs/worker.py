"""Doing one job: its asks are asked, each answer is on the disk before the next."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from weitiao.errors import RunError
from weitiao.serving.desk import LOG
from weitiao.serving.jobs.asking import Asker, RefusedError
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.scoring import scored
from weitiao.serving.jobs.store import Job, Store

_UNREACHED, _BUSY, _LATE = (0, 502, 503), (408, 429), 504
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0


class _StoppedError(Exception):
    """The job was cancelled or deleted, or another worker has it."""


async def work(store: Store, job: Job, ask: Asker, options: JobOptions) -> None:
    """Do a job that was claimed, from where an earlier worker left it.

    It ends done, failed, or cancelled. Where this is cancelled, the job is queued again.
    """
    doing = asyncio.create_task(_Work(store, job, ask, options).do())
    beating = asyncio.create_task(_beat(store, job, options.stale_seconds / 4))
    try:
        await asyncio.wait((doing, beating), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            await asyncio.to_thread(store.end, job, summary=doing.result())
    except _StoppedError:
        return
    except RunError as error:
        await asyncio.to_thread(store.end, job, error)
    except asyncio.CancelledError:
        store.release(job)
        raise
    except Exception as error:
        LOG.exception("job", extra={"fields": {"job": job.id}})
        kind = type(error).__name__
        await asyncio.to_thread(store.end, job, RunError("jobs.failed.internal", error=kind))
    finally:
        for task in (doing, beating):
            task.cancel()
        await asyncio.gather(doing, beating, return_exceptions=True)


async def _beat(store: Store, job: Job, seconds: float) -> None:
    """Tell that the job is being done, until it is not to be any more."""
    while await asyncio.to_thread(store.beat, job):
        await asyncio.sleep(seconds)


class _Work:
    """What is known while a job is done."""

    def __init__(self, store: Store, job: Job, ask: Asker, options: JobOptions) -> None:
        self._store, self._job, self._ask, self._options = store, job, ask, options
        self._turns: list[dict[str, Any]] = []

    async def do(self) -> dict[str, Any] | None:
        """Ask all that is left; return the table of an evaluation.

        Raises:
            RunError: it cannot be gone on with.
        """
        job = self._job
        todo = iter(await asyncio.to_thread(self._store.asks, job, left=True))
        if job.kind == "dialogue":
            await asyncio.to_thread(self._remember)
        several = 1 if job.kind == "dialogue" else self._options.parallel
        lanes = [asyncio.create_task(self._lane(todo)) for _ in range(several)]
        try:
            for lane in asyncio.as_completed(lanes):
                await lane
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        if job.kind != "evaluation":
            return None
        return await asyncio.to_thread(scored, self._store.results(job.id), job.spec["suite"])

    def _remember(self) -> None:
        """Take up a dialogue where it was."""
        if (system := self._job.spec.get("system")) is not None:
            self._turns.append({"role": "system", "content": system})
        asked = self._store.asks(self._job)
        # The results of a dialogue are those of its first turns.
        for (_, ask), line in zip(asked, self._store.results(self._job.id), strict=False):
            self._said(ask["body"]["messages"], orjson.loads(line)["response"]["body"])

    def _said(self, messages: list[dict[str, Any]], answer: Mapping[str, Any]) -> None:
        said = answer["choices"][0]["message"]["content"]
        self._turns += [*messages, {"role": "assistant", "content": said}]

    async def _lane(self, todo: Iterator[tuple[int, dict[str, Any]]]) -> None:
        """Do what is left, as the other lanes do: each takes the next ask."""
        for place, ask in todo:
            line, failed = await self._line(place, ask)
            told = orjson.dumps(line).decode()
            if not await asyncio.to_thread(self._store.put, self._job, place, told, failed):
                raise _StoppedError

    async def _line(self, place: int, ask: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Ask, and return a line in the shape of OpenAI's batch results; and whether it failed."""
        body, dialogue = ask["body"], self._job.kind == "dialogue"
        if dialogue:
            body = {**body, "messages": [*self._turns, *body["messages"]]}
        line: dict[str, Any] = {
            "id": f"{self._job.id}-{place}",
            "index": place,
            "custom_id": ask.get("custom_id"),
        }
        if "reference" in ask:
            line["reference"] = ask["reference"]
        try:
            answer = await self._answer(ask["url"], body)
        except RefusedError as refused:
            error, why = dict(refused.error), self._why(refused, place + 1)
            if dialogue or refused.status in (401, 403):
                # What comes after a turn without an answer would be another dialogue.
                raise why from refused
            if refused.status == _LATE:
                error["message"] = why.sentence()
            return {**line, "response": None, "error": error}, True
        if dialogue:
            self._said(ask["body"]["messages"], answer)
        return {**line, "response": {"status_code": 200, "body": answer}, "error": None}, False

    def _why(self, refused: RefusedError, item: int) -> RunError:
        why = refused.error.get("message", "–")
        if refused.status == _LATE:
            tries = self._options.deadline_tries
            return RunError("jobs.failed.deadline", item=item, tries=tries, why=why)
        return RunError("jobs.failed.refused", item=item, why=why)

    async def _answer(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask until there is an answer; what is busy is waited for, what is gone not for ever.

        What took too long is given twice as long, a few times.
        """
        loop, pause, late = asyncio.get_running_loop(), _FIRST_PAUSE, 0
        gone_since: float | None = None
        while True:
            try:
                return await self._ask(url, body, 2.0**late)
            except RefusedError as refused:
                late += refused.status == _LATE
                again = refused.status in (*_UNREACHED, *_BUSY, _LATE)
                if not again or late >= self._options.deadline_tries:
                    raise
                wait = max(pause, refused.retry_after or 0)
                if refused.status not in _UNREACHED:
                    gone_since = None
                else:
                    gone_since = gone_since or loop.time()
                    left = gone_since + self._options.patience_seconds - loop.time()
                    if left <= 0:
                        why = refused.error.get("message", "–")
                        raise RunError("jobs.failed.unreached", why=why) from refused
                    wait = min(wait, left)
                await asyncio.sleep(wait)
                pause = min(2 * pause, _LONGEST_PAUSE)

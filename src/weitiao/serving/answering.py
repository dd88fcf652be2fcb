"""The answers to one request as they come: all of them at once, within the deadline."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import cast

from starlette.requests import Request

from weitiao.serving.asking import Questions
from weitiao.serving.desk import Desk, Seen
from weitiao.serving.engine import Ask, EngineError, Logprob, Step
from weitiao.serving.faults import ClientGoneError, RequestError
from weitiao.serving.hooks import Cache
from weitiao.serving.text import Reader, Said

SEEN = "weitiao.seen"
"""Where in the request's scope its :class:`Seen` is."""


def seen_of(request: Request) -> Seen:
    """Return what is known of a request."""
    return cast("Seen", request.scope[SEEN])


@dataclass(frozen=True, slots=True)
class Part:
    """What comes next in the answer of number ``index``."""

    index: int
    said: Said
    finish: str | None
    tokens: int
    """Made for this answer so far."""


@dataclass(slots=True)
class Answer:
    """One answer, as far as it came."""

    text: str = ""
    reasoning: str = ""
    logprobs: list[Logprob] = field(default_factory=list)
    finish: str | None = None
    tokens: int = 0

    def add(self, part: Part) -> None:
        """Take in what came."""
        self.text += part.said.text
        self.reasoning += part.said.reasoning
        self.logprobs += part.said.logprobs
        self.finish, self.tokens = part.finish, part.tokens


async def parts(desk: Desk, request: Request, questions: Questions) -> AsyncGenerator[Part, None]:
    """Yield the parts of all answers as they come; closing it takes the asks back.

    Raises:
        RequestError: the queue is full, the deadline has passed, or the engine broke.
        ClientGoneError: nobody listens any more.
    """
    desk.check_ready()
    seen = seen_of(request)
    desk.gate.enter(seen.asker, len(questions.asks))
    seen.model, seen.prompt_tokens = questions.served.name, questions.prompt_tokens
    desk.metrics.prompt_tokens.labels(seen.model).inc(questions.prompt_tokens)
    came: asyncio.Queue[Part | Exception] = asyncio.Queue()
    # One timer a request: asyncio.timeout around each part would cost as much as the part.
    seconds = desk.options.deadline_seconds
    late = RequestError("serve.error.deadline", seconds=f"{seconds:g}")
    timer = asyncio.get_running_loop().call_at(seen.arrived + seconds, came.put_nowait, late)
    tasks = [asyncio.create_task(_watch(request, came))]
    choices = len(questions.asks) // len(questions.prompts)
    for index, ask in enumerate(questions.asks):
        reader = Reader(questions.served.decode, questions.stops, questions.thinking)
        kept = _kept(desk.service.cache, ask, index % choices)
        steps = _steps(desk, seen, ask, kept)
        task = asyncio.create_task(_answer(steps, seen, index, reader, came))
        # Not in the task itself: one that is cancelled before it began would never get there.
        task.add_done_callback(lambda _: _leave(desk, seen))
        tasks.append(task)
    try:
        left = len(questions.asks)
        while left:
            part = await _next(desk, came)
            left -= part.finish is not None
            yield part
    finally:
        timer.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _next(desk: Desk, came: "asyncio.Queue[Part | Exception]") -> Part:
    part = await came.get()
    if isinstance(part, EngineError):
        raise desk.broke(part) from part
    if isinstance(part, Exception):
        raise part
    return part


async def _answer(
    steps: AsyncGenerator[Step, None],
    seen: Seen,
    index: int,
    reader: Reader,
    came: "asyncio.Queue[Part | Exception]",
) -> None:
    try:
        async with aclosing(steps):
            async for step in steps:
                said = reader.read(step)
                seen.output_tokens += len(step.ids)
                if said != Said() or reader.finish:
                    came.put_nowait(Part(index, said, reader.finish, reader.tokens))
                if reader.finish:
                    return
        raise EngineError("an answer came to no end")
    except Exception as error:
        came.put_nowait(error)


def _kept(cache: Cache | None, ask: Ask, choice: int) -> Ask | None:
    """Return as what an ask is remembered; None if it is not. ``choice``: which of n answers."""
    if cache is None:
        return None
    if ask.sampling.temperature == 0 or ask.sampling.seed is not None:
        return ask
    # As if by a seed, so that n answers stay different ones; those of requests are never negative.
    seeded = replace(ask.sampling, seed=-1 - choice)
    return replace(ask, sampling=seeded) if cache.sampled else None


async def _steps(desk: Desk, seen: Seen, ask: Ask, kept: Ask | None) -> AsyncGenerator[Step, None]:
    """Yield an answer's steps, from the cache where it has them."""
    cache = desk.service.cache
    if cache is not None and kept is not None:
        found = await cache.get(kept)
        desk.metrics.cache.labels("miss" if found is None else "hit").inc()
        if found is not None:
            for step in found:
                yield step
            return
    taken: list[Step] = []
    async with aclosing(_measured(desk, seen, ask)) as steps:
        async for step in steps:
            taken.append(step)
            if step.finish and cache is not None and kept is not None:
                await cache.put(kept, tuple(taken))
            yield step


async def _measured(desk: Desk, seen: Seen, ask: Ask) -> AsyncGenerator[Step, None]:
    """Yield the engine's steps, and count and time them."""
    loop, metrics, engine = asyncio.get_running_loop(), desk.metrics, desk.service.engine
    first, tokens = 0.0, 0
    stream = cast("AsyncGenerator[Step, None]", engine.stream(ask))
    async with aclosing(stream):
        async for step in stream:
            now = loop.time()
            desk.works()
            if not tokens:
                first = now
                seen.first_token = seen.first_token or now - seen.arrived
                metrics.first_token.labels(ask.model).observe(now - seen.arrived)
            tokens += len(step.ids)
            metrics.output_tokens.labels(ask.model).inc(len(step.ids))
            metrics.batch.observe(engine.load().running)
            if step.finish and tokens > 1:
                metrics.token_seconds.labels(ask.model).observe((now - first) / (tokens - 1))
            yield step


def _leave(desk: Desk, seen: Seen) -> None:
    desk.gate.leave(seen.asker, asyncio.get_running_loop().time() - seen.arrived)


async def _watch(request: Request, came: "asyncio.Queue[Part | Exception]") -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    came.put_nowait(ClientGoneError())


def unix_time() -> int:
    """Return the seconds since 1970."""
    return int(time.time())

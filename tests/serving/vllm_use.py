"""vLLM as an engine, used by a test."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psutil

from weitiao.serving.engine import Ask, Sampling, Step
from weitiao.serving.vllm import VllmEngine

VERSION = "0.30.0"
"""What the stand-in says that it is."""


def run(engine: VllmEngine, use: Callable[[VllmEngine], Awaitable[None]]) -> None:
    """Start the engine, use it and end it, within a time that no test needs."""

    async def whole() -> None:
        await engine.start()
        await use(engine)

    async def bounded() -> None:
        try:
            await asyncio.wait_for(whole(), 300)
        finally:
            await engine.close()

    asyncio.run(bounded())


def ask(*ids: int, model: str = "tuned", stop: tuple[int, ...] = (9,), **sampling: Any) -> Ask:
    return Ask(model, ids, Sampling(**{"max_new_tokens": 4, **sampling}), stop)


async def all_of(engine: VllmEngine, question: Ask) -> list[Step]:
    return [step async for step in engine.stream(question)]


def ids_of(steps: list[Step]) -> list[int]:
    return [token for step in steps for token in step.ids]


def gone(*pids: int) -> bool:
    alive = (psutil.Process(pid) for pid in pids if psutil.pid_exists(pid))
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)

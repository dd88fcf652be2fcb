"""Waiting for what comes when it comes, however slow the machine is."""

import asyncio
import time
from collections.abc import Callable


async def until(true: Callable[[], object], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.02)

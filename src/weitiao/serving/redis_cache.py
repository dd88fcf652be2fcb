"""Answers remembered in Redis, which servers on several computers may share."""

import asyncio
import time
from collections.abc import Awaitable
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from weitiao.errors import RunError
from weitiao.serving.desk import LOG

_SECONDS = 0.5
"""The longest that a question waits for Redis."""

_PAUSE = 15.0
"""Seconds for which a Redis that did not answer is left alone."""


class RedisAnswers:
    """Where Redis is down or slow, nothing is remembered: it is tried again after a while.

    Keys are ``weitiao:answer:WEIGHTS:KEY``, so that a changed model finds nothing; they expire
    by age, and by the server's own ``maxmemory``.
    """

    def __init__(self, url: str, days: float) -> None:
        """Remember ``url``; the connection is made by the first question.

        Raises:
            RunError: the package ``redis`` is missing, or the address cannot be read.
        """
        if find_spec("redis") is None:
            raise RunError("error.redis_missing")
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._seconds = max(1, round(days * 86400))
        # Without the password.
        self._where = urlsplit(url).netloc.rpartition("@")[2]
        try:
            self._redis: Any = Redis.from_url(
                url,
                socket_timeout=_SECONDS,
                socket_connect_timeout=_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise RunError("error.redis_url", where=self._where) from error
        self._away_until, self._told = 0.0, False

    async def get(self, model: str, key: bytes) -> bytes | None:
        """Return what was put there."""
        found = await self._try(lambda: self._redis.get(_name(model, key)))
        return found if isinstance(found, bytes) else None

    async def put(self, model: str, key: bytes, steps: bytes) -> None:
        """Remember it."""
        await self._try(lambda: self._redis.set(_name(model, key), steps, ex=self._seconds))

    def close(self) -> None:
        """Do nothing: what was put is there, and connections end with their process."""

    async def _try(self, work: Any) -> object:
        if time.monotonic() < self._away_until:
            return None
        try:
            asked: Awaitable[object] = work()
            found = await asyncio.wait_for(asked, 2 * _SECONDS)
        except Exception as error:
            self._away_until = time.monotonic() + _PAUSE
            if not self._told:
                self._told = True
                why = str(error) or type(error).__name__
                LOG.warning("redis away", extra={"fields": {"redis": self._where, "why": why}})
            return None
        if self._told:
            self._told = False
            LOG.warning("redis back", extra={"fields": {"redis": self._where}})
        return found


def _name(model: str, key: bytes) -> str:
    return f"weitiao:answer:{model}:{key.hex()}"

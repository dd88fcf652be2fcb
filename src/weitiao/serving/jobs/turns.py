"""Whose ask of a job is next: the owners take turns, however many asks and jobs each has."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Lets ``most`` asks in at the same time; used within one event loop."""

    def __init__(self, most: int) -> None:
        self._free = most
        # The owners who wait, whose turn is next first; of each, who has waited longest first.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait for the owner's turn, and have it within."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        self._let_in()
        try:
            await turn
            yield
        finally:
            # Who is cancelled just as the turn comes has it all the same.
            self._free += turn.done() and not turn.cancelled()
            self._let_in()

    def _let_in(self) -> None:
        while self._free and self._waiting:
            owner = next(iter(self._waiting))
            line = self._waiting.pop(owner)
            turn = line.popleft()
            if line:
                self._waiting[owner] = line
            if not turn.done():
                self._free -= 1
                turn.set_result(None)

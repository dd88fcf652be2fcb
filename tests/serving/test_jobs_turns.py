"""Turns: owners one after another, and nobody's turn is lost."""

import asyncio

from weitiao.serving.jobs.turns import Turns


async def had(turns: Turns, owner: str, order: list[str]) -> None:
    async with turns.turn(owner):
        order.append(owner)
        await asyncio.sleep(0)


def test_owners_take_turns_however_many_asks_they_have() -> None:
    async def order() -> list[str]:
        turns, found = Turns(1), list[str]()
        async with turns.turn("first"):
            asks = [asyncio.create_task(had(turns, owner, found)) for owner in "aaaabbc"]
            await asyncio.sleep(0)
        await asyncio.gather(*asks)
        return found

    assert "".join(asyncio.run(order())) == "abcabaa"


def test_no_more_than_so_many_at_once() -> None:
    async def most() -> int:
        turns, inside, found = Turns(3), 0, 0

        async def ask(owner: str) -> None:
            nonlocal inside, found
            async with turns.turn(owner):
                inside += 1
                found = max(found, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(ask(owner) for owner in "abcdabcd"))
        return found

    assert asyncio.run(most()) == 3


def test_the_turn_of_who_is_cancelled_goes_to_the_next() -> None:
    async def order() -> list[str]:
        turns, found = Turns(1), list[str]()
        async with turns.turn("first"):
            asks = [asyncio.create_task(had(turns, owner, found)) for owner in "abcd"]
            await asyncio.sleep(0)
            asks[1].cancel()  # while it waits
            await asyncio.sleep(0)
        asks[0].cancel()  # when its turn has come, before it could know
        await asyncio.gather(*asks, return_exceptions=True)
        await had(turns, "e", found)
        return found

    assert asyncio.run(order()) == ["c", "d", "e"]

"""Turns: owners one after another, with asks and with whole jobs, and nobody's turn is lost."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from weitiao.serving.jobs.store import Job, Store
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


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "jobs.sqlite")


def add(store: Store, owners: str) -> None:
    for owner in owners:
        store.add(owner, "batch", {}, [{}])


def one_after_another(store: Store, after: Callable[[Job], None] = lambda job: None) -> str:
    """Whose jobs a runner does that does one at a time."""
    order = ""
    while (job := store.claim("runner")) is not None:
        order += job.owner
        store.end(job)
        after(job)
    return order


def test_owners_take_turns_however_many_jobs_they_have(store: Store) -> None:
    add(store, "aaaabbc")
    assert one_after_another(store) == "abcabaa"


def test_who_comes_later_is_next_and_who_forgets_what_is_done_gains_nothing(store: Store) -> None:
    add(store, "aaaa")

    def after(job: Job) -> None:
        store.delete(job.id)
        if job.owner == "a" and store.unfinished("a") == 2:
            add(store, "bbb")

    assert one_after_another(store, after) == "aababab"


def test_the_oldest_of_an_owner_goes_first_one_at_a_time(store: Store) -> None:
    add(store, "aab")
    jobs = {job.created: job.id for job in [*store.newest("a", 9), *store.newest("b", 9)]}
    first, second, other = (jobs[created] for created in sorted(jobs))

    def claimed(runner: str) -> str | None:
        job = store.claim(runner)
        return job and job.id

    assert [claimed("one") for _ in range(3)] == [first, other, None]
    # Another server has work for its own model.
    assert [claimed("two") for _ in range(2)] == [second, None]


def test_a_table_of_the_version_before_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with closing(Store(path)) as store:
        add(store, "aa")
        assert store.claim("runner")
    with closing(sqlite3.connect(path)) as base:
        for change in (
            "ALTER TABLE job DROP COLUMN runner",
            "DROP TABLE turn",
            "PRAGMA user_version = 1",
        ):
            base.execute(change)
    with closing(Store(path)) as store:
        assert one_after_another(store) == "a"

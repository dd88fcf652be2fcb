"""The table: one worker at a time, results once, and what becomes of dead workers' jobs."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from weitiao.errors import RunError
from weitiao.serving.jobs.store import Job, Store

WHY = RunError("jobs.failed.worker_died", attempts=2)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "jobs.sqlite")


def queued(store: Store, items: int = 3) -> Job:
    return store.add("", "batch", {"model": "m"}, [{"ask": i} for i in range(items)])


def claimed(store: Store) -> Job:
    job = store.claim("runner")
    assert job is not None
    return job


def dies(store: Store) -> None:
    """Let the worker of the running job be silent for too long."""
    time.sleep(0.02)
    store.requeue(0.01, 2, WHY)


def state(store: Store, job: Job) -> str:
    found = store.get(job.id)
    assert found is not None
    return found.state


def test_a_job_is_claimed_once_by_many(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "jobs.sqlite") for _ in range(8)]
    jobs = {stores[0].add(str(i % 10), "batch", {}, [{}]).id for i in range(20)}
    got: list[str] = []

    def claim(store: Store, runner: str) -> None:
        while (job := store.claim(runner)) is not None:
            got.append(job.id)

    threads = [
        threading.Thread(target=claim, args=(store, f"runner {i % 2}"))
        for i, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(jobs)


def test_a_worker_that_was_taken_for_dead_writes_nothing_more(store: Store) -> None:
    job = queued(store)
    first = claimed(store)
    assert store.put(first, 0, "of the first")
    dies(store)
    second = claimed(store)
    assert not store.put(first, 1, "too late")
    assert not store.beat(first)
    store.end(first)
    store.release(first)
    assert state(store, job) == "running"
    assert [place for place, _ in store.asks(second, left=True)] == [1, 2]
    assert store.put(second, 0, "again")
    assert store.put(second, 1, "of the second")
    assert list(store.results(job.id)) == ["of the first", "of the second"]


def test_a_job_that_kills_its_workers_fails_with_the_reason(store: Store) -> None:
    job = queued(store)
    for expected in ("queued", "failed"):
        claimed(store)
        dies(store)
        assert state(store, job) == expected
    found = store.get(job.id)
    assert found is not None
    assert found.reason == ("jobs.failed.worker_died", {"attempts": 2})
    assert found.attempts == 2
    assert store.retry(job.id)
    claimed(store)
    dies(store)
    assert state(store, job) == "queued"


def test_a_long_job_outlives_many_restarts_as_long_as_it_gets_on(store: Store) -> None:
    job = queued(store, 5)
    for place in range(4):
        store.put(claimed(store), place, "line")
        dies(store)
        assert state(store, job) == "queued"
    last = claimed(store)
    store.put(last, 4, "line")
    store.end(last)
    assert state(store, job) == "done"
    assert len(list(store.results(job.id))) == 5


def test_a_job_given_back_counts_as_no_failure(store: Store) -> None:
    job = queued(store)
    for _ in range(5):
        store.release(claimed(store))
    assert state(store, job) == "queued"


def test_who_lives_keeps_its_job(store: Store) -> None:
    job = queued(store)
    held = claimed(store)
    for _ in range(3):
        with sqlite3.connect(store.path) as base:
            base.execute("UPDATE job SET heartbeat = heartbeat - 1000")
        base.close()
        assert store.beat(held)
        store.requeue(900, 2, WHY)
        assert state(store, job) == "running"


def test_a_cancelled_job_of_a_dead_worker_is_not_queued_again(store: Store) -> None:
    job = queued(store)
    claimed(store)
    assert store.cancel(job.id)
    dies(store)
    assert state(store, job) == "cancelled"


def test_results_survive_the_process_and_come_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    job = queued(store, 210)
    held = claimed(store)
    for place in reversed(range(210)):
        store.put(held, place, str(place))
    store.close()
    assert list(Store(tmp_path / "jobs.sqlite").results(job.id)) == [str(i) for i in range(210)]


def test_workers_are_told_of_a_job_again_only_when_it_went_astray(store: Store) -> None:
    job = queued(store)
    assert store.announce("runner", 60) == [job.id]
    assert store.announce("runner", 60) == []
    store.unannounce([job.id])
    assert store.announce("runner", 60) == [job.id]
    time.sleep(0.02)
    assert store.announce("runner", 0.01) == [job.id]
    claimed(store)
    dies(store)
    assert store.announce("runner", 60) == [job.id]


def test_workers_are_told_only_of_what_they_could_begin(store: Store) -> None:
    first, second, other = (
        store.add(owner, "batch", {}, [{}]).id for owner in ("one", "one", "other")
    )
    assert sorted(store.announce("runner", 60)) == sorted([first, other])
    held = claimed(store)
    assert store.announce("runner", 60) == []
    store.end(held)
    assert store.announce("runner", 60) == [second]


def test_what_is_old_is_deleted_with_its_results(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    job, waits = queued(store), queued(store)
    held = claimed(store)
    store.put(held, 0, "line")
    store.end(held)
    store.purge(1)
    assert state(store, job) == "done"
    store.purge(0)
    assert store.get(job.id) is None
    assert state(store, waits) == "queued"
    with sqlite3.connect(tmp_path / "jobs.sqlite") as base:
        assert base.execute("SELECT count(*) FROM result").fetchone() == (0,)
        assert base.execute("SELECT count(*) FROM item").fetchone() == (3,)


def test_half_of_a_character_does_no_harm(store: Store) -> None:
    store.add("", "batch", {}, [{"ask": "\ud83d"}])
    assert store.asks(claimed(store)) == [(0, {"ask": "\ud83d"})]


@pytest.mark.parametrize("content", [b"no database at all, but long enough" * 9, None])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "jobs.sqlite"
    if content is not None:
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as base:
            base.execute("CREATE TABLE other (x)")
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"jobs\.sqlite"):
        Store(path)
    assert path.read_bytes()[100:] == before[100:]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file"):
        Store(tmp_path / "file" / "jobs.sqlite")


def test_only_its_owner_can_read_the_file_and_one_of_before(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    for _ in range(2):
        store = Store(path)
        queued(store)
        files = sorted(tmp_path.iterdir())
        assert [file.name for file in files] == [path.name, f"{path.name}-shm", f"{path.name}-wal"]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
        store.close()
        path.chmod(0o644)


@pytest.mark.parametrize("purged", [False, True])
def test_the_texts_of_a_deleted_job_are_on_the_disk_no_more(tmp_path: Path, purged: bool) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    job = store.add("", "batch", {}, [{"ask": f"confidential {i}" * 50} for i in range(40)])
    held = claimed(store)
    for place in range(40):
        store.put(held, place, f"confidential {place}" * 50)
    store.end(held)

    def found() -> bool:
        return any(b"confidential" in file.read_bytes() for file in tmp_path.iterdir())

    with sqlite3.connect(tmp_path / "jobs.sqlite") as base:
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    base.close()
    assert found()
    store.purge(0) if purged else store.delete(job.id)
    assert store.get(job.id) is None
    assert not found()


def test_jobs_are_counted_for_each_owner(store: Store) -> None:
    for owner in ("one", "one", "other"):
        store.add(owner, "batch", {}, [{}])
    claimed(store)
    assert [store.unfinished(owner) for owner in ("one", "other", "third")] == [2, 1, 0]

"""Celery's workers, woken by a real Redis, begin the jobs of several keys in turn."""

from pathlib import Path

from serving.jobs_use import listening, made, until
from serving.redis_use import redis_at, worker
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.store import Store


def test_no_key_has_the_others_wait_until_all_its_jobs_have_begun(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    for owner in "aaaabb":
        store.add(owner, "batch", {}, [{"url": "/generate", "body": {"prompt": "一"}}])
    with redis_at(tmp_path) as broker:
        app = made(tmp_path, jobs=JobOptions(stale_seconds=20, broker=broker))
        with listening(app) as address, worker(broker, tmp_path, address):
            until(lambda: not store.unfinished("a") + store.unfinished("b"))
    jobs = [job for owner in "ab" for job in store.newest(owner, 9)]
    assert {(job.state, job.attempts) for job in jobs} == {("done", 1)}
    begun = sorted((job.started or 0, job.owner) for job in jobs)
    assert "".join(owner for _, owner in begun) == "ababaa"

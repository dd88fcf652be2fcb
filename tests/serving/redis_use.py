"""A Redis and Celery's workers, each a program of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.jobs_use import until


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def process(*command: str, **env: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A program in a group of its own, killed with all of its children at the end."""
    started = subprocess.Popen(command, env={**os.environ, **env}, start_new_session=True)
    try:
        yield started
    finally:
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@contextmanager
def redis_at(tmp_path: Path) -> Iterator[str]:
    redis = shutil.which("redis-server")
    if redis is None:
        pytest.skip("redis-server is not installed")
    pytest.importorskip("celery")
    client = pytest.importorskip("redis")
    port = free_port()
    here = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", "")
    with process(redis, *here, "--loglevel", "warning"):
        with client.Redis(port=port) as connected:
            refused = client.ConnectionError

            def pong() -> bool:
                try:
                    return bool(connected.ping())
                except refused:
                    return False

            until(pong)
        yield f"redis://127.0.0.1:{port}/0"


def worker(broker: str, folder: Path, address: str) -> Any:
    module = "weitiao.serving.jobs.celery_app"
    alone = ("--concurrency", "1", "--without-gossip", "--without-mingle", "-l", "ERROR")
    return process(
        *(sys.executable, "-m", "celery", "-A", module, "worker", *alone),
        OMP_NUM_THREADS="1",
        WEITIAO_JOBS=broker,
        WEITIAO_JOBS_FILE=str(folder / "jobs.sqlite"),
        WEITIAO_JOBS_SERVER=address,
    )

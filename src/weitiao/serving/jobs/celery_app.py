"""What Celery's workers run, beside a server that has ``--jobs redis://…``, on its computer:

``python -m celery -A weitiao.serving.jobs.celery_app worker``

They load no model: they ask the server, which knows them by the jobs they hold. The environment
tells them where everything is:

``WEITIAO_JOBS``: the broker's address, the same as the server's (by default
``redis://127.0.0.1:6379/0``). ``WEITIAO_JOBS_FILE``: the server's table of jobs.
``WEITIAO_JOBS_SERVER``: the server's address (by default ``http://127.0.0.1:8000``).
"""

import asyncio
import os
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from celery.exceptions import OperationalError

from weitiao.errors import RunError
from weitiao.serving.jobs.asking import over_http
from weitiao.serving.jobs.celery_broker import RUNNER, TASK, celery, tell
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.store import Store
from weitiao.serving.jobs.worker import work

app = celery(os.environ.get("WEITIAO_JOBS") or "redis://127.0.0.1:6379/0")


@app.task(name=TASK)  # type: ignore[untyped-decorator]
def do_next(how: dict[str, Any]) -> None:
    """Do the job whose turn it is, if there is one.

    Raises:
        RunError: the table of jobs is not named, or cannot be written.
    """
    if asyncio.run(_do_next(JobOptions.model_validate(how))):
        # Another job of the same owner may be begun now. Where this fails, the server tells of it.
        with suppress(OperationalError):
            tell(app, how)


async def _do_next(options: JobOptions) -> bool:
    file = os.environ.get("WEITIAO_JOBS_FILE", "")
    if not Path(file).is_file():
        raise RunError("jobs.no_file", path=file or "–")
    server = os.environ.get("WEITIAO_JOBS_SERVER") or "http://127.0.0.1:8000"
    with closing(Store(Path(file))) as store:
        job = store.claim(RUNNER)
        if job is not None:
            async with over_http(server, job) as ask:
                await work(store, job, ask, options)
        return job is not None

"""Waking Celery's workers. A message only says that there is work; which, the table decides."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from weitiao.errors import RunError
from weitiao.serving.jobs.options import JobOptions

if TYPE_CHECKING:
    from celery import Celery

RUNNER = "celery"
"""All workers together, as the table of jobs knows them."""

TASK = "weitiao.work"
AGAIN_SECONDS = 600
"""A message that nobody took is forgotten after so long, and sent again."""

_SETTINGS: dict[str, Any] = {
    "task_default_queue": "weitiao",
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    # A task that was begun and whose worker died is not lost; that it comes again late does no
    # harm, because the table has queued and told of it again long before.
    "task_acks_late": True,
    "worker_prefetch_multiplier": 1,
    "worker_hijack_root_logger": False,
    "broker_connection_retry_on_startup": True,
    "broker_connection_timeout": 3,
}


def require_celery() -> None:
    """Raise where Celery or its Redis client is missing; they are not loaded.

    Raises:
        RunError: they are not installed.
    """
    missing = [name for name in ("celery", "redis") if find_spec(name) is None]
    if missing:
        raise RunError("jobs.celery_missing", packages=", ".join(missing))


def celery(broker: str) -> "Celery":
    """Return the application that the server and its workers both have.

    Raises:
        RunError: Celery is not installed.
    """
    require_celery()
    from celery import Celery

    app = Celery("weitiao", broker=broker)
    app.conf.update(_SETTINGS)
    return app


def announcer(options: JobOptions) -> Callable[[], None]:
    """Return what tells one of Celery's workers that there is work.

    It is told how to do it, too, so that server and workers never differ in that.

    Raises:
        RunError: Celery is not installed.
    """
    assert options.broker is not None
    app = celery(options.broker)
    app.conf.broker_transport_options = {
        "socket_connect_timeout": 3,
        "socket_timeout": 3,
        "max_retries": 0,
    }
    how = options.model_dump(exclude={"broker"})
    return lambda: tell(app, how)


def tell(app: "Celery", how: Mapping[str, Any]) -> None:
    """Tell a worker that there is work, to be done with these options."""
    app.send_task(TASK, [how], expires=AGAIN_SECONDS, retry=False)

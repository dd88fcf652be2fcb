"""How long work is done, each option declared once."""

from pydantic import Field

from weitiao.records.options import Options


class JobOptions(Options):
    """Who does the jobs, how much at once, and how long they are kept."""

    broker: str | None = Field(default=None, pattern=r"^(rediss?|amqps?)://", repr=False)
    """The address through which Celery's workers are woken; without it the server does the jobs."""

    parallel: int = Field(default=2, ge=1, le=64)
    """Prompts of jobs that are asked at the same time; those of several keys take turns."""

    max_items: int = Field(default=10_000, ge=1)
    """The most prompts, turns or rows of one job."""

    max_job_bytes: int = Field(default=32_000_000, ge=1000)
    """The largest request for a job in bytes; for other requests, ``max_body_bytes`` holds."""

    max_jobs: int = Field(default=100, ge=1)
    """Jobs of one key that may wait or run; what comes beyond is asked to come back later."""

    stale_seconds: float = Field(default=30, gt=0)
    """A worker not heard of for so long is taken for dead, and its job is queued again."""

    max_attempts: int = Field(default=3, ge=1)
    """How many workers in a row may die of a job, without one new answer, before it has failed."""

    patience_seconds: float = Field(default=300, gt=0)
    """How long a job waits for a server or an engine that does not answer, before it has failed."""

    deadline_tries: int = Field(default=3, ge=1)
    """How often a prompt is asked that meets the server's deadline; each time it gets twice as
    long."""

    keep_days: float = Field(default=30, gt=0)
    """Jobs that ended so many days ago are deleted, with their results."""

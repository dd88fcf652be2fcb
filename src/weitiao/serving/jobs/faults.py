"""What is refused about jobs, in the shape of every other refusal."""

from weitiao.errors import WeitiaoError
from weitiao.serving.faults import RequestError

_INVALID = "invalid_request_error"
_KINDS: dict[str, tuple[int, str, str | None]] = {
    "jobs.error.missing": (400, _INVALID, None),
    "jobs.error.shape": (400, _INVALID, None),
    "jobs.error.items": (400, _INVALID, "too_many_items"),
    "jobs.error.line": (400, _INVALID, None),
    "jobs.error.reference": (400, _INVALID, None),
    "jobs.error.suite": (400, _INVALID, None),
    "jobs.error.unknown": (404, _INVALID, "job_not_found"),
    "jobs.error.state": (409, _INVALID, "wrong_state"),
    "jobs.error.full": (429, "rate_limit_error", "queue_full"),
}


class JobRequestError(RequestError):
    """A request about jobs that is not answered; see :class:`RequestError`."""

    def __init__(
        self,
        key: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        **values: object,
    ) -> None:
        WeitiaoError.__init__(self, key, **values)
        self.param, self.retry_after = param, retry_after
        self.status, self.type, self.code = _KINDS[key]

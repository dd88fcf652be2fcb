"""What is refused about jobs, in the shape of every other refusal."""

from weitiao.serving.faults import Kinds, RequestError

_INVALID = "invalid_request_error"
_KINDS: Kinds = {
    "jobs.error.missing": (400, _INVALID, None),
    "jobs.error.shape": (400, _INVALID, None),
    "jobs.error.items": (400, _INVALID, "too_many_items"),
    "jobs.error.line": (400, _INVALID, None),
    "jobs.error.reference": (400, _INVALID, None),
    "jobs.error.suite": (400, _INVALID, None),
    "jobs.error.not_held": (403, "permission_error", "job_not_held"),
    "jobs.error.unknown": (404, _INVALID, "job_not_found"),
    "jobs.error.state": (409, _INVALID, "wrong_state"),
    "jobs.error.full": (429, "rate_limit_error", "queue_full"),
}


class JobRequestError(RequestError):
    """A request about jobs that is not answered; see :class:`RequestError`."""

    kinds = _KINDS

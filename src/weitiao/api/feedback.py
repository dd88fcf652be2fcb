"""What people said of a server's answers: look at it, train on it, delete it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from weitiao.runs import open_run

if TYPE_CHECKING:
    from weitiao.serving.feedback_rows import Entry, Exported, Form, Removed

STORE = Path("serving", "requests.sqlite")
"""Where in a run's folder its server writes requests and feedback down."""


def store_of(target: str) -> Path:
    """Return the file of requests: ``target`` itself, or that of the run.

    Raises:
        RunError: there is no such file or run.
    """
    file = Path(target).expanduser()
    return file if file.is_file() else open_run(target).path / STORE


def listing(target: str) -> list[Entry]:
    """Return what counts, the last feedback on each answer, oldest first.

    Raises:
        RunError: no requests are kept there, or they cannot be read.
    """
    from weitiao.serving.feedback_rows import feedbacks

    return feedbacks(store_of(target))


def export(target: str, out: str, form: Form = "answers") -> Exported:
    """Write the rows to train on that feedback gave.

    Raises:
        DataError: ``out`` is there already.
        RunError: no requests are kept there, or a file cannot be read or written.
    """
    from weitiao.serving.feedback_rows import export_feedback

    return export_feedback(store_of(target), Path(out).expanduser(), form)


def delete(target: str, ids: Sequence[str] | None = None, before: float | None = None) -> Removed:
    """Delete requests and the feedback on them: those of ``ids``, or older ones, or all.

    ``before``: seconds since 1970.

    Raises:
        RunError: no requests are kept there, or the file cannot be written.
    """
    from weitiao.serving.feedback_rows import delete_requests

    return delete_requests(store_of(target), ids, before)

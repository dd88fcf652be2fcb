"""What a way of growing is, and the part of a row that it rewords."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from weitiao.endpoint import Endpoint
from weitiao.records.record import Reason, Record

Candidate = Record | Reason
"""A row in new words, not yet judged, or why there is none."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to reword rows: its name in the lineage, and (row, n, seed) → up to n candidates.

    ``endpoint``: the service that is asked, where there is one; its threads do the work.
    """

    name: str
    candidates: Callable[[Record, int, int], list[Candidate]]
    endpoint: Endpoint | None = None


def question_at(record: Record) -> int | None:
    """Return the place, among the messages, of the question that the last answer answers."""
    prompt = record.prompt
    places = [i for i, message in enumerate(prompt) if message.role == "user"]
    return places[-1] if places and len(prompt) < len(record.messages) else None


def question(record: Record) -> str:
    """Return the question that the last answer answers; empty where there is none."""
    place = question_at(record)
    return "" if place is None else record.messages[place].content


def reworded(record: Record, contents: Mapping[int, str]) -> Record:
    """Return the row with new contents of the messages at these places."""
    return replace(
        record,
        messages=tuple(
            replace(m, content=contents[i]) if i in contents else m
            for i, m in enumerate(record.messages)
        ),
    )

"""One line an event: what the terminal, the web page and the report all read."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: ``kind`` such as ``train.step``, seconds since the epoch, values."""

    kind: str
    time: float
    data: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


class EventLog:
    """Appends events to a file, one JSON object a line, and tells each listener.

    A line is written whole and flushed at once, so a killed run leaves at most one
    broken last line, which :func:`read_events` passes over.
    """

    def __init__(self, path: Path | None = None, listeners: tuple[Listener, ...] = ()) -> None:
        self.path = path
        self.listeners = listeners

    def emit(self, kind: str, **data: Any) -> None:
        """Write one event and tell the listeners."""
        event = Event(kind, time.time(), data)
        if self.path is not None:
            line = json.dumps(
                {"kind": event.kind, "time": round(event.time, 3), **data}, ensure_ascii=False
            )
            with self.path.open("a", encoding="utf-8") as out:
                out.write(line + "\n")
        for listener in self.listeners:
            listener(event)


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of a file; lines that a killed run left broken are passed over."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                data = json.loads(line)
                yield Event(data.pop("kind"), data.pop("time"), data)
            except (ValueError, KeyError, AttributeError):
                continue

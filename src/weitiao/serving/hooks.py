"""What may be put beside the front: a memory of answers, and a log of requests."""

from dataclasses import dataclass
from typing import Any, Protocol

from weitiao.serving.engine import Ask, Step


class Cache(Protocol):
    """Remembers whole answers. It is asked only where the same ask always gets the same answer.

    Neither method raises: a memory that fails has forgotten.
    """

    sampled: bool
    """Whether it is asked about all others, too, so that they get the same answer from then on."""

    async def get(self, ask: Ask) -> tuple[Step, ...] | None:
        """Return the steps that answered ``ask`` before."""

    async def put(self, ask: Ask, steps: tuple[Step, ...]) -> None:
        """Remember an answer that the engine brought to its end."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request that was answered."""

    id: str
    """The answer's id, as its asker sees it: chatcmpl-…, cmpl-… or gen-…."""
    request_id: str
    time: float
    """Seconds since 1970."""
    seconds: float
    """From the request's arrival to the answer's end."""
    route: str
    model: str
    question: Any
    """The messages, with the model's own system prompt where it was added, or the prompt."""
    answers: tuple[str, ...]
    finishes: tuple[str | None, ...]
    prompt_tokens: int
    completion_tokens: int
    owner: str = ""
    """The digest of the key that asked; '' where it is not known."""
    system: str | None = None
    """The model's own system prompt, where it was asked with that one."""


class Recorder(Protocol):
    """Keeps what was asked and answered."""

    def record(self, answered: Answered) -> None:
        """Take it over; returns at once and never raises."""

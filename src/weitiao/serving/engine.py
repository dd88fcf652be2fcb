"""What every engine does: token ids in, token ids out, many requests at once.

Text, chat templates, stop strings, limits and deadlines are the same for all engines and live
in front of them; an engine knows tokens only.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request's tokens are chosen. Temperature 0 takes the likeliest (greedy)."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    """With one, the same request is answered the same way; None draws another each time."""
    logprobs: int | None = None
    """How many likeliest alternatives are told with each token (0: the token's own alone)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt to be gone on with. ``model`` is one of the engine's ``models``."""

    model: str
    ids: tuple[int, ...]
    sampling: Sampling
    stop_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Logprob:
    """The natural log of a token's probability, before sampling changed it."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place, likeliest first."""


@dataclass(frozen=True, slots=True)
class Step:
    """New tokens of one answer. The stop token is not among them."""

    ids: tuple[int, ...]
    finish: Literal["stop", "length"] | None = None
    """Set in the last step: the model ended its answer, or ``max_new_tokens`` are reached."""
    logprobs: tuple[Logprob, ...] = ()
    """One for each of ``ids`` where they were asked for."""


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine has to do now."""

    running: int
    waiting: int


class Engine(Protocol):
    """Answers requests; they join and leave its running batch between tokens."""

    name: str
    """transformers, openvino or vllm: what is said aloud and shown."""

    models: tuple[str, ...]
    """The names it answers by: the tuned model first, then its base and other adapters."""

    context: int
    """The most tokens of prompt and answer together."""

    top_logprobs: int
    """How many likeliest alternatives it can tell with a token."""

    async def start(self) -> None:
        """Load what is not loaded yet; returns when requests can be answered.

        Raises:
            ModelError: it cannot be loaded, or memory does not suffice.
        """

    def stream(self, ask: Ask) -> AsyncIterator[Step]:
        """Yield the answer as it comes. Closing the iterator takes the request out at once.

        Requests are taken in the order in which they came. The caller keeps the prompt within
        ``context``, and bounds how many wait.

        Raises:
            EngineError: the engine broke; other requests may have, too.
        """

    def load(self) -> Load:
        """Return how many requests run and wait."""

    async def close(self) -> None:
        """End what runs and give everything back."""


class EngineError(Exception):
    """The engine cannot go on with a request; not the request's fault."""

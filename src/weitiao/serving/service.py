"""What is served: models by name, the engine that runs them, and what stands beside it."""

from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Literal, cast

from weitiao.models.pieces import Decode
from weitiao.records.render import ChatFormat
from weitiao.serving.engine import Engine, Sampling
from weitiao.serving.hooks import Cache, Recorder
from weitiao.serving.options import ServeOptions

_DEFAULTS = Sampling(max_new_tokens=512)


Role = Literal["tuned", "base", "adapter", "model"]


@dataclass(frozen=True, slots=True)
class Served:
    """A model that answers by ``name``, which is one of the engine's."""

    name: str
    chat: ChatFormat
    decode: Decode
    """Token ids to text."""
    system: str | None = None
    """The system prompt of conversations that bring none."""
    defaults: Sampling = _DEFAULTS
    """What holds where a request does not say."""
    created: int = 0
    """Seconds since 1970."""
    owned_by: str = "weitiao"
    role: Role = "model"
    """What it is to the others: the tuned model, its base, a further adapter, or just a model."""
    description: str = ""
    """What it is, such as its base, or that it is the tuned one."""
    fingerprint: str = ""
    """Tells these weights from all others."""

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return len(cast("Sized", self.chat.tokenizer))


@dataclass(frozen=True, slots=True)
class Service:
    """Everything the application is made from. The first of ``served`` answers by default."""

    engine: Engine
    served: tuple[Served, ...]
    options: ServeOptions = field(default_factory=ServeOptions)
    cache: Cache | None = None
    recorder: Recorder | None = None

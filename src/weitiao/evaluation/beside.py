"""What the measures beside the scores share: the two models as they are asked, and their files."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from weitiao.errors import RunError
from weitiao.records.files import write_atomic
from weitiao.records.render import ChatFormat

if TYPE_CHECKING:
    from weitiao.models.generate import Generation
    from weitiao.models.pair import Voice

Measure = TypeVar("Measure")


@dataclass(frozen=True, slots=True)
class Both:
    """Base and tuned model. ``batch_size``: prompts answered at once; ``budget``: tokens a pass."""

    base: "Voice"
    tuned: "Voice"
    chat: ChatFormat
    batch_size: int
    budget: int

    def greedy(
        self,
        voice: "Voice",
        prompts: Sequence[Sequence[int]],
        new_tokens: int,
        on_batch: Callable[[int, int], None] | None = None,
        *,
        stops: bool = True,
    ) -> "list[Generation]":
        """Return the likeliest answers; without ``stops`` each has ``new_tokens`` tokens."""
        from weitiao.models.generate import Sampling, generate

        stop_ids = self.chat.stop_ids if stops else ()
        pad_id: int = self.chat.tokenizer.pad_token_id  # type: ignore[attr-defined]
        sampling, size = Sampling(new_tokens), self.batch_size
        with voice.speaking():
            return generate(voice.model, prompts, sampling, stop_ids, pad_id, size, on_batch)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``."""
        tokenizer: Any = self.chat.tokenizer
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def write_measure(path: Path, measure: Any) -> None:
    """Write a dataclass as JSON, whole or not at all."""
    write_atomic(path, orjson.dumps(asdict(measure), option=orjson.OPT_INDENT_2))


def reader(
    kind: type[Measure], otherwise: str = "error.results_unreadable"
) -> Callable[[Path], Measure]:
    """Return a function that reads what :func:`write_measure` wrote.

    It raises RunError, which says ``otherwise``, where the file is missing or not of this version.
    """

    def read(path: Path) -> Measure:
        try:
            return TypeAdapter(kind).validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise RunError(otherwise, path=path) from error

    return read

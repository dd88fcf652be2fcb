"""How a model was trained and measured to be asked, and on which base: a file in every export.

Weights, tokenizer and chat template do not tell it; without it the same weights answer otherwise.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from weitiao.errors import ModelError
from weitiao.evaluation.beside import reader
from weitiao.models.fingerprint import base_fingerprint
from weitiao.models.load import ModelSource, base_of_adapter, find_model
from weitiao.plan.recipe import Quantization

MANNER = "weitiao.json"


@dataclass(frozen=True, slots=True)
class Manner:
    """The content of :data:`MANNER`; where it says nothing, the likeliest answers are taken.

    ``system``: the prompt that all training rows share. ``quantization``: how the base was held
    under the adapter; ``base``: its fingerprint; both mean nothing for whole models.
    """

    system: str | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    quantization: Quantization = "none"
    base: str | None = None


read_manner = reader(Manner, "error.parity_unreadable")
"""Read an export's :data:`MANNER`."""


def require_base(source: ModelSource, adapter: Path, base: str | None) -> None:
    """Raise where an adapter was trained on another model, even one of the same shape.

    ``base``: what its run or its export says of its base. Where that says nothing, the base that
    PEFT has noted counts, if it is another one and still on this computer. What cannot be told
    is let pass.

    Raises:
        ModelError: it was trained on other weights than those of ``source``.
    """
    expected = base or _noted(source, adapter)
    if expected and base_fingerprint(source) not in (None, expected):
        raise ModelError("error.adapter_other_base", path=adapter, model=source.name)


def base_of(adapter: Path) -> ModelSource:
    """Return the base that an adapter names, or that lies beside it.

    Raises:
        ModelError: there is none where it says.
    """
    name = base_of_adapter(adapter)
    revision = json.loads((adapter / "adapter_config.json").read_bytes()).get("revision")
    beside = adapter / name  # a path from the root stays what it is
    return find_model(str(beside) if beside.is_dir() else name, revision)


def _noted(source: ModelSource, adapter: Path) -> str | None:
    try:
        noted = base_of(adapter)
    except ModelError:
        return None
    same = noted.location == source.location
    return None if same else base_fingerprint(noted, fetch=False)

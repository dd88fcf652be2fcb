"""How a model was trained and measured to be asked, and on which base: a file in every export.

Weights, tokenizer and chat template do not tell it; without it the same weights answer otherwise.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from huggingface_hub import try_to_load_from_cache

from weitiao.errors import ModelError
from weitiao.evaluation.beside import reader
from weitiao.models.load import ModelSource, base_of_adapter, find_model, weights_folder
from weitiao.plan.recipe import Quantization

MANNER = "weitiao.json"

_LOOKED_AT = 4096
"""Bytes from the middle of each tensor: of two trainings hardly one of them stays the same."""

_LONGEST_HEADER = 100_000_000
"""Bytes; the format's own bound."""


@dataclass(frozen=True, slots=True)
class Manner:
    """The content of :data:`MANNER`; where it says nothing, the likeliest answers are taken.

    ``system``: the prompt that all training rows share. ``quantization``: how the base was held
    under the adapter; ``base``: its :func:`base_fingerprint`; both mean nothing for whole models.
    """

    system: str | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    quantization: Quantization = "none"
    base: str | None = None


read_manner = reader(Manner, "error.parity_unreadable")
"""Read an export's :data:`MANNER`."""


def base_fingerprint(folder: Path) -> str | None:
    """Tell a model's weights from all others, wherever they lie and however they are parted.

    It goes by the names, types and shapes of all tensors and a part of each one's values, so it
    takes milliseconds. None where the folder holds no weights, or not all of them.
    """
    found: dict[str, tuple[Any, Any, bytes]] = {}
    try:
        for file in folder.glob("*.safetensors"):
            found |= _parts(file)
        index = folder / "model.safetensors.index.json"
        named = json.loads(index.read_bytes())["weight_map"] if index.is_file() else {}
        if named.keys() - found.keys():
            return None
    except (OSError, ValueError, KeyError, TypeError):
        # Damaged: whoever loads it is told so.
        return None
    told = xxhash.xxh3_128()
    for name in sorted(found):
        dtype, shape, part = found[name]
        told.update(f"{name} {dtype} {shape}".encode())
        told.update(part)
    return str(told.hexdigest()) if found else None


def _parts(file: Path) -> dict[str, tuple[Any, Any, bytes]]:
    """Return name → type, shape and a part of the values; safetensors begin with their places."""
    found = {}
    with file.open("rb") as weights:
        length = int.from_bytes(weights.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(length)
        places = json.loads(weights.read(length))
        places.pop("__metadata__", None)
        for name, told in places.items():
            begin, end = told["data_offsets"]
            size = min(_LOOKED_AT, end - begin)
            weights.seek(8 + length + begin + (end - begin - size) // 2)
            found[name] = (told["dtype"], told["shape"], weights.read(size))
    return found


def require_base(source: ModelSource, adapter: Path) -> None:
    """Raise where an adapter was trained on another model, even one of the same shape.

    What an export says of its base counts; else the base that PEFT has noted, where that is
    another one and still on this computer. What cannot be told is let pass.

    Raises:
        ModelError: it was trained on other weights than those of ``source``.
    """
    if (adapter / MANNER).is_file():
        expected = read_manner(adapter / MANNER).base
    else:
        expected = _noted(source, adapter)
    if expected and base_fingerprint(weights_folder(source)) not in (None, expected):
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
    if noted.location == source.location:
        return None
    if Path(noted.location).is_dir():
        return base_fingerprint(Path(noted.location))
    kept = try_to_load_from_cache(noted.location, "config.json", revision=noted.revision)
    return base_fingerprint(Path(kept).parent) if isinstance(kept, str) else None

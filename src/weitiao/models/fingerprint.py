"""Tell one base's weights from another's of the same shape, without reading them all."""

import json
from pathlib import Path
from typing import Any

import xxhash
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file
from transformers.utils.hub import cached_files

from weitiao.models.load import ModelSource

_LOOKED_AT = 4096
"""Bytes from the middle of each tensor: of two trainings hardly one of them stays the same."""

_LONGEST_HEADER = 100_000_000
"""Bytes; the format's own bound."""


def base_fingerprint(source: ModelSource, *, fetch: bool = True) -> str | None:
    """Tell a model's weights from all others, wherever they lie and however they are parted.

    It goes by the names, types and shapes of all tensors and a part of each one's values: a few
    hundred small reads, milliseconds from an SSD, however large the model. With ``fetch`` weights
    on the hub are fetched, as loading them would. None where they are not there, or not whole:
    whoever loads them is told so.
    """
    found: dict[str, tuple[Any, Any, bytes]] = {}
    try:
        for file in _files(source, fetch=fetch):
            found |= _parts(Path(file))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    told = xxhash.xxh3_128()
    for name in sorted(found):
        dtype, shape, part = found[name]
        told.update(f"{name} {dtype} {shape}".encode())
        told.update(part)
    return str(told.hexdigest()) if found else None


def _files(source: ModelSource, *, fetch: bool) -> list[str]:
    """Return the files that transformers loads; what else lies beside them is no part of it."""
    hub: dict[str, Any] = {"revision": source.revision, "local_files_only": not fetch}
    maybe = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    whole = cached_file(source.location, SAFE_WEIGHTS_NAME, **hub, **maybe)
    if whole is not None:
        return [whole]
    index = cached_file(source.location, SAFE_WEIGHTS_INDEX_NAME, **hub, **maybe)
    if index is None:
        return []
    parts = sorted(set(json.loads(Path(index).read_bytes())["weight_map"].values()))
    return cached_files(source.location, parts, **hub) or []


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

"""LLaMA-Factory's ``dataset_info.json``: what it says of a file, and entries for new ones.

The fields are those of LLaMA-Factory's own description, ``data/README.md`` of its source.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weitiao.errors import DataError
from weitiao.records.files import write_atomic

REGISTRY = "dataset_info.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the registry says of one file.

    ``columns``: LLaMA-Factory's name → the file's column; ``tags``: what the turns' fields
    and speakers are called; ``ranking``: it is preference data; ``num_samples``: how many of
    its rows are meant. A hub's ``split`` and ``subset`` say nothing about a file, and its
    ``formatting`` nothing that the columns do not show.
    """

    name: str
    registry: Path
    columns: Mapping[str, str]
    tags: Mapping[str, str]
    ranking: bool = False
    num_samples: int | None = None


def registry_entry(path: Path) -> Entry | None:
    """Return the first entry that names the file, or the folder it is in; None without one.

    Entries that name a data set of a hub are not about this file.

    Raises:
        DataError: the registry is no valid JSON, or the entry's fields are of another kind.
    """
    path = path.absolute()
    for folder, wanted in ((path.parent, path), (path.parent.parent, path.parent)):
        registry = folder / REGISTRY
        for name, fields in _entries(registry).items():
            file = fields.get("file_name") if isinstance(fields, dict) else None
            if isinstance(file, str) and (folder / file).resolve() == wanted.resolve():
                return _entry(name, fields, registry)
    return None


def add_entry(path: Path, fields: Mapping[str, Any]) -> str:
    """Add an entry for the file to the registry beside it, and return the entry's name.

    Entries that are there stay as they are.

    Raises:
        DataError: there is a registry that cannot be read.
        RunError: it cannot be written.
    """
    registry = path.parent / REGISTRY
    entries = _entries(registry, ours=True)
    number, name = 1, path.stem
    while name in entries:
        number += 1
        name = f"{path.stem}_{number}"
    entries[name] = {"file_name": path.name, **fields}
    write_atomic(registry, json.dumps(entries, ensure_ascii=False, indent=2) + "\n")
    return name


def check_registry(path: Path) -> None:
    """Find out whether :func:`add_entry` can add the file, before the file is written.

    Raises:
        DataError: the registry cannot be read, or has an entry for a file of this name.
    """
    registry = path.parent / REGISTRY
    for name, fields in _entries(registry, ours=True).items():
        if isinstance(fields, dict) and fields.get("file_name") == path.name:
            raise DataError("error.registry_taken", path=registry, entry=name, file=path.name)


def _entries(registry: Path, ours: bool = False) -> dict[str, Any]:
    """Return name → fields. ms-swift's file of the same name is a list: no entries of ours."""
    try:
        entries = json.loads(registry.read_text("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise DataError("error.registry_broken", path=registry, line=line) from error
    if isinstance(entries, dict):
        return entries
    if ours:
        raise DataError("error.registry_broken", path=registry, line=1)
    return {}


def _entry(name: str, fields: Mapping[str, Any], registry: Path) -> Entry:
    def texts(field: str) -> dict[str, str]:
        found = fields.get(field) or {}
        if not isinstance(found, dict) or not all(
            value is None or isinstance(value, str) for value in found.values()
        ):
            raise DataError("error.registry_field", path=registry, entry=name, field=field)
        return {key: value for key, value in found.items() if value}

    number = fields.get("num_samples")
    if number is not None and (not isinstance(number, int) or number < 1):
        raise DataError("error.registry_field", path=registry, entry=name, field="num_samples")
    return Entry(
        name,
        registry,
        texts("columns"),
        texts("tags"),
        bool(fields.get("ranking")),
        number,
    )

"""The one door out: a folder with what was asked for, its tokenizer and its card, or nothing."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from weitiao.errors import ModelError, RunError
from weitiao.evaluation.beside import write_measure
from weitiao.export.card import CardFacts, Form, model_card
from weitiao.export.gguf_file import GgufType, require_gguf, require_plain_base, write_gguf
from weitiao.export.manner import MANNER, Manner
from weitiao.export.merge import (
    Tell,
    Trained,
    write_adapter,
    write_merged,
)
from weitiao.export.ollama import chat_pieces, modelfile
from weitiao.models.load import read_config, weights_on_disk
from weitiao.plan.shape import ModelShape
from weitiao.records.render import ChatFormat
from weitiao.runs import publish_directory

Target = Literal[
    "adapter", "merged", "gguf-f16", "gguf-q8_0", "gguf-q4_0", "ollama", "int8", "int4"
]
TARGETS: tuple[Target, ...] = Target.__args__  # type: ignore[attr-defined]

MODELFILE = "Modelfile"

_BYTES = {
    "gguf-f16": 2.0, "gguf-q8_0": 34 / 32, "gguf-q4_0": 18 / 32, "ollama": 34 / 32,
    "int8": 1.1, "int4": 0.7,
}  # fmt: skip
"""Bytes on the disk for each parameter."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the folder, its files by name, and their bytes together.

    ``ollama_refused`` is the sentence where a GGUF has no Modelfile beside it.
    """

    folder: Path
    target: Target
    files: tuple[str, ...]
    size: int
    ollama_refused: str | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """What an export is made from.

    ``merged`` is a folder that an earlier export merged; without one the merge is done anew,
    beside the result, and taken away again. ``manner`` is how it is to be asked; ``samples`` are
    training rows as token ids, which int8 and int4 are calibrated on.
    """

    trained: Trained
    chat: ChatFormat
    facts: CardFacts
    manner: Manner
    merged: Path | None = None
    samples: Sequence[Sequence[int]] = ()


def require_target(target: Target, material: Material) -> None:
    """Raise where ``target`` cannot be made of this model; no weights are read.

    Raises:
        ModelError: the method or the architecture does not allow it, or a package is missing.
    """
    trained = material.trained
    if target == "adapter":
        if not trained.is_adapter:
            raise ModelError("error.export_no_adapter")
        return
    if trained.is_prefix:
        raise ModelError("error.export_prefix")
    require_plain_base(trained.source)
    if _gguf_type(target) is not None:
        require_gguf(read_config(trained.source), trained.source.name)
    if target == "ollama":
        chat_pieces(material.chat)


def write_export(
    target: Target, material: Material, out: Path, tell: Tell = lambda done, total: None
) -> Exported:
    """Write ``target`` as the folder ``out``, which appears when all of it is on the disk.

    ``tell`` hears of the parts done of the work at hand: the merge first, then the format.

    Raises:
        RunError: ``out`` is there already, or the disk has no room.
        ModelError: the model cannot be exported so; see :func:`require_target`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError("error.export_exists", path=out)
    require_target(target, material)
    _require_room(target, material, out)
    refused = None
    with publish_directory(out) as new:
        if target == "adapter":
            write_adapter(material.trained, new, material.chat)
        elif target == "merged":
            _whole(material, new, tell)
        else:
            with_merged = material.merged or new / ".merged"
            if material.merged is None:
                with_merged.mkdir()
                write_merged(material.trained, with_merged, material.chat, tell)
            refused = _convert(target, material, with_merged, new, tell)
            shutil.rmtree(new / ".merged", ignore_errors=True)
        names, manner = _names(new), material.manner
        card = model_card(material.facts, _form(target), names, manner.system)
        (new / "README.md").write_text(card, encoding="utf-8")
        if target != "adapter":
            manner = replace(manner, quantization="none", base=None)
        write_measure(new / MANNER, manner)
    files = _names(out)
    size = sum((out / name).stat().st_size for name in files)
    return Exported(out, target, files, size, refused)


def _whole(material: Material, new: Path, tell: Tell) -> None:
    if material.merged is None:
        write_merged(material.trained, new, material.chat, tell)
    else:
        shutil.copytree(material.merged, new, dirs_exist_ok=True)


def _convert(target: Target, material: Material, merged: Path, new: Path, tell: Tell) -> str | None:
    """Write a form of the merged model; return why no Modelfile goes with a GGUF."""
    kind = _gguf_type(target)
    if kind is None:
        from weitiao.export.compressed import quantise

        quantise(merged, new, 4 if target == "int4" else 8, material.samples, tell)
        return None
    file = f"model-{kind}.gguf"
    write_gguf(merged, new / file, kind, material.chat, material.facts.name, tell)
    context = ModelShape.from_config(read_config(material.trained.source)).max_positions
    try:
        text = modelfile(file, merged, material.chat, context, material.manner.system)
    except ModelError as error:
        if target == "ollama":
            raise
        return error.sentence()
    (new / MODELFILE).write_text(text, encoding="utf-8")
    return None


def _gguf_type(target: Target) -> GgufType | None:
    if target == "ollama":
        return "q8_0"
    name = target.removeprefix("gguf-")
    return None if name == target else cast("GgufType", name)


def _form(target: Target) -> Form:
    if target in ("adapter", "merged"):
        return cast("Form", target)
    return "compressed" if target in ("int8", "int4") else "gguf"


def _names(folder: Path) -> tuple[str, ...]:
    """Return the files of an export, weights first: the largest leads."""
    found = [p for p in folder.rglob("*") if p.is_file()]
    found.sort(key=lambda p: -p.stat().st_size)
    return tuple(p.relative_to(folder).as_posix() for p in found)


def _require_room(target: Target, material: Material, out: Path) -> None:
    needed = _needed(target, material)
    there = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise RunError(
            "error.export_room",
            path=out,
            needed=_gigabytes(needed),
            free=_gigabytes(free),
        )


def _needed(target: Target, material: Material) -> float:
    """Return the bytes that the export takes while it is written."""
    trained = material.trained
    if target == "adapter":
        base = weights_on_disk(trained.source) or 0 if trained.carries_base else 0
        return sum(p.stat().st_size for p in trained.folder.rglob("*") if p.is_file()) + base
    config = read_config(trained.source)
    stored = 4 if config.get("dtype") == "float32" else 2
    parameters = ModelShape.from_config(config).total_params
    aside = 0 if material.merged is not None or target == "merged" else stored
    each = stored if target == "merged" else _BYTES[target]
    return parameters * (each + aside)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f}"

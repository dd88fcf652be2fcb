"""The form in which OpenVINO keeps a model: made from its GGUF file once, kept for later starts."""

import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import xxhash

from weitiao.errors import ModelError
from weitiao.serving.openvino.header import read_header

_ARCHITECTURES = ("qwen2", "qwen3", "llama")
_TYPES = {"F32", "F16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"}
_MODEL = "openvino_model.xml"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a worker is told first; the engine's arguments say what each means."""

    gguf: str
    cache: str
    context: int
    max_running: int
    cache_bytes: int
    threads: int


def kept_form(gguf: Path, cache: Path) -> Path:
    """Return the folder of ``cache`` with OpenVINO's form of ``gguf``, made where there is none.

    The form of an older file of this name, or of another version of OpenVINO, is not used and
    goes. Several processes may do this at once; a kill leaves nothing that is taken for a form.

    Raises:
        ModelError: OpenVINO cannot run this model, or the folder cannot be written.
    """
    try:
        stat = gguf.stat()
        place = xxhash.xxh64_hexdigest(os.fsencode(gguf.resolve()))
        age = f"{stat.st_size}-{stat.st_mtime_ns}-{version('openvino-genai')}"
        form = cache / f"{place}-{xxhash.xxh64_hexdigest(age.encode())}"
        if not (form / _MODEL).exists():
            _check(gguf)
            _make(gguf, form)
        for old in cache.glob(f"{place}-*"):
            if old != form:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ModelError("error.openvino_form", path=cache, cause=error.strerror) from error
    return form


def bytes_per_token(form: Path, value_bytes: int) -> int:
    """Return what the cache of attention takes for a token, ``value_bytes`` for each value."""
    from openvino import Core

    # One sink for the keys and one for the values of each layer, [batch, heads, tokens, width].
    sinks = Core().read_model(form / _MODEL).get_sinks()
    shapes = [sink.input(0).get_partial_shape() for sink in sinks]
    values: int = sum(shape[1].get_length() * shape[3].get_length() for shape in shapes)
    return values * value_bytes


def _check(gguf: Path) -> None:
    """Raise where OpenVINO would fail, or would answer wrongly without a word."""
    try:
        header = read_header(gguf)
    except ValueError as error:
        raise ModelError("error.openvino_no_gguf", path=gguf) from error
    kind = header.fields.get("general.architecture")
    if kind not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise ModelError("error.openvino_architecture", path=gguf, kind=kind, known=known)
    if strange := ", ".join(sorted({*header.types.values()} - _TYPES)):
        known = ", ".join(sorted(_TYPES))
        raise ModelError("error.openvino_types", path=gguf, types=strange, known=known)
    # OpenVINO reads the base frequency of positions alone.
    scaled = header.fields.get(f"{kind}.rope.scaling.type") not in (None, "none")
    if scaled or "rope_freqs.weight" in header.types:
        raise ModelError("error.openvino_positions", path=gguf)


def _make(gguf: Path, form: Path) -> None:
    from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig, Tokenizer

    form.parent.mkdir(parents=True, exist_ok=True)
    for left in form.parent.glob(".new-*"):
        if not psutil.pid_exists(int(left.name.removeprefix(".new-"))):
            shutil.rmtree(left, ignore_errors=True)
    new = form.with_name(f".new-{os.getpid()}")
    try:
        new.mkdir()
        # What OpenVINO saves it saves beside the file, and it takes folders without a tokenizer.
        there = new / "model.gguf"
        _link(gguf, there)
        tokenizer, settings = Tokenizer(new), {"enable_save_ov_model": True}
        ContinuousBatchingPipeline(there, tokenizer, SchedulerConfig(), "CPU", **settings)
        there.unlink()
        for file in new.iterdir():
            with file.open("rb+") as written:
                os.fsync(written.fileno())
        if not form.exists():
            new.rename(form)
    except (RuntimeError, LookupError, ValueError) as error:
        cause = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ModelError("error.openvino_cannot_load", path=gguf, cause=cause) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _link(file: Path, link: Path) -> None:
    """Let ``link`` be ``file``; a copy where the system lets no link be made."""
    try:
        link.symlink_to(file.resolve())
    except OSError:
        shutil.copyfile(file, link)

"""A run, an export or a model, behind a server: which engine, which names, whose template."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from weitiao.api.begin import base_of_run, chat_format, recipe_of
from weitiao.api.card import manner_in, manner_of
from weitiao.api.feedback import STORE
from weitiao.api.look import require_trained
from weitiao.errors import ModelError, RunError, WeitiaoError
from weitiao.runs import Run, open_run

if TYPE_CHECKING:
    from fastapi import FastAPI

    from weitiao.export.manner import Manner
    from weitiao.models.load import ModelSource
    from weitiao.models.pair import Voice
    from weitiao.plan.machine import Machine
    from weitiao.plan.recipe import Precision
    from weitiao.records.render import ChatFormat
    from weitiao.serving.engine import Engine
    from weitiao.serving.service import Role, Served, Service
    from weitiao.serving.settings import ServerSettings

EngineName = Literal["auto", "openvino", "transformers", "vllm"]
ENGINES: tuple[EngineName, ...] = ("auto", "openvino", "transformers", "vllm")

BASE = "base"
"""The name by which a tuned model's base answers."""

CONTEXT = 8192
"""The most tokens of prompt and answer, where a model could take more: memory is set aside."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What answers by ``name``: the model itself, or with what was trained (``trained``).

    ``manner`` is how it is asked; ``gguf`` a file of just these weights, where there is one.
    """

    name: str
    manner: Manner
    trained: Path | None = None
    gguf: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether ``trained`` is a model of its own, and no adapter."""
        return self.trained is not None and not (self.trained / "adapter_config.json").is_file()


@dataclass(frozen=True, slots=True)
class Offer:
    """What is to be served. ``source`` is the model that all of ``weights`` stand on.

    ``kept`` is the folder for what is made in order to serve.
    """

    source: ModelSource
    chat: ChatFormat
    weights: tuple[Weights, ...]
    kept: Path
    precision: Precision | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that can be started; ``because``: why its engine is not the faster one.

    ``kept`` is the folder for what it keeps: answers, requests, jobs.
    """

    service: Service
    settings: ServerSettings
    kept: Path
    because: WeitiaoError | None = None

    def application(self) -> FastAPI:
        """Return the application with all that stands beside its front.

        Raises:
            RunError: a file of its own cannot be used, or a package is missing.
        """
        from weitiao.serving.app import create_app, keys_of
        from weitiao.serving.cache import open_cache
        from weitiao.serving.feedback import feedback_router
        from weitiao.serving.jobs.running import add_jobs
        from weitiao.serving.request_log import RequestLog

        keep, service = self.settings.keep, self.service
        self.kept.mkdir(parents=True, exist_ok=True)
        engine = service.engine.name
        cache = open_cache(keep, self.kept / "answers.sqlite", service.served, engine)
        log = RequestLog(self.kept / STORE.name, keep)
        app = create_app(replace(service, cache=cache, recorder=log))
        app.include_router(feedback_router(log), dependencies=keys_of(app))
        add_jobs(app, self.kept / "jobs.sqlite", self.settings.jobs)
        return app


def serve(
    target: str,
    settings: ServerSettings,
    *,
    adapters: Mapping[str, Path] | None = None,
    engine: EngineName = "auto",
    vllm: str | None = None,
    context: int = CONTEXT,
) -> Ready:
    """Return the server of a run, of a folder that was exported, or of a model by its name.

    ``adapters``: further ones on the same base, by the name they answer to. Nothing is loaded
    yet; what has to be written first (GGUF files, for OpenVINO) is written.

    Raises:
        RunError: nothing was trained yet.
        ModelError: no such model, or the engine that was asked for cannot run it.
    """
    from weitiao.models.load import read_config
    from weitiao.plan.machine import probe
    from weitiao.plan.shape import ModelShape
    from weitiao.serving.service import Service

    offer = _offer(target, adapters or {})
    positions = ModelShape.from_config(read_config(offer.source)).max_positions
    chosen, because = _engine(
        offer, engine, vllm, min(context, positions), probe(Path(), for_training=False)
    )
    service = Service(chosen, tuple(_served(offer)), settings.server)
    return Ready(service, settings, offer.kept, because)


def _offer(target: str, adapters: Mapping[str, Path]) -> Offer:
    """Find out what ``target`` is."""
    from weitiao.export.manner import base_of
    from weitiao.models.load import find_model, load_tokenizer
    from weitiao.records.render import ChatFormat

    try:
        return _checked(_offer_of_run(open_run(target), adapters))
    except RunError as error:
        if error.key not in ("error.run_missing", "error.run_missing_near"):
            raise
    folder, more = Path(target).expanduser(), _more(adapters)
    name, files = folder.resolve().name or target, sorted(folder.glob("*.gguf"))
    if folder.suffix.lower() == ".gguf" or (files and not (folder / "config.json").is_file()):
        raise ModelError("error.serve_gguf", path=target)
    if (folder / "adapter_config.json").is_file():
        source, manner = base_of(folder), manner_in(folder)
        weights = (Weights(name, manner, folder), *more, Weights(BASE, manner))
    else:
        source = find_model(target)
        weights = (Weights(source.name.rstrip("/").split("/")[-1], manner_in(folder)), *more)
    chat = ChatFormat(load_tokenizer(source))
    return _checked(Offer(source, chat, weights, _cache_of(source)))


def _checked(offer: Offer) -> Offer:
    """Return the offer if each adapter is this base's, and each name means one model.

    Raises:
        ModelError: an adapter was trained on another base.
        RunError: a name stands for two, or cannot be a file's.
    """
    from weitiao.export.manner import require_base

    for weights in offer.weights:
        if weights.trained and not weights.whole:
            require_base(offer.source, weights.trained, weights.manner.base)
    names = [weights.name for weights in offer.weights]
    for name in names:
        if names.count(name) > 1 or "/" in name or "\\" in name:
            raise RunError("error.serve_name", name=name)
    return offer


def _offer_of_run(run: Run, adapters: Mapping[str, Path]) -> Offer:
    from weitiao.plan.plan import read_plan

    require_trained(run)
    recipe, settled = recipe_of(run), read_plan(run.plan)
    source = base_of_run(run, recipe)
    trained = run.model if settled.method == "full" else run.adapter
    exported = [run.path / "exports" / form / "model-q8_0.gguf" for form in ("gguf-q8_0", "ollama")]
    weights = fingerprint(source, trained)
    gguf = next((file for file in exported if _passed(file, weights)), None)
    manner = manner_of(run)
    tuned = Weights(run.path.resolve().name, manner, trained, gguf)
    return Offer(
        source,
        chat_format(recipe),
        (tuned, *_more(adapters), Weights(BASE, manner)),
        run.path / "serving",
        settled.precision,
    )


def _passed(file: Path, weights: str) -> bool:
    """Return whether an export is of these weights, and passed the gate."""
    from weitiao.export.parity import PARITY, load_parity

    try:
        parity = load_parity(file.with_name(PARITY))
    except RunError:
        return False
    return file.is_file() and parity.weights == weights and not parity.failures


def _more(adapters: Mapping[str, Path]) -> Iterator[Weights]:
    for name, folder in adapters.items():
        if not (folder / "adapter_config.json").is_file():
            raise ModelError("error.adapter_missing", path=folder)
        yield Weights(name, manner_in(folder), folder)


def _cache_of(source: ModelSource) -> Path:
    """Return the folder for what is made of a model that is no run's."""
    import os

    import xxhash

    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    which = xxhash.xxh64_hexdigest(f"{source.location} {source.revision}".encode())
    return Path(home) / "weitiao" / "serving" / which


def _served(offer: Offer) -> Iterator[Served]:
    """Return each name with the template and what holds where a request does not say."""
    from weitiao.serving.engine import Sampling
    from weitiao.serving.service import Served
    from weitiao.words import say

    tokenizer: Any = offer.chat.tokenizer
    decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    for weights in offer.weights:
        manner = weights.manner
        key = "serve.is_tuned" if weights.trained else "serve.is_model"
        yield Served(
            weights.name,
            offer.chat,
            decode,
            role=_role(offer, weights),
            system=manner.system,
            # As it was measured.
            defaults=Sampling(512, manner.temperature, manner.top_p, manner.repetition_penalty),
            created=int(time.time()),
            description=say(key, model=offer.source.name),
            fingerprint=fingerprint(offer.source, weights.trained),
        )


def _role(offer: Offer, weights: Weights) -> Role:
    if weights.trained is None:
        return "base" if offer.weights[0].trained else "model"
    return "tuned" if weights is offer.weights[0] else "adapter"


def fingerprint(source: ModelSource, trained: Path | None) -> str:
    """Tell weights from all others: an adapter by its content, a model by the age of its files."""
    import xxhash

    told = xxhash.xxh3_128(f"{source.location} {source.revision}".encode())
    for folder in (trained, Path(source.location)):
        for file in sorted(folder.glob("*.safetensors")) if folder else ():
            told.update(f"{file.name} {file.stat().st_size}".encode())
            if file.name.startswith("adapter"):
                told.update(file.read_bytes())
                told.update(file.with_name("adapter_config.json").read_bytes())
            else:
                told.update(f"{file} {file.stat().st_mtime_ns}".encode())
    return "fp_" + str(told.hexdigest())[:16]


def _engine(
    offer: Offer, asked: EngineName, vllm: str | None, context: int, machine: Machine
) -> tuple[Engine, WeitiaoError | None]:
    """Return the engine asked for, or the fastest that runs here, and why it is not a faster one.

    Raises:
        ModelError: the one that was asked for cannot run this model here.
    """
    from weitiao.models.load import read_config
    from weitiao.serving.vllm_process import find_vllm

    python = find_vllm(vllm) if asked in ("auto", "vllm") else None
    if asked == "vllm" and python is None:
        raise ModelError("error.vllm_unnamed")
    if python is not None:
        return _vllm(offer, python, context), None
    # int8 and int4 of an export are for GPUs; there is nothing better for them here.
    packed = "quantization_config" in read_config(offer.source)
    if asked == "transformers" or (asked == "auto" and (machine.gpus or packed)):
        return _transformers(offer, context, machine), None
    try:
        return _openvino(offer, context), None
    except ModelError as error:
        if asked == "openvino":
            raise
        return _transformers(offer, context, machine), error


def _vllm(offer: Offer, python: Path, context: int) -> Engine:
    from weitiao.serving.vllm import VllmEngine

    whole = next((w.trained for w in offer.weights if w.whole), None)
    # Weights that were trained whole leave no room for the base beside them.
    models = {w.name: w.trained for w in offer.weights if not (whole and w.name == BASE)}
    if whole is not None:
        models = {name: None if folder == whole else folder for name, folder in models.items()}
    offer.kept.mkdir(parents=True, exist_ok=True)
    location = whole or offer.source.location
    return VllmEngine(python, location, models, context, offer.kept / "vllm.log")


def _openvino(offer: Offer, context: int) -> Engine:
    """Return the engine for CPUs, its GGUF files written where they are not there yet."""
    from weitiao.models.load import read_config
    from weitiao.serving.openvino import OpenVinoEngine, require_openvino

    require_openvino()
    config = read_config(offer.source)
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if scaling.get("rope_type", scaling.get("type", "default")) != "default":
        # OpenVINO would answer by other positions than those that were trained.
        raise ModelError("error.openvino_positions", path=offer.source.name)
    files = {w.name: w.gguf or _gguf(offer, w) for w in offer.weights}
    return OpenVinoEngine(files, offer.kept / "openvino", context)


def _gguf(offer: Offer, weights: Weights) -> Path:
    """Write the weights as Q8_0, unless a file of these very weights is there."""
    import tempfile

    from weitiao.export.gguf_file import require_gguf, require_plain_base, write_gguf
    from weitiao.models.load import read_config, weights_folder

    out = offer.kept / f"{weights.name}-{fingerprint(offer.source, weights.trained)}-q8_0.gguf"
    if out.is_file():
        return out
    require_gguf(read_config(offer.source), offer.source.name)
    require_plain_base(offer.source)
    stock = weights_folder(offer.source)
    offer.kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=offer.kept, prefix=".new-") as work:
        folder, made = weights.trained or stock, Path(work) / out.name
        if weights.trained and not weights.whole:
            # Seconds, for PEFT brings much along.
            from weitiao.export.merge import Trained, write_merged

            folder = Path(work) / "merged"
            folder.mkdir()
            write_merged(Trained(offer.source, weights.trained), folder, offer.chat)
        write_gguf(folder, made, "q8_0", offer.chat, weights.name)
        for old in offer.kept.glob(f"{weights.name}-fp_*-q8_0.gguf"):
            old.unlink()
        made.replace(out)
    return out


def _transformers(offer: Offer, context: int, machine: Machine) -> Engine:
    from weitiao.serving.batching import TransformersEngine

    return TransformersEngine(lambda: _voices(offer, machine), context)


def _voices(offer: Offer, machine: Machine) -> dict[str, Voice]:
    """Load what is served; adapters share the weights of their base."""
    import torch

    from weitiao.models.load import TYPES, ModelSource, load_model
    from weitiao.models.pair import Voice
    from weitiao.models.voices import load_voices

    fast = bool(machine.gpus) or machine.cpu_bf16 == "fast"
    dtype = TYPES[offer.precision or ("bf16" if fast else "fp32")]
    device = torch.device("cuda" if machine.gpus else "cpu")
    adapters = {w.name: w.trained for w in offer.weights if w.trained and not w.whole}
    plain = next((w.name for w in offer.weights if w.trained is None), None)
    bits = offer.weights[0].manner.quantization
    found = load_voices(offer.source, adapters, dtype, device, bits, plain)
    for weights in offer.weights:
        if weights.whole:
            place = str(weights.trained)
            own = ModelSource(place, place, None, offer.source.trust_remote_code)
            found[weights.name] = Voice(load_model(own, dtype, device))
    return {w.name: found[w.name] for w in offer.weights}

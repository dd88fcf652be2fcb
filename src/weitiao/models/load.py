"""Find a base model by name, path or hub id, and load it with its tokenizer."""

import difflib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import cached_file

from weitiao.errors import ModelError
from weitiao.models.quantized import compute_exactly, quantization_config, require_bitsandbytes
from weitiao.plan.recipe import Precision, Quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EMBEDDED = "embedded"

TYPES: dict[Precision, torch.dtype] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}
"""The types of matrix products, and of a frozen base."""

KNOWN_MODELS = (
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
    "deepseek-ai/deepseek-llm-7b-base",
    "deepseek-ai/deepseek-llm-7b-chat",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "Qwen/Qwen2.5-3B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-1.7B",
)
"""Hub ids that people ask for, to complete a bare name and to suggest near ones."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model is read from: ``location`` is a folder or a hub id."""

    name: str
    location: str
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """What transformers is told beside the location."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


def near_names(name: str) -> list[str]:
    """Return up to three known models whose names resemble ``name``, nearest first."""
    wanted = name.lower().split("/")[-1]
    by_short = {known.split("/")[-1].lower(): known for known in KNOWN_MODELS}
    near = difflib.get_close_matches(wanted, by_short, n=3, cutoff=0.5)
    return [by_short[short] for short in near]


def find_model(
    name: str, revision: str | None = None, trust_remote_code: bool = False
) -> ModelSource:
    """Return where ``name`` is: the embedded model, a folder, or a hub id.

    A bare name such as ``Qwen2.5-1.5B-Instruct`` is completed to the hub id it is known by.

    Raises:
        ModelError: no such folder, or a bare name that no model is known by.
    """
    if name == EMBEDDED:
        return ModelSource(name, str(resources.files("weitiao.models") / "embedded"))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError("error.model_no_config", path=name)
        return ModelSource(name, str(folder.resolve()), None, trust_remote_code)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError("error.model_path_missing", path=name)
    for known in KNOWN_MODELS:
        if name.lower() in (known.lower(), known.split("/")[-1].lower()):
            return ModelSource(name, known, revision, trust_remote_code)
    if "/" not in name:
        near = near_names(name) or list(KNOWN_MODELS[:3])
        raise ModelError("error.model_unknown", model=name, near=", ".join((EMBEDDED, *near)))
    return ModelSource(name, name, revision, trust_remote_code)


def _unavailable(source: ModelSource, cause: Exception) -> ModelError:
    """Return the one sentence for whatever kept transformers from reading ``source``."""
    if "trust_remote_code" in str(cause):
        return ModelError("error.model_remote_code", model=source.name)
    why = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return ModelError("error.model_unreadable", path=source.location, why=why)


@cache
def _on_hub(location: str, revision: str | None) -> None:
    """Ask the hub once whether it has the model; transformers itself would ask for a minute.

    Raises:
        ModelError: there is no such model, or the hub cannot be reached.
    """
    if Path(location).is_dir() or try_to_load_from_cache(location, "config.json") is not None:
        return
    try:
        HfApi().model_info(location, revision=revision, timeout=20)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as cause:
        near = ", ".join(near_names(location)) or EMBEDDED
        raise ModelError("error.model_not_on_hub", model=location, near=near) from cause
    except Exception as cause:  # the hub's client passes on whatever its network library raises
        why = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise ModelError("error.hub_unreachable", model=location, why=why) from cause


def read_config(source: ModelSource) -> dict[str, Any]:
    """Return the model's configuration; no weights are read.

    Raises:
        ModelError: it cannot be reached or read.
    """
    _on_hub(source.location, source.revision)
    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(
            source.location, **source.options
        ).to_dict()
    except (OSError, ValueError) as cause:
        raise _unavailable(source, cause) from cause
    return config


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """Return the model's own tokenizer, with a pad token.

    Raises:
        ModelError: it cannot be reached or read.
    """
    _on_hub(source.location, source.revision)
    tokenizer: PreTrainedTokenizerBase
    try:
        # AutoTokenizer would rebuild a qwen2 model's tokenizer with Qwen's own splitting and
        # normalisation, whatever its tokenizer.json says; the file is what it was trained with.
        own = _own_tokenizer_file(source)
        kind = PreTrainedTokenizerFast if own else AutoTokenizer
        tokenizer = kind.from_pretrained(source.location, **source.options)
    except (OSError, ValueError) as cause:
        raise _unavailable(source, cause) from cause
    if tokenizer.pad_token_id is None:
        # Padding is masked wherever it stands, so any token will do.
        tokenizer.pad_token = tokenizer.eos_token
    # transformers would store the package's own folder here and repeat it in messages.
    tokenizer.name_or_path = source.name
    return tokenizer


def _own_tokenizer_file(source: ModelSource) -> bool:
    """Return whether the model has a tokenizer.json, on disk or on the hub."""
    found = cached_file(
        source.location,
        "tokenizer.json",
        revision=source.revision,
        _raise_exceptions_for_missing_entries=False,
    )
    return found is not None


def load_model(
    source: ModelSource,
    dtype: torch.dtype,
    device: torch.device,
    tokens: int = 0,
    quantization: Quantization = "none",
) -> "PreTrainedModel":
    """Return the model in ``dtype`` on ``device``, ready for answers; safetensors only.

    ``tokens`` is the size of the tokenizer: a model with fewer entries is refused. Of a
    quantised model the head, the embeddings and the norms are in ``dtype``.

    Raises:
        ModelError: it cannot be reached or read, is damaged, or is of a kind that cannot be
            trained here; the packages for a quantised model are missing.
    """
    # Seconds, which a server that computes elsewhere need not wait for.
    from transformers import AutoModelForCausalLM

    options = source.options
    if quantization != "none":
        require_bitsandbytes()
        options["quantization_config"] = quantization_config(quantization, dtype)
        options["device_map"] = {"": device}
        _require_numbers(source, _tensors_on_disk(source))
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source.location, dtype=dtype, use_safetensors=True, **options
        )
    except (OSError, ValueError, SafetensorError) as cause:
        raise _unavailable(source, cause) from cause
    head = model.get_output_embeddings()
    if not model._supports_attention_backend or head is None or head.bias is not None:
        raise ModelError(
            "error.model_architecture", model=source.name, architecture=type(model).__name__
        )
    if tokens > head.weight.shape[0]:
        raise ModelError(
            "error.model_vocabulary",
            model=source.name,
            vocabulary=head.weight.shape[0],
            tokens=tokens,
        )
    model.to(device)  # type: ignore[arg-type]
    _require_numbers(source, model.named_parameters())
    if quantization != "none":
        # What stays whole would hold on to the file, and so all of it in memory.
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.clone()
    compute_exactly(model)
    model.eval()
    if getattr(model.config, "quantization_config", None) and quantization == "none":
        # compressed-tensors unpacks the weights when the whole model is first called, which
        # the engines never do: they call its layers.
        with torch.inference_mode():
            model(torch.zeros((1, 1), dtype=torch.long, device=device))
    return model


def load_gguf(
    file: Path, dtype: torch.dtype, device: torch.device
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Return the model and the tokenizer of a GGUF file, its weights made ``dtype`` again.

    Raises:
        ModelError: it cannot be read, or is of an architecture that transformers does not take.
    """
    from transformers import AutoModelForCausalLM

    options = {"gguf_file": file.name}
    try:
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=dtype, **options)
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **options)
    except (OSError, ValueError, KeyError, ImportError) as cause:
        raise _unavailable(ModelSource(file.name, str(file)), cause) from cause
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.to(device)  # type: ignore[arg-type]
    compute_exactly(model)
    return model.eval(), tokenizer


def _require_numbers(source: ModelSource, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raise where a weight holds NaN or infinity: a sum does, if and almost only if they do."""
    for name, tensor in tensors:
        if not tensor.is_floating_point() or tensor.sum().isfinite():
            continue
        if not tensor.isfinite().all():
            raise ModelError("error.model_not_finite", model=source.name, tensor=name)


def _tensors_on_disk(source: ModelSource) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the weights as they are stored: quantising would hide what is no number."""
    try:
        config = cached_file(source.location, "config.json", revision=source.revision)
        for file in sorted(Path(str(config)).parent.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                yield from ((name, tensors.get_tensor(name)) for name in tensors.offset_keys())
    except (OSError, SafetensorError) as cause:
        raise _unavailable(source, cause) from cause


def weights_folder(source: ModelSource) -> Path:
    """Return the folder with the model's files, fetched from the hub where it is not here.

    Raises:
        ModelError: the hub cannot be reached, or has no such model.
    """
    if Path(source.location).is_dir():
        return Path(source.location)
    _on_hub(source.location, source.revision)
    wanted = ["*.safetensors", "*.json", "*.jinja", "LICENSE*", "README.md"]
    try:
        return Path(
            snapshot_download(source.location, revision=source.revision, allow_patterns=wanted)
        )
    except Exception as cause:  # the hub's client passes on whatever its network library raises
        raise _unavailable(source, cause) from cause


def weights_on_disk(source: ModelSource) -> int | None:
    """Return the bytes of a local model's safetensors files, or None for a hub id."""
    folder = Path(source.location)
    if not folder.is_dir():
        return None
    return sum(os.path.getsize(f) for f in folder.glob("*.safetensors")) or None


def base_of_adapter(folder: Path) -> str:
    """Return the base model's name written in a PEFT adapter's configuration."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return str(config["base_model_name_or_path"])

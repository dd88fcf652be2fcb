"""What was trained as folders that transformers and peft load: merged, or the adapter by itself.

A merge begins with the base loaded afresh as it is stored, never with a quantised one. Layer by
layer the weight is made fp32, the update is computed and added in fp32 by PEFT itself, and the
sum is rounded once to the type it came in. So it is, bit for bit, PEFT's merge of the whole
model in fp32 and one cast, for the memory of the stored weights and one layer. An adapter that
was trained on a quantised base meets other weights here; how much that changes is for the parity
gate to measure.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import cached_file

from weitiao.errors import ModelError
from weitiao.models.adapters import load_adapter
from weitiao.models.load import EMBEDDED, TYPES, ModelSource, load_model, read_config
from weitiao.records.render import ChatFormat

Tell = Callable[[int, int], None]
"""(done, all): called after each part of a long work."""

_SHARD = "4GB"
_TYPES = {str(dtype).removeprefix("torch."): dtype for dtype in TYPES.values()}
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "LICENSE",
)  # fmt: skip
_ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """What is exported: a base model, and the folder of its adapter or of the whole model."""

    source: ModelSource
    folder: Path

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds an adapter."""
        return (self.folder / _ADAPTER_CONFIG).is_file()

    @property
    def is_prefix(self) -> bool:
        """Whether the adapter is virtual tokens, which no weight can take up."""
        return self.is_adapter and self._config()["peft_type"] == "PREFIX_TUNING"

    @property
    def carries_base(self) -> bool:
        """Whether the base is copied beside the adapter: nobody finds ours by its name."""
        return self.source.name == EMBEDDED

    def _config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / _ADAPTER_CONFIG).read_bytes())
        return found


def write_merged(
    trained: Trained, out: Path, chat: ChatFormat, tell: Tell = lambda done, total: None
) -> None:
    """Write the whole tuned model into the folder ``out``, in the type its base is stored in.

    Raises:
        ModelError: prefix-tuning, an adapter of another base, weights that are no numbers, or
            a model that cannot be loaded.
    """
    if trained.is_prefix:
        raise ModelError("error.export_prefix")
    dtype = _TYPES.get(str(read_config(trained.source).get("dtype")), torch.bfloat16)
    tokenizer: Any = chat.tokenizer
    cpu, tokens = torch.device("cpu"), len(tokenizer)
    if trained.is_adapter:
        adapted = load_adapter(load_model(trained.source, dtype, cpu, tokens), trained.folder)
        model = _merged(adapted, tell)
    else:
        whole = str(trained.folder)
        remote = trained.source.trust_remote_code
        model = load_model(ModelSource(whole, whole, None, remote), dtype, cpu, tokens)
    model.generation_config = _generation_config(model, chat)
    model.save_pretrained(str(out), max_shard_size=_SHARD)
    copy_tokenizer(trained.source, out, chat)


def _merged(adapted: PeftModel, tell: Tell) -> PreTrainedModel:
    layers = {n: m for n, m in adapted.named_modules() if isinstance(m, BaseTunerLayer)}
    for done, (name, layer) in enumerate(layers.items(), 1):
        base: Any = layer.get_base_layer()
        dtype = base.weight.dtype
        base.float()
        try:
            layer.merge(safe_merge=True)
        except ValueError as cause:
            raise ModelError("error.export_not_finite", layer=name) from cause
        base.to(dtype)
        if not base.weight.isfinite().all():
            raise ModelError("error.export_not_finite", layer=name)
        tell(done, len(layers))
    plain: PreTrainedModel = adapted.unload()
    return plain


def _generation_config(model: PreTrainedModel, chat: ChatFormat) -> GenerationConfig:
    """Return how the base samples, ending where the tuned model was taught to end."""
    config: GenerationConfig = model.generation_config or GenerationConfig()
    config.eos_token_id = list(chat.stop_ids)
    config.pad_token_id = getattr(chat.tokenizer, "pad_token_id", None)
    if config.temperature not in (None, 1.0) or config.top_p not in (None, 1.0):
        # transformers refuses to save what only sampling uses where nothing is sampled.
        config.do_sample = True
    return config


def copy_tokenizer(source: ModelSource, out: Path, chat: ChatFormat) -> None:
    """Put the tokenizer, its chat template and the licence of the base into ``out``, as they are.

    Written anew they would name a class of this transformers that older programs do not know.
    """
    for name in _TOKENIZER_FILES:
        file = cached_file(
            source.location,
            name,
            revision=source.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if file is not None:
            shutil.copyfile(file, out / name)
    if not (out / "tokenizer.json").is_file():
        tokenizer: Any = chat.tokenizer
        tokenizer.save_pretrained(str(out))


def write_adapter(trained: Trained, out: Path, chat: ChatFormat) -> None:
    """Write the adapter as it was trained into the folder ``out``, with its tokenizer.

    The embedded base is copied to ``base`` beside it. A base from the hub is named by its id,
    another one by its folder on this computer.

    Raises:
        ModelError: all weights were trained, so that there is no adapter.
    """
    if not trained.is_adapter:
        raise ModelError("error.export_no_adapter")
    shutil.copytree(trained.folder, out, dirs_exist_ok=True)
    config = json.loads((out / _ADAPTER_CONFIG).read_bytes())
    config["base_model_name_or_path"] = trained.source.location
    config["revision"] = trained.source.revision
    if trained.carries_base:
        config["base_model_name_or_path"] = "base"
        shutil.copytree(trained.source.location, out / "base")
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (out / _ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    copy_tokenizer(trained.source, out, chat)

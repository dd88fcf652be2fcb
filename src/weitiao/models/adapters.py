"""LoRA adapters in the standard PEFT format: made, saved, and put back on a base model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import PreTrainedModel

from weitiao.errors import ModelError


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: int,
    dropout: float,
    targets: Literal["all-linear"] | Sequence[str],
    seed: int,
) -> PeftModel:
    """Put a fresh LoRA adapter on ``model`` (Hu et al. 2021, arXiv 2106.09685).

    The update of a linear layer is ``alpha / rank * B @ A``; A is drawn with ``seed``, B is
    zero, so the model answers as its base until it is trained. The adapter is fp32.

    Raises:
        ModelError: no layer is named as ``targets`` say.
    """
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as cause:
        raise ModelError("error.lora_targets", targets=str(targets)) from cause


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put the adapter of ``folder`` on ``model``, for answers.

    Raises:
        ModelError: the folder holds no adapter, or one of another model.
    """
    if not (folder / "adapter_config.json").is_file():
        raise ModelError("error.adapter_missing", path=str(folder))
    try:
        return PeftModel.from_pretrained(model, str(folder)).eval()
    except (OSError, ValueError, RuntimeError, SafetensorError) as cause:
        why = str(cause).splitlines()[0]
        raise ModelError("error.adapter_unreadable", path=str(folder), why=why) from cause


def transformers_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the transformers model, adapter layers in place."""
    return model.get_base_model() if isinstance(model, PeftModel) else model  # type: ignore[return-value]


def save_trained(
    model: PreTrainedModel | PeftModel, folder: Path, dtype: torch.dtype = torch.float32
) -> None:
    """Write what was trained: the adapter (fp32), or the whole model in ``dtype``; safetensors."""
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), safe_serialization=True)
        # PEFT writes an empty model card of its own, which says nothing true.
        (folder / "README.md").unlink(missing_ok=True)
        return
    # Tied weights stay one tensor, or the file would hold them twice.
    cast: dict[int, torch.Tensor] = {}
    state = {
        name: cast.setdefault(value.data_ptr(), value.to(dtype))
        for name, value in model.state_dict().items()
    }
    model.save_pretrained(str(folder), state_dict=state)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

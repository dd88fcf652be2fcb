"""The base and the tuned model of one run, side by side."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from weitiao.errors import ModelError
from weitiao.models.adapters import load_adapter, transformers_model
from weitiao.models.load import ModelSource, load_model
from weitiao.plan.recipe import Quantization


@dataclass(frozen=True, slots=True)
class Voice:
    """A model that answers while ``speaking()`` is entered; base and tuned may share weights."""

    model: PreTrainedModel | PeftModel
    speaking: Callable[[], AbstractContextManager[Any]] = nullcontext


def load_pair(
    source: ModelSource,
    trained: Path,
    dtype: torch.dtype,
    device: torch.device,
    quantization: Quantization = "none",
) -> tuple[Voice, Voice]:
    """Return (base, tuned). ``trained`` is a PEFT adapter's folder, or that of a whole model.

    With an adapter the weights are loaded once, and the base speaks with the adapter off;
    both stand on a base quantised as it was in training.

    Raises:
        ModelError: nothing was trained yet, or it cannot be loaded.
    """
    if (trained / "adapter_config.json").is_file():
        base = load_model(source, dtype, device, quantization=quantization)
        tuned = load_adapter(base, trained)
        shared = transformers_model(tuned)
        if tuned.active_peft_config.is_prompt_learning:
            # Virtual tokens stand outside the transformers model.
            return Voice(shared), Voice(tuned)
        return Voice(shared, tuned.disable_adapter), Voice(shared)
    if not (trained / "config.json").is_file():
        raise ModelError("error.adapter_missing", path=trained)
    whole = ModelSource(str(trained), str(trained), None, source.trust_remote_code)
    return Voice(load_model(source, dtype, device)), Voice(load_model(whole, dtype, device))

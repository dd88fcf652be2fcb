"""Several adapters on one base: a voice for each, the weights of the base loaded once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError

from weitiao.errors import ModelError
from weitiao.models.adapters import load_adapter, require_same_layers, transformers_model
from weitiao.models.load import ModelSource, load_model
from weitiao.models.pair import Voice
from weitiao.plan.recipe import Quantization


def load_voices(
    source: ModelSource,
    adapters: Mapping[str, Path],
    dtype: torch.dtype,
    device: torch.device,
    quantization: Quantization = "none",
    base: str | None = None,
) -> dict[str, Voice]:
    """Return name → voice for each of ``adapters`` (name → folder), then for ``base`` by its name.

    Raises:
        ModelError: the base or an adapter cannot be loaded, an adapter is one of another base,
            or the adapters are of kinds that cannot share one.
    """
    model = load_model(source, dtype, device, quantization=quantization)
    found: dict[str, Voice] = {}
    peft: PeftModel | None = None
    for number, (name, folder) in enumerate(adapters.items()):
        if peft is None:
            peft, adapter, first = load_adapter(model, folder), "default", folder
        else:
            # PEFT makes names of layers from an adapter's, in which no point may stand.
            adapter = f"number{number}"
            _add(peft, folder, adapter, first)
        require_same_layers(peft, folder, adapter)
        found[name] = _voice(peft, adapter)
    if base is not None:
        found[base] = Voice(model) if peft is None else _base_voice(peft)
    return found


def _add(peft: PeftModel, folder: Path, adapter: str, first: Path) -> None:
    if not (folder / "adapter_config.json").is_file():
        raise ModelError("error.adapter_missing", path=str(folder))
    try:
        kind = type(peft.active_peft_config).from_pretrained(str(folder)).peft_type
        own = peft.active_peft_config.peft_type
        if kind != own:
            raise ModelError(
                "error.adapters_mixed",
                first=first,
                first_kind=own.value,
                second=folder,
                second_kind=kind.value,
            )
        peft.load_adapter(str(folder), adapter_name=adapter)
    except (OSError, ValueError, RuntimeError, SafetensorError) as cause:
        why = str(cause).splitlines()[0]
        raise ModelError("error.adapter_unreadable", path=str(folder), why=why) from cause
    peft.eval()


def _voice(peft: PeftModel, adapter: str) -> Voice:
    @contextmanager
    def speaking() -> Iterator[None]:
        peft.set_adapter(adapter, inference_mode=True)
        yield

    # Virtual tokens stand outside the transformers model.
    return Voice(peft, speaking)


def _base_voice(peft: PeftModel) -> Voice:
    if peft.active_peft_config.is_prompt_learning:
        return Voice(transformers_model(peft))
    return Voice(transformers_model(peft), peft.disable_adapter)

"""Adapters in the standard PEFT format: made, saved, and put back on a base model."""

import difflib
import json
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import DynamicCache, PreTrainedModel

from weitiao.errors import ModelError
from weitiao.plan.plan import Plan

PISSA: Any = "pissa_niter_16"
"""A randomised SVD: exact enough after 16 rounds (Meng et al. 2024, arXiv 2404.02948)."""

IA3_SCALED = ("k_proj", "v_proj", "down_proj")
"""What IA³ scales: keys, values and MLP units (Liu et al. 2022, arXiv 2205.05638)."""


def add_adapter(model: PreTrainedModel, plan: Plan) -> PeftModel:
    """Put the fresh adapter of ``plan`` (lora, qlora, prefix or ia3) on ``model``.

    What is drawn is drawn with the plan's seed, and what is trained is fp32. The model then
    answers as its base, but for prefix-tuning. PiSSA changes the base's weights; they are the
    same whenever the same plan is carried out on the same base.

    Raises:
        ModelError: the plan's layers or rank do not fit this model.
    """
    torch.manual_seed(plan.seed)
    if plan.method == "prefix":
        # Beginning with the keys and values of words began and ended worse on our own model.
        config = PrefixTuningConfig(num_virtual_tokens=plan.prefix_tokens, task_type="CAUSAL_LM")
        return get_peft_model(model, config)
    if plan.method == "ia3":
        return _with_ia3(model)
    return _with_lora(model, plan)


def _with_lora(model: PreTrainedModel, plan: Plan) -> PeftModel:
    """LoRA (Hu et al. 2021, arXiv 2106.09685): the update of a weight is ``scale * B @ A``."""
    pissa = plan.lora_init == "pissa"
    if pissa and plan.quantization != "none":
        raise ModelError("error.pissa_quantized")
    _require_lora(model, plan.lora_targets, plan.lora_rank)
    targets = plan.lora_targets
    config = LoraConfig(
        r=plan.lora_rank,
        lora_alpha=plan.lora_alpha,
        lora_dropout=plan.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=plan.lora_rslora,
        use_dora=plan.lora_dora,
        init_lora_weights=PISSA if pissa else True,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    if pissa:
        state = _factors(adapted)
        first = {name: value.cpu().clone() for name, value in state.items()}
        adapted.first_factors = first  # type: ignore[assignment]
    return adapted


def _with_ia3(model: PreTrainedModel) -> PeftModel:
    names = {name.split(".")[-1] for name in linear_layers(model)}
    # PEFT's own table scales queries in place of keys for Qwen, and knows few architectures.
    if not names.issuperset(IA3_SCALED):
        raise ModelError("error.ia3_layers", model=model.config.model_type)
    config = IA3Config(
        target_modules=list(IA3_SCALED),
        feedforward_modules=[IA3_SCALED[-1]],
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def virtual_tokens(model: PreTrainedModel | PeftModel, rows: int) -> DynamicCache | None:
    """Return the keys and values of prefix-tuning's virtual tokens for ``rows`` rows.

    None where the model has none, or where its adapter is switched off; differentiable.
    """
    if not isinstance(model, PeftModel) or not model.active_peft_config.is_prompt_learning:
        return None
    # PEFT has no public word for this; its switch for prompt learning replaces methods.
    return None if model._adapters_disabled else model.get_prompt(rows)  # type: ignore[return-value]


def linear_layers(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """Return name → linear layer of ``model``, the head left out: its loss is computed apart."""
    head = model.get_output_embeddings()
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    }


def _require_lora(
    model: PreTrainedModel, targets: Literal["all-linear"] | Sequence[str], rank: int
) -> None:
    """Raise where a target is not there, or where the rank is larger than a layer.

    PEFT itself passes over a name that nothing is called, as long as another one is there.
    """
    layers = linear_layers(model)
    chosen = layers if targets == "all-linear" else {}
    for target in () if targets == "all-linear" else targets:
        found = {n: x for n, x in layers.items() if n == target or n.endswith(f".{target}")}
        if not found:
            names = sorted({name.split(".")[-1] for name in layers})
            near = difflib.get_close_matches(target, names, n=3, cutoff=0.4) or names
            raise ModelError("error.lora_target_unknown", target=target, near=", ".join(near))
        chosen |= found
    name, small = min(chosen.items(), key=lambda x: min(x[1].in_features, x[1].out_features))
    most = min(small.in_features, small.out_features)
    if rank > most:
        raise ModelError(
            "error.lora_rank",
            rank=rank,
            layer=name,
            inputs=small.in_features,
            outputs=small.out_features,
            most=most,
        )


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """Put the adapter of ``folder`` on ``model``, for answers.

    Raises:
        ModelError: the folder holds no adapter, or one of another model.
    """
    if not (folder / "adapter_config.json").is_file():
        raise ModelError("error.adapter_missing", path=str(folder))
    try:
        adapted = PeftModel.from_pretrained(model, str(folder)).eval()
    except (OSError, ValueError, RuntimeError, SafetensorError) as cause:
        why = str(cause).splitlines()[0]
        raise ModelError("error.adapter_unreadable", path=str(folder), why=why) from cause
    require_same_layers(adapted, folder)
    return adapted


def require_same_layers(peft: PeftModel, folder: Path, adapter: str = "default") -> None:
    """Raise where the file has other weights than the model took: PEFT would pass over them.

    Raises:
        ModelError: it has.
    """
    try:
        with safe_open(folder / SAFETENSORS_WEIGHTS_NAME, framework="pt") as tensors:
            stored = set(tensors.keys())
    except (OSError, SafetensorError) as cause:
        why = str(cause).splitlines()[0]
        raise ModelError("error.adapter_unreadable", path=str(folder), why=why) from cause
    taken = get_peft_model_state_dict(peft, adapter_name=adapter, save_embedding_layers=False)
    if stored != set(taken):
        model = transformers_model(peft).name_or_path
        raise ModelError("error.adapter_other_layers", path=str(folder), model=model)


def transformers_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Return the transformers model, adapter layers in place."""
    return model.get_base_model() if isinstance(model, PeftModel) else model  # type: ignore[return-value]


def save_trained(
    model: PreTrainedModel | PeftModel,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    state: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write what was trained: the adapter (fp32), or the whole model in ``dtype``; safetensors.

    ``state`` holds the weights by name where ``model`` itself has only a part of them.
    """
    if isinstance(model, PeftModel):
        if hasattr(model, "first_factors"):
            _save_pissa(model, folder, state)
            return
        # Left to itself PEFT asks the hub at every save whether the vocabulary has grown.
        model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=state)
        # PEFT writes an empty model card of its own, which says nothing true.
        (folder / "README.md").unlink(missing_ok=True)
        return
    # Tied weights stay one tensor, or the file would hold them twice.
    cast: dict[int, torch.Tensor] = {}
    written = {
        name: cast.setdefault(value.data_ptr(), value.to(dtype))
        for name, value in (state or model.state_dict()).items()
    }
    model.save_pretrained(str(folder), state_dict=written)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _factors(
    model: PeftModel, state: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model, state, save_embedding_layers=False
    )
    return found


def _save_pissa(model: PeftModel, folder: Path, whole: Mapping[str, torch.Tensor] | None) -> None:
    """Write a PiSSA adapter as plain LoRA of twice the rank, for the base as it was.

    With the first factors A₀ and B₀ the base is ``W - s B₀ A₀``, so the update of W is
    ``s (B A - B₀ A₀) = s [B, -B₀] [A; A₀]`` (PEFT's ``subtract_mutated_init`` is the same
    arithmetic, but puts a second adapter on the model that is being trained).
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {}
    for name, value in _factors(model, whole).items():
        now, first = value.detach().cpu(), model.first_factors[name]
        if ".lora_A." in name:
            now = torch.cat([now, first], dim=0)
        elif ".lora_B." in name:
            now = torch.cat([now, -first], dim=1)
        state[name] = now.contiguous()
    save_file(state, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    config = copy(model.active_peft_config)
    config.init_lora_weights, config.inference_mode = True, True
    # The scale is alpha / rank, or alpha / sqrt(rank) with rsLoRA, and must stay.
    config.lora_alpha *= 2**0.5 if config.use_rslora else 2
    config.r *= 2
    config.base_model_name_or_path = transformers_model(model).name_or_path
    config.save_pretrained(str(folder))

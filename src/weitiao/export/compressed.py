"""A model in 8 or 4 bits in the compressed-tensors form, which vLLM and transformers read.

4 bits (W4A16): groups of inputs share a bf16 scale, inputs stay as they are ("pack-quantized").
8 bits (W8A8): each output has a scale, and the reader rounds each token's inputs to 8 bits too
("int-quantized"). Both symmetric, by GPTQ on the user's own rows; embeddings, norms and the head
stay whole. Smoothing the inputs of int8 layers first (SmoothQuant) took the KL of the embedded
model from 0.00034 to 0.00028 and left its choices as they were, so it is not done.

Written as vLLM's reader expects it (weight_packed int32 [O, I/8], weight_shape int64
[2], weight_scale [O, G]; int8 weight [O, I] with weight_scale [O, 1]), and read back with
transformers in the tests; vLLM itself has not been run on it. Its kernels want widths that are
multiples of 128 (4 bits) or 16 (8 bits), which the models that people use have.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.nn import Linear

from weitiao.errors import ModelError, RunError
from weitiao.export.calibration import Layers, find_blocks, linear_layers, through_blocks
from weitiao.export.gptq import Rounded, gptq, nearest, output_error, pack_int4, scales
from weitiao.models.load import find_model, load_model, read_config

GROUPS = (128, 64, 32)
"""Inputs that share a scale in 4 bits: the first that divides all widths that 32 divides."""

_COPIED = {".json", ".txt", ".jinja", ".model", ".tiktoken", ".py"}
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer lost: the squared error of its outputs on the rows, as a share of them."""

    name: str
    error: float
    nearest: float
    """The same, had each weight been rounded to nearest."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What was written."""

    bits: Literal[4, 8]
    group: int | None
    """Inputs that share a scale; None: all inputs of an output do (8 bits)."""
    layers: tuple[Layer, ...]
    kept: tuple[str, ...]
    """Linear layers that stay whole: the head, and widths that no group divides."""
    bytes: int
    """Of the safetensors files."""


def require_compressed_tensors() -> None:
    """Raise where the package is missing with which transformers reads what is written here.

    Raises:
        ModelError: it is not installed.
    """
    if find_spec("compressed_tensors") is None:
        raise ModelError("error.compressed_missing")


@torch.no_grad()
def quantise(
    merged: Path,
    out: Path,
    bits: Literal[4, 8],
    samples: Sequence[Sequence[int]],
    tell: Callable[[int, int], None],
) -> Quantised:
    """Write the model folder ``merged`` into ``out`` in ``bits`` bits, calibrated on ``samples``.

    ``out`` is a new folder that the caller publishes when all is well. ``samples`` are the token
    ids of rows as the model was trained on them, one or more; ``tell(done, total)`` is called
    after each block. Measured for 87 M parameters (768 wide, 10 blocks) and 128 rows of 256
    tokens: 220 s of one core and 1.2 GB, 0.4 of it the libraries; both grow with the tokens.

    Raises:
        ModelError: a package is missing, the model cannot be read, has blocks of an unknown
            kind, or gives values that are not numbers.
        RunError: a file of weights cannot be written.
    """
    # Without it the parity gate could not read what is written: better told now than then.
    require_compressed_tensors()
    source = find_model(str(merged))
    stored = getattr(torch, read_config(source).get("dtype") or "float32")
    model = load_model(source, stored, torch.device("cpu"))
    blocks = find_blocks(model, source.name)
    layers = {n: m for name, block in blocks for n, m in linear_layers(name, block).items()}
    _require_stored(merged, layers, source.name)
    group = _group([m.in_features for m in layers.values()], source.name) if bits == 4 else None
    # A GPU computes in 16 bits; wider scales would be rounded by the reader, away from ours.
    dtype = torch.float16 if stored == torch.float16 else torch.bfloat16
    names = [n for n, m in model.named_modules() if isinstance(m, Linear)]
    rounded: dict[str, Rounded] = {}
    told: list[Layer] = []
    for done, (inside, hessians) in enumerate(through_blocks(model, blocks, samples), start=1):
        for name, hessian_II in hessians.items():
            if group is None or len(hessian_II) % group == 0:
                rounded[name], layer = _round(name, inside[name], hessian_II, group, bits, dtype)
                told.append(layer)
        tell(done, len(blocks))
    kept = tuple(name for name in names if name not in rounded)
    out.mkdir(parents=True, exist_ok=True)
    size = _write_weights(merged, out, rounded, bits, dtype)
    _write_rest(merged, out, dtype, _reader_config(bits, group, kept))
    return Quantised(bits, group, tuple(told), kept, size)


def _require_stored(merged: Path, layers: Layers, model: str) -> None:
    """Raise where the files know a layer's weight by another name than the model."""
    names = set()
    for file in merged.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())
    if not all(f"{layer}.weight" in names for layer in layers):
        raise ModelError("error.compressed_blocks", model=model)


def _group(widths: Sequence[int], model: str) -> int:
    """Return how many inputs share a scale: one number for all layers, as readers do best."""
    fitting = [width for width in widths if width % GROUPS[-1] == 0]
    if not fitting:
        raise ModelError("error.compressed_width", model=model, width=max(widths))
    return next(group for group in GROUPS if all(width % group == 0 for width in fitting))


def _round(
    name: str,
    linear: Linear,
    hessian_II: torch.Tensor,
    group: int | None,
    bits: int,
    dtype: torch.dtype,
) -> tuple[Rounded, Layer]:
    """Round a layer's weight, put what a reader will make of it in its place, and tell the loss."""
    if not hessian_II.isfinite().all():
        raise ModelError("error.compressed_not_finite", layer=name)
    weight_OI = linear.weight.clone()
    groups = len(hessian_II) // group if group else 1
    scale_OG = scales(weight_OI, groups, bits, dtype)
    found = gptq(weight_OI, hessian_II, scale_OG, bits)
    linear.weight.copy_(found.weight())
    plain = nearest(weight_OI, scale_OG, bits)
    errors = (output_error(weight_OI, r, hessian_II) for r in (found, plain))
    return found, Layer(name, *errors)


def _write_weights(
    merged: Path, folder: Path, rounded: dict[str, Rounded], bits: int, dtype: torch.dtype
) -> int:
    """Write each of the model's files anew, under its own name; return their bytes."""
    places: dict[str, str] = {}
    size = 0
    for file in sorted(merged.glob("*.safetensors")):
        written: dict[str, torch.Tensor] = {}
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - it is no dictionary
                layer = key.removesuffix(".weight")
                if layer in rounded:
                    written |= _tensors(layer, rounded.pop(layer), bits)
                else:
                    value = tensors.get_tensor(key)
                    written[key] = value.to(dtype) if value.is_floating_point() else value
        try:
            save_file(written, folder / file.name, metadata={"format": "pt"})
        except SafetensorError as error:
            raise RunError("error.cannot_write", path=folder / file.name, cause=error) from error
        places |= dict.fromkeys(written, file.name)
        size += sum(value.nbytes for value in written.values())
    if (merged / _INDEX).is_file():
        index = {"metadata": {"total_size": size}, "weight_map": places}
        _write_json(folder / _INDEX, index)
    return size


def _tensors(layer: str, rounded: Rounded, bits: int) -> dict[str, torch.Tensor]:
    """Return what is stored for one layer, by its name in the file."""
    scale = {f"{layer}.weight_scale": rounded.scale_OG.contiguous()}
    if bits == 8:
        return {f"{layer}.weight": rounded.q_OI, **scale}
    return {
        f"{layer}.weight_packed": pack_int4(rounded.q_OI),
        f"{layer}.weight_shape": torch.tensor(rounded.q_OI.shape),
        **scale,
    }


def _reader_config(bits: int, group: int | None, kept: Sequence[str]) -> dict[str, Any]:
    """Return what a reader is told. Only keys that all versions know: they refuse others."""
    numbers = {"num_bits": bits, "type": "int", "symmetric": True}
    of_groups = {"strategy": "group", "group_size": group}
    of_outputs = {"strategy": "channel"}
    weights = numbers | (of_groups if group else of_outputs) | {"dynamic": False}
    inputs = numbers | {"strategy": "token", "dynamic": True}
    scheme = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": inputs if bits == 8 else None,
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if bits == 8 else "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": list(kept),
    }


def _write_rest(merged: Path, folder: Path, dtype: torch.dtype, config: dict[str, Any]) -> None:
    """Write the configuration, and copy the tokenizer, the template and the like."""
    whole = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    whole |= {"dtype": str(dtype).removeprefix("torch."), "quantization_config": config}
    whole.pop("torch_dtype", None)
    _write_json(folder / "config.json", whole)
    for file in merged.iterdir():
        if file.suffix in _COPIED and not (folder / file.name).exists() and file.is_file():
            shutil.copyfile(file, folder / file.name)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2)
    path.write_text(text + "\n", encoding="utf-8")

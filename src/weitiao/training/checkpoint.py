"""Enough to resume to the same bytes: trained parameters, optimizer moments, where we were.

Order and dropout are drawn from (seed, step), so no generator state is kept.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

STATE, TENSORS = "state.json", "tensors.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class Progress:
    """Where a training stands after ``step`` optimizer steps. Losses in nats a scored token."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    evaluations_without_gain: int = 0
    tokens: int = 0
    scored_tokens: int = 0
    seconds: float = 0.0
    micro_batch_tokens: int = 0
    stopped_early: bool = False


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return name → parameter of what the optimizer changes."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def write_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write a checkpoint into the new folder ``folder``."""
    tensors = {}
    for name, parameter in trained_parameters(model).items():
        tensors[f"parameter.{name}"] = parameter.detach().cpu().contiguous()
        moments = optimizer.state[parameter]
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = moments[moment].cpu().contiguous()
    save_file(tensors, folder / TENSORS)
    (folder / STATE).write_text(json.dumps(asdict(progress), indent=1), encoding="utf-8")


def read_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Put the checkpoint of ``folder`` into ``model`` and ``optimizer``; return the progress."""
    progress = Progress(**json.loads((folder / STATE).read_text(encoding="utf-8")))
    tensors = load_file(folder / TENSORS)
    for name, parameter in trained_parameters(model).items():
        with torch.no_grad():
            parameter.copy_(tensors[f"parameter.{name}"])
        optimizer.state[parameter] = {
            "step": torch.tensor(float(progress.step), device=parameter.device),
            **{
                moment: tensors[f"{moment}.{name}"].to(parameter.device).clone()
                for moment in _MOMENTS
            },
        }
    return progress

"""Enough to resume to the same bytes: what is trained, the optimizer's state, where we were.

Order and dropout are drawn from (seed, step), so no generator state is kept. Tensors are in
safetensors and all else in JSON: reading a checkpoint runs no code.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from xxhash import xxh3_64

from weitiao.errors import TrainingError
from weitiao.plan.plan import Plan
from weitiao.records.render import Sample
from weitiao.training.team import fill, whole

STATE, TENSORS = "state.json", "tensors.safetensors"

_CONSTANTS = ("qmap1", "qmap2")
"""bitsandbytes' table of the values that eight bits stand for: the same in every training."""

_FREE = frozenset(
    (
        # About the machine, or foretold.
        *("machine", "device", "strategy", "predicted", "fits", "reasons"),
        *("problems", "warnings", "remedies"),
        # Of no consequence for the steps, but for rounding at most.
        *("micro_batch_tokens", "gradient_checkpointing", "save_every", "keep_checkpoints"),
        *("trackers", "max_new_tokens", "eval_batch_size"),
        # Told by the rows, the steps and the weights.
        *("rows", "tokens_per_epoch", "scored_per_epoch", "longest_row", "max_tokens"),
        *("epochs", "steps_per_epoch", "warmup_ratio", "shape"),
    )
)
"""What of a plan may differ where a checkpoint is gone on with."""


@dataclass(slots=True)
class Progress:
    """Where a training stands after ``step`` optimizer steps. Losses in nats a scored token."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    evaluations_without_gain: int = 0
    tokens: int = 0
    executed_tokens: int = 0
    scored_tokens: int = 0
    seconds: float = 0.0
    micro_batch_tokens: int = 0
    stopped_early: bool = False


@dataclass(slots=True, eq=False)
class State:
    """All that changes from step to step; ``trained`` is what the optimizer changes, by name."""

    trained: dict[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """What a folder holds, or will hold: ``content`` is all but the tensors."""

    settings: dict[str, Any]
    content: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return name → parameter of what the optimizer changes."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def settings_of(
    plan: Plan, trained: dict[str, torch.nn.Parameter], **samples: Sequence[Sample]
) -> dict[str, Any]:
    """Return what decides a training's result: the plan's part in it, the rows, the weights.

    ``samples`` are told as their number and a hash of their tokens.
    """
    decisive = plan.model_dump(mode="json", exclude=set(_FREE))
    decisive["trained_weights"] = sum(p.numel() for p in trained.values())
    for name, rows in samples.items():
        told = xxh3_64()
        for row in rows:
            told.update(len(row.ids).to_bytes(8, "little"))
            told.update(row.ids.tobytes())
            told.update(row.scored.tobytes())
        decisive[f"{name}_rows"] = f"{len(rows)} ({told.hexdigest()[:8]})"
    return decisive


def checkpoint_of(state: State, settings: dict[str, Any], *, keep: bool = True) -> Checkpoint:
    """Return ``state`` as a checkpoint; all processes of a team must call, one will ``keep`` it."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}

    def put(name: str, value: torch.Tensor) -> None:
        gathered = whole(value.detach())
        if keep:
            tensors[name] = gathered.cpu().contiguous()

    for name, parameter in state.trained.items():
        put(f"parameter.{name}", parameter)
        for key, value in state.optimizer.state[parameter].items():
            if isinstance(value, torch.Tensor) and key not in _CONSTANTS:
                put(f"{key}.{name}", value)
            elif not isinstance(value, torch.Tensor):
                scalars.setdefault(name, {})[key] = value
    content = {
        "progress": asdict(state.progress),
        "optimizer": scalars,
        "scaler": state.scaler.state_dict(),
        "settings": settings,
    }
    return Checkpoint(settings, content, tensors)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` into the new folder ``folder``.

    Raises:
        OSError, SafetensorError: the disk is full, or the place cannot be written.
    """
    save_file(checkpoint.tensors, folder / TENSORS)
    (folder / STATE).write_text(json.dumps(checkpoint.content, indent=1), encoding="utf-8")


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Return what ``folder`` holds; None where a file is missing, cut short or damaged.

    Raises:
        TrainingError: it is whole, but cannot be opened, or is of another version's form.
    """
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (FileNotFoundError, ValueError, SafetensorError):
        return None
    except OSError as cause:
        why = cause.strerror or type(cause).__name__
        raise TrainingError("error.checkpoint_unreadable", path=folder, why=why) from cause
    try:
        Progress(**content["progress"])
        return Checkpoint(content["settings"], content, tensors)
    except (KeyError, TypeError) as cause:
        raise TrainingError("error.checkpoint_version", path=folder) from cause


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return ``key: then → now`` of the settings that differ."""
    keys = [*now, *(key for key in then if key not in now)]
    return [
        f"{key}: {then.get(key, '–')} → {now.get(key, '–')}"
        for key in keys
        if then.get(key) != now.get(key)
    ]


def restore(checkpoint: Checkpoint, state: State) -> None:
    """Put ``checkpoint`` into ``state``, whose optimizer holds its first state.

    The micro-batches stay as small as memory made them, or become what the plan says where
    that is less: the one setting that may be lowered between kill and resume.
    """
    content, asked = checkpoint.content, state.progress.micro_batch_tokens
    state.progress = Progress(**content["progress"])
    state.progress.micro_batch_tokens = min(asked, state.progress.micro_batch_tokens)
    state.scaler.load_state_dict(content["scaler"])
    for name, parameter in state.trained.items():
        fill(parameter, checkpoint.tensors[f"parameter.{name}"])
        held = state.optimizer.state[parameter]
        held.update(content["optimizer"].get(name, {}))
        for key, value in held.items():
            if isinstance(value, torch.Tensor) and key not in _CONSTANTS:
                fill(value, checkpoint.tensors[f"{key}.{name}"])

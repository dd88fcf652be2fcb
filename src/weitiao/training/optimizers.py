"""What turns gradients into steps; how it is told what to decay, and made to hold its state."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from weitiao.errors import TrainingError
from weitiao.plan.plan import Plan
from weitiao.plan.recipe import Optimizer

_BITSANDBYTES: dict[Optimizer, str] = {
    "adamw_8bit": "AdamW8bit",
    "paged_adamw": "PagedAdamW",
    "paged_adamw_8bit": "PagedAdamW8bit",
}
"""Dettmers et al. 2021, arXiv 2110.02861. Paged state moves to the computer's own memory where
the GPU's is short; on a CPU it is ordinary state."""


def make_optimizer(trained: Mapping[str, torch.nn.Parameter], plan: Plan) -> torch.optim.Optimizer:
    """Return the plan's optimizer over ``trained``; norms and biases are not decayed.

    Raises:
        TrainingError: it comes with bitsandbytes, and that is not installed.
    """
    # IA3's vectors have two dimensions, but multiply: drawn to zero they would shut units off.
    decayed = [p for p in trained.values() if p.ndim >= 2 and plan.method != "ia3"]
    chosen = {id(p) for p in decayed}
    groups = [
        {"params": decayed, "weight_decay": plan.weight_decay},
        {"params": [p for p in trained.values() if id(p) not in chosen], "weight_decay": 0.0},
    ]
    if plan.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        # PyTorch's multiplies the rate by each tensor's size and cuts it at 1/sqrt(step), so
        # that LoRA's B, which begins at zero, would never get away from there.
        return Adafactor(groups, lr=plan.learning_rate, relative_step=False, scale_parameter=False)
    # Pretraining's gradients change fast: a shorter memory of their squares is the custom.
    betas = (0.9, 0.95) if plan.objective == "pretrain" else (0.9, 0.999)
    if plan.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=betas, fused=True)
    try:
        import bitsandbytes
    except ImportError as cause:
        raise TrainingError("error.optimizer_missing", optimizer=plan.optimizer) from cause
    kind = getattr(bitsandbytes.optim, _BITSANDBYTES[plan.optimizer])
    made: torch.optim.Optimizer = kind(groups, lr=plan.learning_rate, betas=betas)
    return made


def allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Let ``optimizer`` make its state as it is before the first step; no weight changes.

    Every optimizer does so in its first step, with shapes, types and pages of its own. One
    with gradients of zero at a rate of zero does nothing else. Afterwards memory is as full
    as it will be, and a checkpoint's values have a place to go to.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for state in optimizer.state.values():
        state["step"] = _zero(state["step"])


def _zero(step: Any) -> Any:
    return torch.zeros_like(step) if isinstance(step, torch.Tensor) else 0

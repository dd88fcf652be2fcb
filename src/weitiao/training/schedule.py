"""The learning rate of each step."""

import math
from collections.abc import Callable

from weitiao.plan.plan import Plan
from weitiao.plan.recipe import Schedule

_LEFT: dict[Schedule, Callable[[float], float]] = {
    # A half cosine (Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts).
    "cosine": lambda through: 0.5 * (1 + math.cos(math.pi * through)),
    "linear": lambda through: 1 - through,
    "constant": lambda through: 1.0,
}
"""The share of the highest rate that is left, ``through`` of the way from warm-up to end."""


def learning_rate(plan: Plan, step: int) -> float:
    """Return the rate of optimizer step ``step`` (from 0): linear warm-up, then the schedule."""
    warm = plan.warmup_steps
    if step < warm:
        return plan.learning_rate * (step + 1) / (warm + 1)
    through = (step - warm) / max(1, plan.steps - warm)
    return plan.learning_rate * _LEFT[plan.schedule](through)

"""The learning rate of each step."""

import math


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Return the rate of step ``step`` (from 0): linear warm-up, then a half cosine to 0.

    Source: Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    through = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * through))

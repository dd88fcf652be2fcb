"""What decides a run's costs, in memory and in time."""

from collections.abc import Sequence
from dataclasses import dataclass

from weitiao.plan.recipe import (
    Checkpointing,
    Device,
    Method,
    Optimizer,
    Precision,
    Quantization,
)

BYTES: dict[Precision, int] = {"bf16": 2, "fp16": 2, "fp32": 4}

REPEATED: dict[Checkpointing, float] = {"off": 0.0, "selective": 0.5, "full": 1.0}
"""The share of the layers whose forward pass checkpointing repeats."""


@dataclass(frozen=True, slots=True)
class Job:
    """Settings of a training, as its costs see them.

    ``tokens`` and ``scored`` are those of the largest micro-batch that will be run, and
    ``accumulates`` says whether a step has several. ``share``: of weights and optimizer state
    that each process holds. ``process_bytes``: what it held before, 0 where not known.
    ``kept_share``: what a layer keeps for the backward pass, over what its shape says.
    ``forks``: processes on one CPU that share the frozen weights; the tokens are those of each.
    """

    device: Device
    method: Method
    precision: Precision
    checkpointing: Checkpointing
    rank: int
    targets: str | Sequence[str]
    tokens: int
    scored: int
    quantization: Quantization = "none"
    optimizer: Optimizer = "adamw"
    dropout: bool = False
    dora: bool = False
    prefix_tokens: int = 0
    accumulates: bool = False
    share: float = 1.0
    process_bytes: int = 0
    kept_share: float = 1.0
    forks: int = 1

    @property
    def adapted(self) -> bool:
        """Whether low-rank factors are trained."""
        return self.method in ("lora", "qlora")

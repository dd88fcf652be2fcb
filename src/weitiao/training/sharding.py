"""A model spread out over the processes of a team by FSDP2.

What is spread out is the whole micro-step, not the model alone: the loss reads the head's
weight without calling the head. Each decoder layer is one part, gathered when it is computed.
"""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

Given = ParamSpec("Given")
Found = TypeVar("Found")


class MicroStep(torch.nn.Module):
    """All that is computed of a micro-batch with the weights of ``model``."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        compute: Callable[Concatenate[Any, Given], Found],
        *given: Given.args,
        **options: Given.kwargs,
    ) -> Found:
        """Return ``compute(model, ...)``."""
        return compute(self.model, *given, **options)

    def put_back(self) -> None:
        """Let go of what other processes hold; all must call after a pass without gradients.

        The backward pass would have done so. Saving would too, but in the leader alone, and
        it would then ask for parts that the others think are there.
        """
        if isinstance(self, FSDPModule):
            self.reshard()


def shard(unit: MicroStep, device: torch.device, size: int, precision: torch.dtype) -> None:
    """Spread the weights of ``unit`` over ``size`` processes, onto ``device``.

    An adapter stays whole in each of them: it is small beside its base, and trained, saved
    and restored as it is by one process. Where all weights are trained, they are gathered in
    ``precision`` and their gradients added in fp32; autocast alone would keep its own copy of
    every layer from the forward to the backward pass.
    """
    trained = {p for p in unit.parameters() if p.requires_grad}
    whole_model = len(trained) == len(set(unit.parameters()))
    if not whole_model:
        for parameter in trained:
            parameter.data = parameter.data.to(device)
    changed: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (size,)),
        "ignored_params": set() if whole_model else trained,
        "mp_policy": MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
        if whole_model
        else MixedPrecisionPolicy(),
    }
    for layer in [m for m in unit.modules() if isinstance(m, GradientCheckpointingLayer)]:
        fully_shard(layer, **changed)
    fully_shard(unit, **changed)
    for part in unit.modules():
        if isinstance(part, FSDPModule):
            # The loss is divided by all scored tokens of the step: the sum is the gradient.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)

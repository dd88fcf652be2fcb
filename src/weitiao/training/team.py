"""Several processes on one training: which rows each takes, and how their sums become one.

torchrun, accelerate and weitiao itself start them (:mod:`weitiao.training.launch`); one process
is a team of one. In a team that replicates the model (ddp), gradients are added once, after a
step's last micro-batch: until then no process waits for another, so that a step which memory
was too short for in one of them is repeated by all. ``DistributedDataParallel`` adds the same
numbers in the midst of the last backward pass, where the others could only hang.
"""

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, distribute_tensor

from weitiao.errors import TrainingError
from weitiao.plan.plan import Plan
from weitiao.plan.recipe import Strategy
from weitiao.plan.shape import ModelShape

Value = TypeVar("Value")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others: one may be writing a large model meanwhile."""

_BUCKET = 1 << 24
"""Numbers that are added in one message: enough to fill a link, little beside a model."""


@dataclass(frozen=True, slots=True)
class Team:
    """This process's place among ``size``; ``rank`` 0 leads: it alone writes and tells.

    ``forked``: the processes hold the same memory but for what they have changed since one was
    made from the other; ``born_bytes``: what this one was given so.
    """

    rank: int = 0
    size: int = 1
    strategy: Strategy = "ddp"
    forked: bool = False
    born_bytes: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes the files of all."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether the weights are spread out, so that every micro-batch needs all processes."""
        return self.size > 1 and self.strategy != "ddp"

    def gather(self, value: Value) -> list[Value]:
        """Return every process's ``value``, by rank; all must call."""
        if self.size == 1:
            return [value]
        found: list[Value] = [value] * self.size
        dist.all_gather_object(found, value)
        return found

    def least(self, value: int) -> int:
        """Return the smallest of all processes' ``value``; all must call."""
        if self.size == 1:
            return value
        least = torch.tensor(int(value))
        dist.all_reduce(least, dist.ReduceOp.MIN)
        return int(least)

    def together(self, held: Sequence[int]) -> int:
        """Return what the processes hold: all forks together, else the one that holds most."""
        return sum(held) if self.forked else max(held)

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.least(0)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add the processes' gradients of ``parameters`` in place; all must call.

        A process without rows adds zeros. What is sharded has been added already.
        """
        if self.size == 1:
            return
        bucket: list[torch.Tensor] = []
        for parameter in parameters:
            if isinstance(parameter, DTensor):
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if bucket and (
                bucket[0].dtype != parameter.grad.dtype
                or sum(grad.numel() for grad in bucket) + parameter.grad.numel() > _BUCKET
            ):
                _add_up(bucket)
                bucket = []
            bucket.append(parameter.grad)
        if bucket:
            _add_up(bucket)


ALONE = Team()


def _add_up(tensors: Sequence[torch.Tensor]) -> None:
    together = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(together)
    sums = together.split([tensor.numel() for tensor in tensors])
    for tensor, total in zip(tensors, sums, strict=True):
        tensor.copy_(total.view_as(tensor))


@contextmanager
def join(plan: Plan) -> Iterator[Team]:
    """Take this process's place in the team that it was started for; alone if for none.

    Raises:
        TrainingError: not as many processes were started as planned, or there are fewer GPUs
            than processes on this computer.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if plan.processes != size:
        raise TrainingError("error.team_size", planned=plan.processes, started=size)
    team = Team(int(os.environ["RANK"]), size, "ddp" if plan.strategy == "auto" else plan.strategy)
    backend = "gloo"
    if plan.device == "cuda":
        place, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= there:
            raise TrainingError("error.team_gpus", processes=place + 1, gpus=there)
        torch.cuda.set_device(place)
        # What the processes tell each other besides gradients never waits for a GPU.
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    yield team
    # Not after an error: processes that are in the midst of something would wait for it.
    dist.destroy_process_group()


def allot(costs: Sequence[float], parts: int) -> list[list[int]]:
    """Deal the numbers of ``costs`` out to ``parts``, so that the dearest part costs little.

    The dearest first, each to the part that has least so far: at most 4/3 - 1/(3 parts) of
    the best possible (Graham 1969, SIAM J. Appl. Math. 17). Numbers keep their order.
    """
    dealt: list[list[int]] = [[] for _ in range(parts)]
    least = [(0.0, part) for part in range(parts)]
    for number in sorted(range(len(costs)), key=lambda i: -costs[i]):
        held, part = heapq.heappop(least)
        dealt[part].append(number)
        heapq.heappush(least, (held + costs[number], part))
    return [sorted(numbers) for numbers in dealt]


def row_cost(shape: ModelShape, tokens: int, scored: int) -> float:
    """Return what a row costs: multiplications of its forward pass.

    Linear layers N a token, the head a scored token, attention Q L² a layer (causal: half of
    the scores, half of the sums). The backward pass is in proportion.
    """
    attention = float(shape.layers) * shape.query_size * tokens**2
    return float(shape.linear_params) * tokens + float(shape.head_params) * scored + attention


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor`` with the parts that other processes hold; all must call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Put ``value``, which is whole, into ``tensor``, of which this process may hold a part."""
    if isinstance(tensor, DTensor):
        here = value.to(tensor.device)
        # Every process has read the same file: nothing needs to be sent.
        value = distribute_tensor(here, tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(value)

"""The decoder's two passes over a short micro-batch as CUDA graphs.

A step of 16 rows of 150 tokens takes a big GPU 25 ms, and Python 60 ms to ask for it; a graph
is asked for in one call. It is made for sizes, not for rows: micro-batches are filled up to the
next of a few sizes with tokens that form a segment of their own, which nothing sees and whose
gradient is zero. Head and loss stay outside, since the number of scored tokens varies freely.
Shapes: T tokens, filled up; U gathered keys, filled up; D hidden width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from weitiao.models.adapters import transformers_model
from weitiao.models.flat import Flat, hidden_states
from weitiao.models.segments import Attending
from weitiao.models.varlen import Gathered, gathering, sent
from weitiao.plan.plan import Plan
from weitiao.records.prefixes import Segment

MOST_TOKENS = 8192
"""Above it a GPU takes longer than Python, and the graph's memory would be missed."""

FEWEST_STEPS = 100
"""Each size costs about a second to record and check, which a short training never earns back."""

TOLERANCE = 0.05
"""How far bf16 results may be from those without a graph: sizes differ, and so does rounding."""

Run = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Size:
    """What a graph is made for. ``longest``: bounds the queries and the keys of a segment."""

    tokens: int
    gathered: int
    segments: int
    longest: int


def filled(segments: Sequence[Segment]) -> tuple[Size, list[npt.NDArray[np.integer]]]:
    """Return the size that ``segments`` are filled up to, and the arrays of their gathering."""
    tokens = segments[-1].stop
    size = _up(tokens + 1, max(256, _power(tokens) // 16))
    # One more segment, of all the tokens that fill up; it sees itself only.
    more = [*segments, Segment(tokens, size, size)]
    lengths, places = [s.stop - s.start for s in more], Attending(more).key_places
    gathered = sum(map(len, places))
    if gathered > size:
        extra = np.full(_up(gathered, 512) - gathered, size - 1)
        # First: a causal mask hides later keys from earlier queries, never the first ones.
        places[-1] = np.concatenate([extra, places[-1]])
        gathered += len(extra)
    longest = max(1024, _power(max(map(len, places))))
    count = max(16, _power(len(more)))
    none = count - len(more)
    places += [np.empty(0, np.int64)] * none
    return Size(size, gathered, count, longest), gathering([*lengths, *[0] * none], places, size)


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _power(n: int) -> int:
    """Return the power of two from ``n`` on."""
    return 1 << (n - 1).bit_length()


@dataclass(slots=True, eq=False)
class _Graph:
    """One size: its inputs, its two passes, and where they leave and take their results."""

    flat: Flat
    inputs: tuple[torch.Tensor, ...]
    hidden_TD: torch.Tensor
    gradient_TD: torch.Tensor
    forward: Run
    backward: Run

    def load(self, flat: Flat, arrays: list[npt.NDArray[np.integer]]) -> None:
        """Put a micro-batch in; what fills it up may be any tokens, such as the last ones."""
        self.flat.ids_T[: flat.executed].copy_(flat.ids_T)
        self.flat.positions_T[: flat.executed].copy_(flat.positions_T)
        for kept, new in zip(self.inputs, sent(arrays, flat.ids_T.device), strict=True):
            kept.copy_(new)


class Graphs:
    """Hidden states of micro-batches by graphs that are recorded as their sizes occur.

    The first micro-batch of each size is computed without a graph too; where hidden states or
    gradients differ, or anything goes wrong, no graph is used any more, and ``tell`` is told
    why. Whether a micro-batch is computed by a graph depends on its size alone, so that a
    resumed run computes what the uninterrupted one does.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        precision: torch.dtype,
        most_tokens: int,
        record: Callable[[Run], Run],
        tell: Callable[[str], None],
    ) -> None:
        """Take how many tokens there is room for, and what makes a graph of a function."""
        self._model, self._precision = transformers_model(model), precision
        self._most_tokens, self._record, self._tell = most_tokens, record, tell
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._totals = [torch.zeros_like(p) for p in self._trained]
        # Autograd asks for the backward pass of what depends on something trained.
        self._anchor = torch.zeros((), device=self._model.device, requires_grad=True)
        self._made: dict[Size, _Graph] = {}
        self._failed = False

    @classmethod
    def of(
        cls, model: PreTrainedModel | PeftModel, plan: Plan, tell: Callable[[str], None]
    ) -> "Graphs | None":
        """Return graphs for the training of ``model`` where they are known to be sound."""
        inner = transformers_model(model)
        suits = (
            inner.device.type == "cuda"
            and torch.version.hip is None
            and not (torch.distributed.is_available() and torch.distributed.is_initialized())
            and plan.steps >= FEWEST_STEPS
            and (plan.method, plan.precision, plan.quantization) == ("lora", "bf16", "none")
            and plan.gradient_checkpointing == "off"
            and not (plan.lora_dropout or plan.lora_dora or plan.neftune_alpha)
            and not getattr(inner.config, "attention_dropout", 0)
        )
        most = _room(inner) if suits else 0
        return cls(model, torch.bfloat16, most, recorder(), tell) if most > 0 else None

    def __call__(self, flat: Flat) -> torch.Tensor | None:
        """Return the hidden states [T, D] of ``flat``; None where it takes no graph."""
        if self._failed or flat.executed > self._most_tokens:
            return None
        size, arrays = filled(flat.segments)
        if size not in self._made and not self._tried(size, flat, arrays):
            return None
        graph = self._made[size]
        graph.load(flat, arrays)
        hidden_TD: torch.Tensor = _Replay.apply(self._anchor, self, graph)  # type: ignore[no-untyped-call]
        return hidden_TD

    def _tried(self, size: Size, flat: Flat, arrays: list[npt.NDArray[np.integer]]) -> bool:
        try:
            graph = self._recorded(size, flat, arrays)
            why = "" if self._agrees(graph, flat) else "it computes something else"
        except Exception as cause:
            why = str(cause) or type(cause).__name__
        if why:
            self._failed = True
            self._made.clear()
            self._tell(why)
            return False
        self._made[size] = graph
        return True

    def _recorded(self, size: Size, flat: Flat, arrays: list[npt.NDArray[np.integer]]) -> _Graph:
        """Record both passes; gradients are added to the totals in the graph."""
        inputs = sent(arrays, flat.ids_T.device)
        ids_T, positions_T = (flat.ids_T.new_zeros(size.tokens) for _ in range(2))
        none = flat.ids_T[:0]
        alone = size.gathered == size.tokens
        gathered = Gathered(inputs, size.longest, size.longest, alone=alone)
        attending = Attending(flat.segments, gathered=gathered)
        given = Flat(ids_T, positions_T, flat.segments, none, none, none, 0, 0)

        def forward() -> None:
            graph.hidden_TD = hidden_states(self._model, given, attending, self._precision)

        def backward() -> None:
            found = torch.autograd.grad(graph.hidden_TD, self._trained, graph.gradient_TD)
            torch._foreach_add_(self._totals, found)
            graph.hidden_TD = graph.hidden_TD.detach()

        graph = _Graph(given, inputs, ids_T, ids_T, forward, backward)
        graph.load(flat, arrays)
        # Once beforehand, for all that is only set up when it is first used.
        forward()
        graph.gradient_TD = torch.zeros_like(graph.hidden_TD)
        backward()
        graph.forward = self._record(forward)
        graph.backward = self._record(backward)
        return graph

    def _agrees(self, graph: _Graph, flat: Flat) -> bool:
        """Return whether hidden states, and gradients of any direction, are what they should."""
        tokens, before = flat.executed, [x.clone() for x in self._totals]
        ramp = torch.arange(graph.gradient_TD.numel(), device=flat.ids_T.device)
        graph.gradient_TD.copy_(ramp.mul(12.9898).sin().view_as(graph.gradient_TD))
        graph.gradient_TD[tokens:].zero_()
        try:
            torch._foreach_zero_(self._totals)
            graph.forward()
            hidden_TD = graph.hidden_TD[:tokens].detach().clone()
            graph.backward()
            found = [x.clone() for x in self._totals]
        finally:
            torch._foreach_copy_(self._totals, before)
        expected = hidden_states(self._model, flat, Attending(flat.segments), self._precision)
        direction = graph.gradient_TD[:tokens]
        gradients = torch.autograd.grad(expected, self._trained, direction)
        return _close([hidden_TD], [expected.detach()]) and _close(found, gradients)

    def collect(self) -> None:
        """Make the totals the gradients, with what is in these already."""
        if self._trained[0].grad is self._totals[0]:
            return
        torch._foreach_zero_(self._totals)
        for parameter, total in zip(self._trained, self._totals, strict=True):
            if parameter.grad is not None:
                total.copy_(parameter.grad)
            parameter.grad = total


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: torch.Tensor, graphs: Graphs, graph: _Graph) -> torch.Tensor:
        ctx.graphs, ctx.graph = graphs, graph
        graph.forward()
        return graph.hidden_TD.detach()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        ctx.graph.gradient_TD.copy_(grads[0])
        ctx.graphs.collect()
        ctx.graph.backward()
        return None, None, None


def _close(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    wide = [x.float() for x in expected]
    far = torch.stack([(a.float() - b).norm() for a, b in zip(found, wide, strict=True)]).norm()
    return bool(far <= TOLERANCE * torch.stack([x.norm() for x in wide]).norm())


def _room(model: PreTrainedModel) -> int:
    """Return the tokens whose activations fit three times beside the model, in multiples of 256.

    Once for the graphs, once for micro-batches without, and once to spare. Two bytes each:
    of a layer about eight tensors of the hidden width are kept and three of the MLP's.
    """
    config: Any = model.config
    width = 8 * config.hidden_size + 3 * getattr(config, "intermediate_size", 0)
    index = model.device.index or 0
    memory = torch.cuda.get_device_properties(index).total_memory
    memory = int(0.8 * memory * torch.cuda.get_per_process_memory_fraction(index))
    free = memory - torch.cuda.memory_allocated(index)
    room: int = free // (3 * 2 * config.num_hidden_layers * width)
    return min(MOST_TOKENS, room // 256 * 256)


def recorder() -> Callable[[Run], Run]:
    """Return what makes a CUDA graph of a function; all of them share their memory."""
    pool = torch.cuda.graph_pool_handle()

    def record(run: Run) -> Run:
        graph = torch.cuda.CUDAGraph()
        # Where recording fails, its stream would stay the current one.
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, pool=pool):
            run()
        return graph.replay

    return record

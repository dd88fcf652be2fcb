"""Go through a model block by block, with what real rows put into each of its linear layers.

Shapes: L tokens of one row, D hidden width, I inputs of a layer.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn import Linear, Module, ModuleList
from transformers import PreTrainedModel

from weitiao.errors import ModelError

LONGEST = 2048
"""Tokens of a row that are used: as many as GPTQ's own calibration rows have."""

Layers = dict[str, Linear]
"""Linear layers by their full name in the model."""


def find_blocks(model: PreTrainedModel, name: str) -> list[tuple[str, Module]]:
    """Return the decoder blocks with their full names.

    Raises:
        ModelError: they cannot be found, or most of their weights are not in linear layers, as
            with experts that share one tensor.
    """
    depth = model.config.get_text_config().num_hidden_layers
    for path, modules in model.named_modules():
        if not isinstance(modules, ModuleList) or len(modules) != depth:
            continue
        linear = sum(m.weight.numel() for m in modules.modules() if isinstance(m, Linear))
        if linear > sum(p.numel() for p in modules.parameters()) / 2:
            return [(f"{path}.{i}", block) for i, block in enumerate(modules)]
    raise ModelError("error.compressed_blocks", model=name)


def linear_layers(prefix: str, module: Module) -> Layers:
    """Return the linear layers within ``module``, whose full name is ``prefix``."""
    return {f"{prefix}.{n}": m for n, m in module.named_modules() if isinstance(m, Linear)}


@torch.no_grad()
def through_blocks(
    model: PreTrainedModel,
    blocks: Sequence[tuple[str, Module]],
    samples: Sequence[Sequence[int]],
) -> Iterator[tuple[Layers, dict[str, torch.Tensor]]]:
    """Yield each block's linear layers, and for each the mean of x xᵀ [I, I] over all tokens.

    Layers of one input share one tensor. The block is in fp32 while it is out; what the caller
    changes in its weights goes into the next blocks' inputs. Afterwards its weights are gone:
    the memory is that of the model, of one block in fp32 and of the rows' hidden states.
    """
    states, told = _first_inputs(model, [block for _, block in blocks], samples)
    for (name, block), told_here in zip(blocks, told, strict=True):
        block.float()
        layers = linear_layers(name, block)
        yield layers, _hessians(block, layers, states, told_here)
        states = [block(x, **kwargs) for x, kwargs in zip(states, told_here, strict=True)]
        block.to("meta")


def _first_inputs(
    model: PreTrainedModel, blocks: Sequence[Module], samples: Sequence[Sequence[int]]
) -> tuple[list[torch.Tensor], list[list[dict[str, Any]]]]:
    """Return each row's hidden states [1, L, D] before the blocks, and what blocks are told.

    The model's own forward makes the masks and positions; its blocks do nothing meanwhile.
    What is told is by block, then by row.
    """
    told: list[list[dict[str, Any]]] = [[] for _ in blocks]
    states = []

    def listener(heard: list[dict[str, Any]]) -> Callable[..., torch.Tensor]:
        def pass_on(hidden_1LD: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            heard.append(kwargs)
            return hidden_1LD

        return pass_on

    for block, heard in zip(blocks, told, strict=True):
        block.forward = listener(heard)
    for sample in samples:
        # In fp32 from the first on, and with it the positions' sines and the masks.
        states.append(model.get_input_embeddings()(torch.tensor([sample[:LONGEST]])).float())
        model.base_model(inputs_embeds=states[-1], use_cache=False)
    for block in blocks:
        del block.forward
    return states, told


def _hessians(
    block: Module,
    layers: Layers,
    states: Sequence[torch.Tensor],
    told: Sequence[dict[str, Any]],
) -> dict[str, torch.Tensor]:
    """Return the mean of x xᵀ over the tokens of all rows, for the input x of each layer."""
    inputs: dict[str, torch.Tensor] = {}
    sums: dict[str, torch.Tensor] = {}

    def keeper(name: str) -> Callable[[Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, args: inputs.update({name: args[0]})

    hooks = [m.register_forward_pre_hook(keeper(name)) for name, m in layers.items()]
    for hidden_1LD, kwargs in zip(states, told, strict=True):
        block(hidden_1LD, **kwargs)
        shared: dict[int, torch.Tensor] = {}
        for name, x in inputs.items():
            if id(x) not in shared:
                x_LI = x.flatten(0, -2)
                total_II = sums.setdefault(name, x_LI.new_zeros(x_LI.shape[1], x_LI.shape[1]))
                shared[id(x)] = total_II.addmm_(x_LI.T, x_LI)
            sums[name] = shared[id(x)]
    for hook in hooks:
        hook.remove()
    tokens = sum(hidden_1LD.shape[1] for hidden_1LD in states)
    for total_II in {id(total): total for total in sums.values()}.values():
        total_II /= tokens
    return sums

"""What a layer of any architecture keeps for its backward pass, told without computing it.

The arithmetic of :mod:`weitiao.plan.memory` is exact for the architectures that the engine
computes lean. Of others PyTorch itself tells: two layers of the real widths are run on tensors
that have shapes and no numbers, and what autograd holds on to is counted.
"""

import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM

from weitiao.models.adapters import add_adapter, transformers_model
from weitiao.models.flat import autocast, fast_path, virtual_prompt
from weitiao.models.load import TYPES as TYPES
from weitiao.models.load import ModelSource
from weitiao.models.segments import Attending
from weitiao.plan.memory import layer_token_bytes
from weitiao.plan.plan import Plan
from weitiao.plan.settle import job_of
from weitiao.records.prefixes import Segment

_TOKENS = 64


class _Held:
    """A tensor that something in the graph of the backward pass holds on to."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


def kept_share(source: ModelSource, plan: Plan) -> float:
    """Return what a layer keeps of a token, over what the arithmetic says of its shape.

    A quantised base is counted as a whole one: it keeps the same activations.
    """
    job = job_of(vars(plan))
    whole = plan.model_copy(update={"method": "lora"}) if plan.method == "qlora" else plan

    def layer(tokens: int) -> int:
        return _kept(source, whole, 2, tokens) - _kept(source, whole, 1, tokens)

    # What does not grow with the tokens, such as cast weights, is no activation.
    each = (layer(2 * _TOKENS) - layer(_TOKENS)) / _TOKENS
    return each / layer_token_bytes(plan.shape, job)


def _kept(source: ModelSource, plan: Plan, layers: int, tokens: int) -> int:
    """Return the bytes that autograd holds after ``layers`` layers have seen one row."""
    model = _without_numbers(source, plan, layers)
    weights = {id(p) for p in model.parameters()}
    held: weakref.WeakSet[_Held] = weakref.WeakSet()

    def keep(x: torch.Tensor) -> Any:
        if id(x) not in weights and not isinstance(x, torch.nn.Parameter):
            held.add(one := _Held(x))
            return one
        return x

    def give(one: Any) -> torch.Tensor:
        return one.x if isinstance(one, _Held) else one

    inner, dtype = transformers_model(model), TYPES[plan.precision]
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        fast_path(model),
        autocast(torch.device("cpu"), dtype),
        torch.autograd.graph.saved_tensors_hooks(keep, give),
    ):
        attending = Attending([Segment(0, tokens, tokens)], virtual_prompt(model))
        embedded = inner.get_input_embeddings()(torch.zeros(1, tokens, dtype=torch.long))
        positions = torch.arange(tokens)[None] + attending.virtual
        out = inner.get_decoder()(
            inputs_embeds=embedded, position_ids=positions, use_cache=False, attending=attending
        )
        storages = {one.x.untyped_storage()._cdata: one.x.untyped_storage() for one in held}
        found = sum(storage.nbytes() for storage in storages.values())
    del out
    return found


def shortened(source: ModelSource, layers: int) -> Any:
    """Return the model's configuration with its first ``layers`` layers only."""
    config = AutoConfig.from_pretrained(source.location, **source.options)
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    return config


def _without_numbers(source: ModelSource, plan: Plan, layers: int) -> Any:
    """Return the adapted model of ``layers`` layers whose weights have shapes only."""
    config = shortened(source, layers)
    dtype = torch.float32 if plan.method == "full" else TYPES[plan.precision]
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model: Any = base if plan.method == "full" else add_adapter(base, plan)
    with FakeTensorMode():
        for module in model.modules():
            for name, x in list(module._parameters.items()):
                if x is not None:
                    fake = torch.empty(x.shape, dtype=x.dtype)
                    module._parameters[name] = torch.nn.Parameter(fake, x.requires_grad)
            for name, x in list(module._buffers.items()):
                if x is not None:
                    module._buffers[name] = torch.empty(x.shape, dtype=x.dtype)
    return model.train()

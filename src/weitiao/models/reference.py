"""The plain way to compute what :mod:`weitiao.models.flat` computes fast: one row at a time.

Slow and obvious on purpose: the model's own forward, its own head on every token, and
PyTorch's own loss. Tests hold the fast path to it.
"""

import torch
from transformers import PreTrainedModel

from weitiao.records.render import Sample


def reference_loss(model: PreTrainedModel, sample: Sample) -> torch.Tensor:
    """Return the sum of -log p (nats) over the sample's scored tokens; differentiable."""
    ids_1L = torch.from_numpy(sample.ids).long()[None].to(model.device)
    target_L = ids_1L[0].masked_fill(~torch.from_numpy(sample.scored).to(model.device), -100)
    logits_LV = model(input_ids=ids_1L, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(
        logits_LV[:-1].float(), target_L[1:], ignore_index=-100, reduction="sum"
    )

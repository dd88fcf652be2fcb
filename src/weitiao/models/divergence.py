"""How differently two models go on after the same words, token by token.

Shapes: S scored tokens, of which n at a time; D hidden width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from weitiao.models.adapters import transformers_model
from weitiao.models.flat import Flat, flatten, hidden_states, virtual_prompt
from weitiao.models.pair import Voice
from weitiao.models.segments import Attending
from weitiao.records.packing import pack
from weitiao.records.render import Sample

LOGITS_AT_ONCE = 1 << 23
"""Logits of each model held at once, in fp32: 32 MB, whatever the vocabulary."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Sums over the ``tokens`` scored tokens of one sample, in nats.

    ``base_loss`` and ``tuned_loss``: -log p of the sample's own tokens; ``kl``: Σ_V p_base
    (log p_base - log p_tuned); ``agreed``: tokens for which both hold the same one likeliest.
    """

    tokens: int
    base_loss: float
    tuned_loss: float
    kl: float
    agreed: int


@torch.no_grad()
def divergences(
    base: Voice, tuned: Voice, samples: Sequence[Sample], budget: int = 4096
) -> list[Divergence]:
    """Compare two models of one vocabulary on ``samples``, in their order.

    At most ``budget`` tokens go through a model at once. The head's logits are fp32, as in
    :func:`~weitiao.models.flat.answer_losses`, and never held for more than a chunk of tokens.
    """
    heads = [_head(voice) for voice in (base, tuned)]
    found = [Divergence(0, 0.0, 0.0, 0.0, 0)] * len(samples)
    for group in pack([len(s.ids) for s in samples], budget):
        flat = flatten([samples[i] for i in group]).to(heads[0].device)
        hidden = [_scored_hidden(voice, flat) for voice in (base, tuned)]
        parts_S4 = _compare(hidden, heads, flat.target_S)
        # In float64, so that a row's sum does not depend on what else is in its batch.
        sums = torch.zeros(flat.rows, 4, dtype=torch.float64)
        sums.index_add_(0, flat.row_S.cpu(), parts_S4.double().cpu())
        for i, (base_loss, tuned_loss, kl, agreed) in zip(group, sums.tolist(), strict=True):
            tokens = int(samples[i].scored.sum())
            found[i] = Divergence(tokens, base_loss, tuned_loss, kl, int(agreed))
    return found


def _head(voice: Voice) -> torch.Tensor:
    """Return the head's weight [V, D] in fp32."""
    weight = transformers_model(voice.model).get_output_embeddings().weight
    return weight.float()  # type: ignore[no-any-return]


def _scored_hidden(voice: Voice, flat: Flat) -> torch.Tensor:
    """Return what the head is given where a scored token is predicted: fp32 [S, D]."""
    with voice.speaking():
        attending = Attending(flat.segments, virtual_prompt(voice.model))
        model = transformers_model(voice.model)
        hidden_TD = hidden_states(model, flat, attending, torch.float32)
    return hidden_TD.index_select(0, flat.source_S).float()


def _compare(
    hidden: Sequence[torch.Tensor], heads: Sequence[torch.Tensor], target_S: torch.Tensor
) -> torch.Tensor:
    """Return base loss, tuned loss, KL and agreement of every token: fp32 [S, 4]."""
    chunk = max(1, LOGITS_AT_ONCE // len(heads[0]))
    parts = [target_S.new_zeros((0, 4), dtype=torch.float32)]
    for start in range(0, len(target_S), chunk):
        n = slice(start, start + chunk)
        base_nV, tuned_nV = (
            (hidden_SD[n] @ head_VD.T).log_softmax(1)
            for hidden_SD, head_VD in zip(hidden, heads, strict=True)
        )
        target_n1 = target_S[n, None]
        agreed_n = base_nV.argmax(1) == tuned_nV.argmax(1)
        losses = [-log_p.gather(1, target_n1)[:, 0] for log_p in (base_nV, tuned_nV)]
        kl_n = (base_nV.exp() * (base_nV - tuned_nV)).sum(1)
        parts.append(torch.stack([*losses, kl_n, agreed_n.float()], dim=1))
    return torch.cat(parts)


@torch.no_grad()
def log_probs(voice: Voice, samples: Sequence[Sample]) -> Iterator[torch.Tensor]:
    """Yield what a model expects in place of each sample's scored tokens: log p, fp32 [n, V].

    Chunks of :data:`LOGITS_AT_ONCE` in the order of the samples, which another model of the
    same vocabulary gives with the same shapes.
    """
    head_VD = _head(voice)
    chunk = max(1, LOGITS_AT_ONCE // len(head_VD))
    for sample in samples:
        hidden_SD = _scored_hidden(voice, flatten([sample]).to(head_VD.device))
        for part_nD in hidden_SD.split(chunk):
            yield (part_nD @ head_VD.T).log_softmax(1)

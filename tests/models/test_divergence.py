"""How far two models diverge, against the plain arithmetic on whole distributions."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tiny import random_samples, tiny_model
from weitiao.models import divergence
from weitiao.models.adapters import transformers_model
from weitiao.models.divergence import divergences
from weitiao.models.pair import Voice


def moved(model, by=0.05):
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += by * torch.randn_like(weight)
    return model


@torch.no_grad()
def plainly(base, tuned, sample):
    """(tokens, base loss, tuned loss, KL, agreed) from every token's whole distribution."""
    ids = torch.tensor(sample.ids[None].astype("int64"))
    wanted = torch.tensor(sample.scored)[1:]
    target = ids[0, 1:][wanted]
    p, q = (m(ids).logits[0, :-1][wanted].double().log_softmax(-1) for m in (base, tuned))
    losses = [-x.gather(1, target[:, None]).sum().item() for x in (p, q)]
    kl = (p.exp() * (p - q)).sum().item()
    return len(target), *losses, kl, int((p.argmax(1) == q.argmax(1)).sum())


@pytest.mark.parametrize("chunk_rows", [1, 5, 10_000])
@pytest.mark.parametrize("tied", [True, False])
def test_as_the_plain_arithmetic_says(monkeypatch, chunk_rows, tied):
    monkeypatch.setattr(divergence, "LOGITS_AT_ONCE", 97 * chunk_rows)
    base, tuned = tiny_model(tied=tied), moved(tiny_model(tied=tied))
    samples = random_samples([9, 2, 31, 14, 9], seed=5)
    found = divergences(Voice(base), Voice(tuned), samples, budget=40)
    for sample, got in zip(samples, found, strict=True):
        tokens, base_loss, tuned_loss, kl, agreed = plainly(base, tuned, sample)
        assert (got.tokens, got.agreed) == (tokens, agreed)
        expected = pytest.approx([base_loss, tuned_loss, kl], rel=1e-5, abs=1e-5)
        assert [got.base_loss, got.tuned_loss, got.kl] == expected
    assert sum(d.kl for d in found) > 0.1, "models that say the same test nothing"


def test_a_model_does_not_diverge_from_itself():
    voice = Voice(tiny_model())
    for got in divergences(voice, voice, random_samples([12, 20], seed=1)):
        assert (got.kl, got.agreed, got.tuned_loss) == (0, got.tokens, got.base_loss)


def test_the_base_speaks_with_the_adapter_off():
    samples = random_samples([12, 20, 7], seed=2)
    adapted = get_peft_model(
        tiny_model(), LoraConfig(target_modules="all-linear", init_lora_weights=False)
    ).eval()
    shared = transformers_model(adapted)
    found = divergences(Voice(shared, adapted.disable_adapter), Voice(shared), samples)
    plain = tiny_model()
    for sample, got in zip(samples, found, strict=True):
        expected = plainly(plain, adapted, sample)
        assert [got.base_loss, got.tuned_loss, got.kl] == pytest.approx(expected[1:4], rel=1e-5)
    assert sum(d.kl for d in found) > 1e-3


def test_nothing_scored_is_nothing():
    sample = random_samples([5], seed=3)[0]
    sample.scored[:] = False
    voice = Voice(tiny_model())
    assert divergences(voice, voice, [sample])[0].tokens == 0
    assert divergences(voice, voice, []) == []

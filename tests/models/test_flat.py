"""The fast path against the plain reference: losses and every gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tiny import random_samples, tiny_model
from weitiao.models.flat import answer_losses, fast_path, flatten, row_losses
from weitiao.models.head import scored_loss
from weitiao.models.reference import reference_loss
from weitiao.records.render import Sample

LENGTHS = st.lists(st.integers(2, 24), min_size=1, max_size=7)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def assert_same(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], limit: float = 1e-5
) -> None:
    assert expected.keys() == found.keys()
    largest = max(float(g.norm()) for g in expected.values())
    assert largest > 1e-4, "gradients must not be zero"
    for name, gradient in expected.items():
        # A gradient that is zero in exact arithmetic is rounding noise in both.
        size = max(float(gradient.norm()), 1e-3 * largest)
        assert (found[name] - gradient).norm() / size < limit, name


def assert_same_gradients(
    model: PreTrainedModel, samples: list[Sample], *, share: bool = True
) -> None:
    plain = [reference_loss(model, sample) for sample in samples]
    torch.stack(plain).sum().backward()
    expected = gradients(model)
    with fast_path(model):
        fast = row_losses(model, flatten(samples, share=share), torch.float32)
        fast.sum().backward()
    torch.testing.assert_close(fast, torch.stack(plain), rtol=1e-5, atol=1e-5)
    assert_same(gradients(model), expected)


@st.composite
def families(draw: st.DrawFn) -> list[Sample]:
    """Rows that share beginnings, nested ones too; some end where others go on, some are equal."""
    seed = draw(st.integers(0, 10_000))
    random = np.random.default_rng(seed)
    beginnings = [random.integers(0, 97, draw(st.integers(0, 30)))]
    for _ in range(draw(st.integers(0, 3))):
        below = beginnings[draw(st.integers(0, len(beginnings) - 1))]
        more = random.integers(0, 97, draw(st.integers(1, 20)))
        beginnings.append(np.concatenate([below, more]))
    samples = []
    for row in range(draw(st.integers(1, 7))):
        begun = beginnings[draw(st.integers(0, len(beginnings) - 1))]
        own = random.integers(0, 97, draw(st.integers(0 if len(begun) > 1 else 2, 12)))
        ids = np.concatenate([begun, own]).astype(np.int32)
        scored = random.random(len(ids)) < draw(st.sampled_from([0.1, 0.6, 1.0]))
        scored[0], scored[-1] = False, True
        samples.append(Sample(ids, scored, row))
    return samples


@settings(max_examples=40, deadline=None)
@given(samples=families())
def test_shared_beginnings_change_no_loss_and_no_gradient(samples: list[Sample]) -> None:
    assert_same_gradients(tiny_model(), samples)


@settings(max_examples=10, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 1000))
def test_losses_and_full_gradients_agree(lengths: list[int], seed: int) -> None:
    assert_same_gradients(tiny_model(), random_samples(lengths, seed), share=False)


@settings(max_examples=10, deadline=None)
@given(samples=families(), multiple=st.integers(2, 40))
def test_tokens_that_fill_up_change_no_loss_and_no_gradient(
    samples: list[Sample], multiple: int
) -> None:
    model, flat = tiny_model(), flatten(samples)
    filled = flat.filled(multiple)
    assert filled.executed % multiple == 0
    assert 0 <= filled.executed - flat.executed < multiple
    both = []
    for laid in (flat, filled):
        with fast_path(model):
            losses = row_losses(model, laid, torch.float32)
            losses.sum().backward()
        both.append((losses.detach(), gradients(model)))
    torch.testing.assert_close(both[1][0], both[0][0], rtol=1e-5, atol=1e-5)
    assert_same(both[1][1], both[0][1])


def test_few_sizes_below_fp32_on_a_cpu() -> None:
    """oneDNN makes each product anew for every size that it does not remember."""
    model, sizes = tiny_model(), set()
    hook = model.get_decoder().norm.register_forward_hook(
        lambda _, inputs, __: sizes.add(inputs[0].shape[1])
    )
    for precision in (torch.bfloat16, torch.float32):
        for length in (33, 40, 50, 64):
            row_losses(model, flatten(random_samples([length], 0)), precision)
    hook.remove()
    assert sizes == {64, 33, 40, 50}


def with_beginning(lengths: list[int], common: int, seed: int = 3) -> list[Sample]:
    samples = random_samples([common + n for n in lengths], seed)
    for sample in samples[1:]:
        sample.ids[:common] = samples[0].ids[:common]
    return samples


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral"])
def test_each_family_agrees(family: str, tied: bool) -> None:
    assert_same_gradients(tiny_model(family, tied), with_beginning([5, 2, 17, 9], 20))


def test_an_architecture_without_parts_of_ours_agrees() -> None:
    assert_same_gradients(tiny_model("olmo2"), with_beginning([5, 2, 17, 9], 20))


def test_an_answer_of_one_token_and_a_segment_as_long_as_the_heads_are_many() -> None:
    """The first own token is predicted by the last shared one, not by the row before."""
    samples = with_beginning([1, 4, 4, 1], 24)
    for sample in samples:
        sample.scored[:] = False
        sample.scored[24:] = True
    flat = flatten(samples)
    assert flat.executed == 24 + 10
    assert flat.tokens == 4 * 24 + 10
    assert (flat.source_S == 23).sum() == 4
    assert_same_gradients(tiny_model(), samples)


def test_sharing_saves_what_it_promises() -> None:
    samples = with_beginning([10] * 8, 40)
    assert flatten(samples).executed == 40 + 80
    assert flatten(samples, share=False).executed == 8 * 50


@pytest.mark.parametrize("kind", ["off", "full"])
def test_checkpointing_computes_the_same(kind: str) -> None:
    model, samples = tiny_model().train(), with_beginning([5, 8, 13], 20)
    with fast_path(model):
        row_losses(model, flatten(samples), torch.float32).sum().backward()
        expected = gradients(model)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        row_losses(model, flatten(samples), torch.float32).sum().backward()
    assert_same(gradients(model), expected, 1e-7)


def test_a_row_does_not_see_its_neighbours() -> None:
    model, samples = tiny_model(), random_samples([9, 4, 12], 11)
    together = row_losses(model, flatten(samples), torch.float32)
    alone = [row_losses(model, flatten([s]), torch.float32)[0] for s in samples]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-6, atol=1e-6)


def test_chunks_of_the_head_do_not_change_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = tiny_model(), random_samples([100, 90, 120], 2)
    whole = answer_losses(model, samples)
    row_losses(model, flatten(samples), torch.float32).sum().backward()
    expected = gradients(model)
    monkeypatch.setattr("weitiao.models.head.CHUNK_LOGITS", {"cpu": 1})
    monkeypatch.setattr("weitiao.models.head.BLOCK_LOGITS", {"cpu": 300})
    parts = answer_losses(model, samples, budget=128)
    assert [n for _, n in whole] == [n for _, n in parts]
    assert [x for x, _ in parts] == pytest.approx([x for x, _ in whole], rel=1e-5)
    row_losses(model, flatten(samples), torch.float32).sum().backward()
    assert_same(gradients(model), expected)


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_label_smoothing_is_pytorchs(smoothing: float) -> None:
    model, sample = tiny_model(), random_samples([20], 4)[0]
    ids = torch.from_numpy(sample.ids).long()
    target = ids.masked_fill(~torch.from_numpy(sample.scored), -100)
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    plain = torch.nn.functional.cross_entropy(
        logits[:-1], target[1:], reduction="sum", label_smoothing=smoothing
    )
    plain.backward()
    expected = gradients(model)
    fast = row_losses(model, flatten([sample]), torch.float32, label_smoothing=smoothing)
    fast.sum().backward()
    torch.testing.assert_close(fast[0], plain, rtol=1e-5, atol=1e-5)
    assert_same(gradients(model), expected)


def test_neftunes_noise_has_the_size_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = tiny_model(), random_samples([4, 25], 4)
    seen: list[torch.Tensor] = []
    decoder = model.get_decoder()
    real = decoder.forward

    def looking(**given: torch.Tensor) -> object:
        seen.append(given["inputs_embeds"][0].detach())
        return real(**given)

    monkeypatch.setattr(decoder, "forward", looking)
    for alpha in (0.0, 5.0, 5.0):
        torch.manual_seed(1)
        row_losses(model, flatten(samples, share=False), torch.float32, neftune_alpha=alpha)
    noise = seen[1] - seen[0]
    for part, length in ((noise[:4], 4), (noise[4:], 25)):
        bound = 5.0 / (length * 32) ** 0.5
        assert 0.9 * bound < part.abs().max() <= 1.001 * bound
    assert torch.equal(seen[1], seen[2])
    shared = with_beginning([5, 8], 20)
    with pytest.raises(ValueError, match="share a beginning"):
        row_losses(model, flatten(shared), torch.float32, neftune_alpha=5.0)


def test_the_models_own_forward_and_attention_come_back() -> None:
    model = tiny_model()
    before = model.config._attn_implementation
    with fast_path(model):
        assert any("forward" in vars(module) for module in model.modules())
    answer_losses(model, random_samples([5], 0))
    assert model.config._attn_implementation == before
    assert not any("forward" in vars(module) for module in model.modules())


def test_bf16_is_as_near_to_fp32_as_transformers_is() -> None:
    samples = with_beginning([20, 30, 8], 20)
    exact = torch.stack([reference_loss(tiny_model(), s) for s in samples])
    model = tiny_model().to(torch.bfloat16)
    theirs = torch.stack([reference_loss(model, s) for s in samples])
    with fast_path(model):
        ours = row_losses(model, flatten(samples), torch.bfloat16)
    assert 0 < (ours - exact).norm() < 2 * (theirs - exact).norm() + 0.02


def test_a_sliding_window_is_refused_where_it_would_matter() -> None:
    model = tiny_model("mistral", window=16)
    row_losses(model, flatten(random_samples([16], 0)), torch.float32)
    samples = [replace(s, row=0) for s in random_samples([17], 0)]
    with pytest.raises(ValueError, match="sliding window"):
        row_losses(model, flatten(samples), torch.float32)


def test_a_token_that_is_all_but_impossible_keeps_its_loss() -> None:
    """A probability below what fp32 holds: its logarithm is still right."""
    hidden = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    weight = torch.tensor([[300.0, 0.0], [0.0, 1.0], [299.0, 0.0]])
    place, target = torch.tensor([0, 1]), torch.tensor([1, 2])
    losses = scored_loss(hidden, weight, place, target, place, 2)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, target, reduction="none")
    torch.testing.assert_close(losses, expected)
    losses.sum().backward()
    found = hidden.grad
    hidden.grad = None
    expected.sum().backward()
    torch.testing.assert_close(found, hidden.grad)
    assert losses[0] > 299

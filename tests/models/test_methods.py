"""Every way to adapt a model: exact gradients, a falling loss, and PEFT reads what is saved."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from small import small_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tiny import random_samples
from weitiao.errors import ModelError
from weitiao.models.adapters import add_adapter, load_adapter, save_trained, transformers_model
from weitiao.models.flat import fast_path, flatten, row_losses
from weitiao.models.generate import Sampling, generate
from weitiao.models.load import find_model, load_model
from weitiao.models.pair import load_pair
from weitiao.models.reference import reference_loss
from weitiao.plan.plan import Plan

METHODS: dict[str, dict[str, Any]] = {
    "lora": {},
    "some layers": {"lora_targets": ("q_proj", "layers.1.mlp.up_proj")},
    "rslora": {"lora_rslora": True},
    "dora": {"lora_dora": True},
    "pissa": {"lora_init": "pissa"},
    "pissa, rslora, dora": {"lora_init": "pissa", "lora_rslora": True, "lora_dora": True},
    "ia3": {"method": "ia3"},
    "prefix": {"method": "prefix"},
    "nf4": {"method": "qlora", "quantization": "nf4"},
    "nf4, dora": {"method": "qlora", "quantization": "nf4", "lora_dora": True},
    "int8": {"method": "qlora", "quantization": "int8"},
    "int8, dora": {"method": "qlora", "quantization": "int8", "lora_dora": True},
}
SAMPLES = random_samples([9, 3, 17, 12], 4)
# Two rows begin alike, so that one of them is computed from the other's beginning.
SAMPLES[3].ids[:7] = SAMPLES[2].ids[:7]
CPU = torch.device("cpu")


def plan(**changes: Any) -> Plan:
    """A plan with the fields that an adapter is made from."""
    settled = {
        "method": "lora", "quantization": "none", "lora_rank": 4, "lora_alpha": 8,
        "lora_dropout": 0.0, "lora_targets": "all-linear", "lora_rslora": False,
        "lora_dora": False, "lora_init": "default", "prefix_tokens": 3, "seed": 1,
    }  # fmt: skip
    return Plan.model_construct(**(settled | changes))


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("small")
    small_model().save_pretrained(made)
    return made


@pytest.fixture(params=METHODS)
def settled(request: pytest.FixtureRequest) -> Plan:
    return named(request.param)


def named(name: str) -> Plan:
    """The plan of one of the methods; skips where its packages are not installed."""
    if "quantization" in METHODS[name]:
        pytest.importorskip("bitsandbytes")
    return plan(**METHODS[name])


def base(folder: Path, settled: Plan, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return load_model(find_model(str(folder)), dtype, CPU, quantization=settled.quantization)


def adapted(folder: Path, settled: Plan, dtype: torch.dtype = torch.float32) -> PeftModel:
    return add_adapter(base(folder, settled, dtype), settled)


def trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def what_computes(model: PeftModel) -> PreTrainedModel | PeftModel:
    """Virtual tokens stand outside the transformers model."""
    return model if model.active_peft_config.is_prompt_learning else transformers_model(model)


def gradients(model: torch.nn.Module, losses: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(
        zip(trained(model), torch.autograd.grad(losses.sum(), trained(model).values()), strict=True)
    )


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(1, 30)[None]).logits.float()


def fit(model: PeftModel, steps: int = 8, rate: float = 0.02) -> list[float]:
    """Train; return the losses."""
    optimizer = torch.optim.AdamW(trained(model).values(), lr=rate, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss = row_losses(what_computes(model), flatten(SAMPLES), torch.float32).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("fast", [False, True])
def test_flat_gradients_equal_the_plain_reference(folder: Path, settled: Plan, fast: bool) -> None:
    model = adapted(folder, settled)
    torch.manual_seed(3)
    for parameter in trained(model).values():
        parameter.data += 0.05 * torch.randn_like(parameter)
    plain = torch.stack([reference_loss(model, s) for s in SAMPLES])
    expected = gradients(model, plain)
    computes = what_computes(model)
    with fast_path(computes) if fast else nullcontext():
        flat = row_losses(computes, flatten(SAMPLES), torch.float32)
        found = gradients(model, flat)
    torch.testing.assert_close(flat, plain, rtol=1e-5, atol=1e-5)
    largest = max(float(g.norm()) for g in expected.values())
    assert largest > 1e-4, "gradients must not be zero"
    for name, gradient in expected.items():
        size = max(float(gradient.norm()), 1e-3 * largest)
        assert (found[name] - gradient).norm() / size < 1e-5, name


def test_training_lowers_the_loss_and_peft_reads_it(
    folder: Path, settled: Plan, tmp_path: Path
) -> None:
    model, before = adapted(folder, settled), logits(base(folder, settled))
    if settled.method != "prefix":
        torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-5)
    rate = 0.3 if settled.method == "ia3" else 0.02
    losses = fit(model.train(), rate=rate)
    assert losses[-1] < losses[0] - 0.05
    tuned = logits(model.eval())
    assert (tuned - before).abs().max() > 1e-3
    save_trained(model, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    again = PeftModel.from_pretrained(base(folder, settled), str(tmp_path)).eval()
    torch.testing.assert_close(logits(again), tuned, rtol=1e-4, atol=1e-5)
    with again.disable_adapter():
        torch.testing.assert_close(logits(again), before)
    torch.testing.assert_close(logits(again), tuned, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lora", "ia3", "prefix", "nf4", "int8"])
def test_base_and_tuned_speak_side_by_side(folder: Path, name: str, tmp_path: Path) -> None:
    settled = named(name)
    model = adapted(folder, settled)
    fit(model, steps=12, rate=1.0)
    save_trained(model, tmp_path)
    voices = load_pair(find_model(str(folder)), tmp_path, torch.float32, CPU, settled.quantization)
    prompts, sampling = [[5, 6, 7, 8], [9] * 11, [40, 41]], Sampling(max_new_tokens=6)
    answers = []
    for voice in voices:
        with voice.speaking():
            answers.append(generate(voice.model, prompts, sampling, (), 0))
    assert answers[0] == generate(base(folder, settled), prompts, sampling, (), 0)
    assert answers[0] != answers[1]
    # One prompt at a time through PEFT's own generate.
    plain = load_adapter(base(folder, settled), tmp_path)
    for prompt, answer in zip(prompts, answers[1], strict=True):
        ids = torch.tensor([prompt])
        out = plain.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=0,
        )
        assert out[0, len(prompt) :].tolist() == answer.ids


def test_a_fresh_adapter_is_drawn_with_the_seed_and_in_fp32(folder: Path, settled: Plan) -> None:
    one, two = (trained(adapted(folder, settled, torch.bfloat16)) for _ in range(2))
    assert all(p.dtype == torch.float32 for p in one.values())
    for name, parameter in one.items():
        assert torch.equal(parameter, two[name]), name
    if settled.lora_init == "default" and settled.method != "ia3":
        other = trained(adapted(folder, settled.model_copy(update={"seed": 2}), torch.bfloat16))
        assert any(not torch.equal(p, other[name]) for name, p in one.items())


def test_what_is_scaled_by_ia3(folder: Path) -> None:
    names = trained(adapted(folder, plan(method="ia3")))
    assert {name.split(".")[-3] for name in names} == {"k_proj", "v_proj", "down_proj"}
    assert len(names) == 2 * 3


def test_ia3_says_which_models_it_does_not_know() -> None:
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "pad_token_id": 0}
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    fused = AutoModelForCausalLM.from_config(AutoConfig.for_model("phi3", **shape, **layers))
    with pytest.raises(ModelError, match="phi3"):
        add_adapter(fused, plan(method="ia3"))


def test_pissa_begins_with_the_weights_principal_parts(folder: Path) -> None:
    model = adapted(folder, plan(lora_init="pissa"))
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    original = base(folder, plan()).model.layers[0].self_attn.q_proj.weight.detach()
    update = layer.get_delta_weight("default").detach()
    torch.testing.assert_close(layer.weight + update, original, rtol=1e-4, atol=1e-6)
    # A random matrix has no gap between its values, so a randomised SVD is near, not exact.
    largest = torch.linalg.svdvals(original)[:4].norm()
    assert float(update.norm() / largest) == pytest.approx(1, abs=0.02)


def test_pissa_in_bf16_reloads_within_its_rounding(folder: Path, tmp_path: Path) -> None:
    settled = plan(lora_init="pissa")
    model = adapted(folder, settled, torch.bfloat16)
    fit(model)
    save_trained(model, tmp_path)
    again = load_adapter(base(folder, settled, torch.bfloat16), tmp_path)
    assert (logits(again) - logits(model)).abs().max() < 0.02


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_targets": ("q_proj", "v_porj")}, ["v_porj", "v_proj"]),
        ({"lora_targets": ("lm_head",)}, ["lm_head", "q_proj"]),
        ({"lora_rank": 33}, ["33", "k_proj", "64", "32"]),
        ({"lora_rank": 65, "lora_targets": ("gate_proj",)}, ["65", "gate_proj", "64", "128"]),
        ({"lora_init": "pissa", "quantization": "nf4"}, ["pissa"]),
    ],
)
def test_what_does_not_fit_the_model_is_told(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        add_adapter(small_model(), plan(**changes))
    for word in words:
        assert word in caught.value.sentence("en")
        assert word in caught.value.sentence("zh")

from dataclasses import replace

import numpy as np
import pytest
from shapes import DESKTOP, GAMING, GB, LAPTOP, QWEN, TINY

from weitiao.errors import PlanError
from weitiao.plan.cards import card_named, card_of, cards, elsewhere
from weitiao.plan.cost import default_rates
from weitiao.plan.plan import make_plan
from weitiao.plan.recipe import load_recipe
from weitiao.plan.shape import KNOWN_SHAPES
from weitiao.words import set_language


@pytest.fixture(autouse=True)
def _english():
    set_language("en")


def plan(shape, machine, *overrides, count=1000, high=400):
    lengths = np.linspace(60, high, count).astype(np.int64)
    scored = (lengths * 0.4).astype(np.int64)
    return make_plan(load_recipe(None, overrides), shape, lengths, scored, machine)


def test_the_table_is_sound():
    assert len(cards()) >= 30
    for name, card in cards().items():
        assert card_of(f"NVIDIA GeForce {name} GPU") == card, name
        assert card_named(name).name == name
        assert 4 <= card.memory <= 200
        assert card.half >= card.fp32
        # Tensor cores that know bf16 came with the 30 series and with A100.
        old = name.startswith(("GTX", "RTX 2", "TITAN", "P", "V", "T4"))
        assert card.bf16 == (not old)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("4060", "RTX 4060"),
        ("rtx4060 laptop", "RTX 4060 Laptop"),
        ("NVIDIA GeForce RTX 4060 8GB", "RTX 4060"),
        ("4060 Ti 16GB", "RTX 4060 Ti 16GB"),
        ("H100 80GB", "H100"),
        ("Tesla T4", "T4"),
        ("8 GB", "8 GB (RTX 3050)"),
        ("24g", "24 GB (RTX 5090 Laptop)"),
    ],
)
def test_names_of_people(said, meant):
    assert card_named(said).name == meant


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("NVIDIA GeForce RTX 4060 Laptop GPU", "RTX 4060 Laptop"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA L4", "L4"),
    ],
)
def test_names_of_drivers(said, meant):
    card = card_of(said)
    assert card is not None
    assert card.name == meant
    assert card_of("Unheard-of 9000") is None
    assert default_rates(replace(GAMING, gpus=(replace(GAMING.gpus[0], name="?"),)), "cuda").half


def test_a_wrong_card_gets_near_names():
    with pytest.raises(PlanError, match="RTX 4070 Ti SUPER"):
        card_named("RTX 4070 Ti SUPPER")
    for wrong in ("", "0GB", "banana"):
        with pytest.raises(PlanError, match="8GB"):
            card_named(wrong)
    with pytest.raises(PlanError, match="16GB"):
        elsewhere(DESKTOP, None, "much")


def test_a_machine_that_is_not_here():
    machine = elsewhere(replace(LAPTOP, process_bytes=GB, disk_free_bytes=0), "RTX 4060")
    assert machine.elsewhere
    assert 6.5 * GB < machine.free_on("cuda") < 7.8 * GB
    found = plan(QWEN, machine)
    assert (found.device, found.precision, found.fits) == ("cuda", "bf16", True)
    assert plan(QWEN, elsewhere(DESKTOP, "T4")).precision == "fp16"
    assert plan(QWEN, elsewhere(DESKTOP, "P40")).precision == "fp32"
    assert plan(TINY, elsewhere(GAMING, None)).device == "cpu"
    small = elsewhere(DESKTOP, None, "4GB")
    assert small.free_on("cpu") == 3 * GB
    assert not plan(KNOWN_SHAPES["Qwen/Qwen2.5-7B-Instruct"], small).fits


def test_faster_cards_take_less_time():
    seconds = [
        plan(QWEN, elsewhere(DESKTOP, card)).predicted.train_seconds
        for card in ("RTX 3060", "RTX 4090", "H100")
    ]
    assert seconds == sorted(seconds, reverse=True)


def test_a_base_of_4_bits_where_the_whole_one_does_not_fit():
    seven = KNOWN_SHAPES["Qwen/Qwen2.5-7B-Instruct"]
    found = plan(seven, elsewhere(DESKTOP, "RTX 4060"))
    assert (found.method, found.quantization, found.fits) == ("qlora", "nf4", True)
    assert found.reasons["method"].key == "plan.reason.method_qlora"
    without = replace(elsewhere(DESKTOP, "RTX 4060"), bitsandbytes=False)
    assert not plan(seven, without).fits
    asked = plan(seven, elsewhere(DESKTOP, "RTX 4060"), "method=lora")
    assert asked.method == "lora"
    assert "train.method=qlora" in asked.remedies[0].sentence()


def settings_of(reason):
    return str(reason.values["settings"]).split()


@pytest.mark.parametrize(
    ("shape", "card", "overrides"),
    [
        (QWEN, "24GB", ("method=full",)),
        (QWEN, "12GB", ("method=full", "train.gradient_checkpointing=off")),
        (QWEN, "4GB", ("method=lora", "train.gradient_checkpointing=off", "rank=64")),
        (KNOWN_SHAPES["Qwen/Qwen2.5-7B-Instruct"], "RTX 4090", ("method=full",)),
        (KNOWN_SHAPES["Qwen/Qwen2.5-3B-Instruct"], "12GB", ("method=lora", "precision=fp32")),
    ],
)
def test_each_remedy_really_fits_and_none_of_it_can_be_left_out(shape, card, overrides):
    machine = elsewhere(DESKTOP, card)
    unfit = plan(shape, machine, *overrides, high=1000)
    assert not unfit.fits
    assert 1 <= len(unfit.remedies) <= 3
    told = [one for one in unfit.remedies if one.key == "plan.remedy.settings"]
    assert told
    for remedy in told:
        typed = settings_of(remedy)
        assert len(remedy.parts) == len(typed)
        assert "(" in remedy.sentence("en")
        assert "；" in remedy.sentence("zh") or len(typed) == 1

        def kept(chosen):
            names = {one.split("=")[0].removeprefix("train.") for one in chosen}
            before = [o for o in overrides if o.split("=")[0].removeprefix("train.") not in names]
            return [*before, *chosen]

        limit = next((int(s.split("=")[1]) for s in typed if s.startswith("data.max")), 1000)
        again = plan(shape, machine, *kept(typed), high=limit)
        assert again.fits, remedy.sentence()


def test_a_smaller_model_is_named_where_settings_do_not_help():
    found = plan(KNOWN_SHAPES["Qwen/Qwen2.5-7B-Instruct"], elsewhere(DESKTOP, "4GB"))
    sentences = " ".join(one.sentence() for one in found.remedies)
    assert not found.fits
    assert "--model Qwen/" in sentences
    named = next(str(r.values["name"]) for r in found.remedies if r.key == "plan.remedy.model")
    assert plan(KNOWN_SHAPES[named], elsewhere(DESKTOP, "4GB")).fits
    seven = KNOWN_SHAPES["Qwen/Qwen2.5-7B-Instruct"]
    whole = plan(seven, elsewhere(DESKTOP, None, "8GB"), "method=full")
    named, setting = str(whole.remedies[0].values["name"]).split()
    assert setting == "train.method=lora"
    assert plan(KNOWN_SHAPES[named], elsewhere(DESKTOP, None, "8GB"), setting).fits


def test_precision_that_the_hardware_lacks():
    turing = plan(QWEN, elsewhere(DESKTOP, "T4"), "precision=bf16")
    assert not turing.fits
    assert "T4 does not compute" in turing.problems[0].sentence()
    cpu = plan(TINY, DESKTOP, "precision=fp16")
    assert not cpu.fits
    assert "graphics cards" in cpu.problems[0].sentence()
    assert "auto" in cpu.remedies[0].sentence()


@pytest.mark.parametrize("asked", ["method=qlora", "optimizer=adamw_8bit", "optimizer=paged_adamw"])
def test_few_bits_without_the_library(asked):
    assert plan(TINY, DESKTOP, asked).fits
    found = plan(TINY, replace(DESKTOP, bitsandbytes=False), asked)
    assert not found.fits
    assert "weitiao[quantized]" in found.remedies[0].sentence()


def test_long_rows_that_do_not_fit_are_named():
    lengths = np.array([100] * 99 + [30_000])
    machine = elsewhere(DESKTOP, "6GB")
    found = make_plan(load_recipe(), QWEN, lengths, lengths // 2, machine)
    assert not found.fits
    assert "30000" in found.problems[1].sentence()
    assert any("data.max_tokens" in r.sentence() for r in found.remedies)


def test_several_gpus_spread_what_one_cannot_hold():
    one = card_named("RTX 3090")
    pair = replace(DESKTOP, gpus=(one, one))
    whole = plan(QWEN, pair)
    assert (whole.processes, whole.strategy) == (2, "ddp")
    full = plan(QWEN, pair, "method=full", "gradient_checkpointing=full", "micro_batch_tokens=1024")
    assert (full.strategy, full.fits) == ("fsdp", True)
    assert not plan(QWEN, replace(DESKTOP, gpus=(one,)), "method=full").fits
    assert (
        plan(QWEN, pair).predicted.train_seconds
        < plan(QWEN, replace(DESKTOP, gpus=(one,))).predicted.train_seconds
    )


def test_shared_beginnings_are_counted_once():
    lengths = np.full(400, 300)
    alone = make_plan(load_recipe(), QWEN, lengths, lengths // 3, GAMING)
    shared = make_plan(
        load_recipe(), QWEN, lengths, lengths // 3, GAMING, executed_tokens=400 * 100
    )
    assert shared.predicted.train_seconds < 0.6 * alone.predicted.train_seconds
    noisy = make_plan(
        load_recipe(None, ["lora.dropout=0.1"]), QWEN, lengths, lengths // 3, GAMING,
        executed_tokens=400 * 100,
    )  # fmt: skip
    assert noisy.share_prefixes is False
    assert noisy.reasons["share_prefixes"].key == "plan.reason.share_prefixes_noise"
    assert noisy.predicted.train_seconds > alone.predicted.train_seconds

"""What a plan says before the start rather than a training in the midst of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from shapes import DESKTOP, GAMING, QWEN, TINY

from weitiao.plan.cards import card_named
from weitiao.plan.machine import Machine
from weitiao.plan.plan import Plan, make_plan
from weitiao.plan.recipe import load_recipe
from weitiao.plan.shape import ModelShape
from weitiao.words import LANGUAGES, set_language

ONE = replace(GAMING, gpus=(card_named("RTX 3090"),))
PAIR = replace(ONE, gpus=ONE.gpus * 2)


@pytest.fixture(autouse=True)
def _english() -> None:
    set_language("en")


def plan(
    shape: ModelShape, machine: Machine, *overrides: str, longest: int = 130, **more: Any
) -> Plan:
    lengths = np.linspace(60, longest, 400).astype(np.int64)
    return make_plan(load_recipe(None, overrides), shape, lengths, lengths // 3, machine, **more)


def told(found: Plan) -> list[str]:
    for language in LANGUAGES:
        for reason in (*found.problems, *found.warnings, *found.remedies):
            assert "{" not in reason.sentence(language)
    return [reason.sentence() for reason in (*found.problems, *found.warnings)]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("strategy=fsdp", "method=qlora"), "cannot be spread"),
        (("strategy=fsdp", "method=full", "optimizer=adafactor"), "optimizer=adamw only"),
        (("strategy=deepspeed", "optimizer=adafactor"), "optimizer=adamw only"),
        (("strategy=deepspeed", "precision=fp16"), "bf16 and fp32 only"),
    ],
)
def test_what_several_processes_cannot_do(settings: tuple[str, ...], words: str) -> None:
    found = plan(TINY, PAIR, *settings)
    (sentence,) = told(found)
    assert words in sentence
    assert not found.fits
    # Alone it can be done, and the strategy is told to be for nothing.
    alone = plan(TINY, ONE, *settings)
    assert alone.fits
    assert "with one it changes nothing" in told(alone)[0]


def test_what_they_can() -> None:
    for settings in (
        ("strategy=fsdp", "optimizer=adafactor"),
        ("strategy=fsdp", "precision=fp16"),
        ("strategy=deepspeed", "method=full"),
        ("strategy=ddp", "method=qlora"),
    ):
        assert told(plan(TINY, PAIR, *settings)) == []
    assert told(plan(TINY, ONE, "strategy=ddp")) == []


def test_what_cannot_be_spread_out_is_not_spread_out_unasked() -> None:
    full = ("method=full", "gradient_checkpointing=full", "micro_batch_tokens=1024")
    assert plan(QWEN, PAIR, *full).strategy == "fsdp"
    small = replace(PAIR, gpus=tuple(replace(gpu, free_bytes=9 << 30) for gpu in PAIR.gpus))
    other = plan(QWEN, small, *full, "optimizer=adafactor")
    assert other.strategy == "ddp"
    assert "of GPU memory" in told(other)[0]
    # Nor is a base of 4 bits taken where the weights were asked to be spread out.
    tight = replace(PAIR, gpus=tuple(replace(gpu, free_bytes=2 << 30) for gpu in PAIR.gpus))
    assert plan(QWEN, tight, "strategy=ddp").method == "qlora"
    assert plan(QWEN, tight, "strategy=fsdp").method == "lora"


def test_deepspeed_that_is_not_installed() -> None:
    without = replace(PAIR, deepspeed=False)
    assert "weitiao[deepspeed]" in told(plan(TINY, without, "strategy=deepspeed"))[0]
    assert told(plan(TINY, PAIR, "strategy=deepspeed")) == []


def test_more_processes_than_gpus_are_warned_about() -> None:
    """The others may be on other computers."""
    found = plan(TINY, ONE, "train.processes=2")
    assert found.fits
    assert "more than the 1 GPU(s)" in told(found)[0]
    assert told(plan(TINY, PAIR, "train.processes=2")) == []
    assert told(plan(TINY, DESKTOP, "train.processes=2")) == []


def test_virtual_tokens_take_positions() -> None:
    tokens = ("prefix.tokens=64",)
    assert plan(TINY, DESKTOP, *tokens, longest=2000).fits
    assert plan(TINY, DESKTOP, "method=prefix", *tokens, longest=1984).fits
    found = plan(TINY, DESKTOP, "method=prefix", *tokens, longest=1985)
    assert "64 virtual ones" in told(found)[0]
    assert "data.max_tokens=1984" in found.remedies[-1].sentence()


def test_rows_that_are_held_out_must_fit_too() -> None:
    assert plan(TINY, DESKTOP, held_out=2048).fits
    assert "has 2049 tokens" in told(plan(TINY, DESKTOP, held_out=2049))[0]


def test_virtual_tokens_take_memory_while_answers_are_given() -> None:
    wide = replace(QWEN, kv_heads=12)
    settings = ("method=prefix", "evaluate.batch_size=256", "max_new_tokens=64")
    few, many = (
        plan(wide, GAMING, *settings, f"prefix.tokens={n}").eval_batch_size for n in (1, 512)
    )
    assert many < few


def test_an_adapter_that_the_model_has_no_room_for() -> None:
    (sentence,) = told(plan(TINY, DESKTOP, "rank=129"))
    assert "k_proj (256 × 128)" in sentence
    assert "at most 128" in sentence
    assert plan(TINY, DESKTOP, "rank=128").fits
    assert plan(TINY, DESKTOP, "rank=256", "targets=[q_proj]").fits
    assert plan(TINY, DESKTOP, "rank=300", "method=ia3").fits
    assert plan(replace(TINY, architecture="Other"), DESKTOP, "rank=129").fits
    # What is not asked for is never larger than the layers.
    narrow = replace(TINY, kv_heads=1, head_dim=8)
    assert plan(narrow, DESKTOP).lora_rank == 8


def test_pissa_needs_a_whole_base() -> None:
    assert "pissa" in told(plan(TINY, ONE, "method=qlora", "lora.init=pissa"))[0]
    assert plan(TINY, ONE, "lora.init=pissa").fits
    small = replace(ONE, gpus=(replace(ONE.gpus[0], free_bytes=int(2.5 * 2**30)),))
    offered = plan(QWEN, small, "method=full", "lora.init=pissa").remedies
    assert "method=qlora" not in str([reason.values for reason in offered])


def test_answers_are_as_long_as_what_the_model_is_to_say() -> None:
    assert plan(TINY, DESKTOP, answers=np.full(400, 200)).max_new_tokens == 256
    # None of the rows has an answer: all are texts.
    assert plan(TINY, DESKTOP, answers=np.zeros(0, int)).max_new_tokens == 128
    slow, fast = (plan(TINY, DESKTOP, "max_new_tokens=9", answers=np.full(9, n)) for n in (300, 3))
    assert slow.predicted.eval_seconds > 2 * fast.predicted.eval_seconds

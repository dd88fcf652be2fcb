"""``weitiao plan`` for a machine that is not here, and with a probe of this one."""

import json
from pathlib import Path

import pytest

from conftest import QUICK, Weitiao, one_sentence
from tiny import random_samples
from weitiao.models.load import find_model
from weitiao.plan.plan import read_plan
from weitiao.training import probe


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_card_that_is_not_here(weitiao: Weitiao, data: Path, tiny_base: Path) -> None:
    said = weitiao("plan", data, "--model", tiny_base, "--gpu", "RTX 4060")
    assert said.code == 0, said.err
    assert "RTX 4060" in said.out
    assert "bf16" in said.out
    assert files(data.parent) == {data}, "nothing is written"
    chinese = weitiao("plan", data, "--model", tiny_base, "--gpu", "T4", "--lang", "zh")
    assert "没有写入任何文件" in chinese.out
    assert "fp16" in chinese.out


def test_no_weights_are_needed(weitiao: Weitiao, data: Path, tiny_base: Path) -> None:
    base = data.parent / "base"
    base.mkdir()
    config = json.loads((tiny_base / "config.json").read_text(encoding="utf-8"))
    # The published sizes of a model of 7 B, of which nothing else is here.
    config |= {"hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944}
    config |= {"num_attention_heads": 28, "num_key_value_heads": 4, "head_dim": 128}
    config |= {"vocab_size": 152064, "tie_word_embeddings": False}
    config.pop("layer_types", None)
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (base / name).write_bytes((tiny_base / name).read_bytes())
    said = weitiao("plan", data, "--model", base, "--gpu", "8GB")
    assert said.code == 0, said.err
    assert "qlora" in said.out
    small = weitiao("plan", data, "--model", base, "--memory", "8GB", "train.method=full")
    assert "too little" in small.out
    assert "Qwen/Qwen2.5" in small.out


def test_a_run_is_planned_elsewhere_as_it_was_asked_for(weitiao: Weitiao, finished: Path) -> None:
    before = {path: path.read_bytes() for path in files(finished)}
    said = weitiao("plan", finished / "runs" / "tea", "--gpu", "4GB")
    assert said.code == 0, said.err
    shown = {line.split("  ")[0].strip(): line for line in said.out.splitlines()}
    assert "cuda" in shown["device"], "what the plan here chose does not bind the one there"
    assert "512" in shown["tokens at once"], "what was asked for does"
    assert "the usual value" in shown["optimizer"]
    assert {path: path.read_bytes() for path in files(finished)} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "RTX 4o60"], "RTX 4060"),
        (["--gpu", "8GB", "--cpu"], "--cpu"),
        (["--memory", "lots"], "16GB"),
        (["--cpu", "--probe"], "--probe"),
    ],
)
def test_what_cannot_be_planned(
    weitiao: Weitiao, data: Path, tiny_base: Path, words: list[str], said: str
) -> None:
    assert said in one_sentence(weitiao("plan", data, "--model", tiny_base, *words))


def test_the_probe_changes_the_time_and_nothing_that_was_asked(
    weitiao: Weitiao, data: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "SECONDS", 1.0)
    assert weitiao("plan", data, "--model", tiny_base, *QUICK).code == 0
    run = data.parent / "runs" / "tea"
    before = read_plan(run / "plan.json")
    said = weitiao("plan", "tea", "--probe")
    assert said.code == 0, said.err
    after = read_plan(run / "plan.json")
    # In tenths of a second, so short a training may take as long as was thought.
    assert after.predicted.tokens_per_second != before.predicted.tokens_per_second
    assert after.reasons == before.reasons
    same = {"predicted", "machine"}
    assert after.model_dump(exclude=same) == before.model_dump(exclude=same)
    assert files(run) == {path for path in files(run) if "model" not in path.name}


@pytest.mark.parametrize(
    "asked",
    [
        ["method=full", "precision=fp32"],
        ["method=prefix", "precision=fp32"],
        ["method=qlora", "qlora.bits=8", "precision=bf16"],
    ],
    ids=" ".join,
)
def test_every_method_can_be_probed(
    weitiao: Weitiao, data: Path, tiny_base: Path, asked: list[str]
) -> None:
    if "method=qlora" in asked:
        pytest.importorskip("bitsandbytes")
    settings = [s for s in QUICK if not s.startswith("precision")]
    assert weitiao("plan", data, "--model", tiny_base, *settings, *asked).code == 0
    planned = read_plan(data.parent / "runs" / "tea" / "plan.json")
    samples = random_samples([20 + i % 9 for i in range(40)], 3)
    found = probe.token_seconds(find_model(str(tiny_base)), planned, samples, seconds=0.5)
    assert 1e-7 < found < 1

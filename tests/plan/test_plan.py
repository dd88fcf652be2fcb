import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import DESKTOP, GAMING, GB, LAPTOP, QWEN, SEVEN, TINY

from weitiao.errors import PlanError, RunError
from weitiao.plan.cost import Rates
from weitiao.plan.fit import Rows
from weitiao.plan.machine import Gpu
from weitiao.plan.plan import Plan, make_plan, read_plan, write_plan
from weitiao.plan.recipe import load_recipe
from weitiao.plan.resolved import recipe_yaml, resolve
from weitiao.words import catalogue, set_language


@pytest.fixture(autouse=True)
def _english():
    set_language("en")


def rows(count, low=60, high=130):
    lengths = np.linspace(low, high, count).astype(np.int64)
    return lengths, (lengths * 0.4).astype(np.int64)


def plan(shape, machine, count=1000, *, high=130, overrides=(), **more):
    return make_plan(load_recipe(None, overrides), shape, *rows(count, 60, high), machine, **more)


def test_the_embedded_model_on_two_cores():
    found = plan(TINY, DESKTOP)
    assert found.fits
    assert (found.device, found.method, found.precision) == ("cpu", "lora", "bf16")
    assert found.learning_rate == 5e-3
    assert (found.lora_rank, found.lora_alpha) == (16, 32)
    assert (found.batch_size, found.epochs) == (16, 5)
    assert found.steps == 5 * found.steps_per_epoch == 5 * 63
    assert 4 <= found.steps / found.eval_every <= 8
    assert found.micro_batch_tokens == 4096
    assert found.gradient_checkpointing == "off"
    assert 0.3 * GB < found.predicted.peak_memory_bytes < 3 * GB
    assert 20 < found.predicted.train_seconds < 1500
    found.require_fit()


def test_a_1_5b_model_on_a_gpu_of_8_gb():
    found = plan(QWEN, GAMING, 3000, high=700)
    assert found.fits
    assert (found.device, found.method, found.precision) == ("cuda", "lora", "bf16")
    assert found.learning_rate == 2e-4
    assert found.predicted.peak_memory_bytes < 7.5 * GB
    # Without checkpointing a row of 700 tokens would fit, but only one at a time.
    assert found.gradient_checkpointing != "off"
    assert found.micro_batch_tokens >= 2048
    assert found.predicted.peak_memory_bytes > QWEN.total_params * 2
    # Published for an RTX 4060: 500 to 628 tokens a second with older techniques.
    assert 300 < found.predicted.tokens_per_second < 6000


def test_a_7b_model_on_a_small_laptop_says_by_how_much_and_what_would():
    found = plan(SEVEN, LAPTOP, 500)
    assert not found.fits
    with pytest.raises(PlanError) as caught:
        found.require_fit()
    sentence = str(caught.value)
    need = found.problems[0].values
    assert float(need["missing"]) == pytest.approx(float(need["need"]) - 6.0, abs=0.11)
    assert f"{need['missing']} GB too little" in sentence
    assert "A machine with" in sentence
    assert "2." in sentence
    assert "--model Qwen/Qwen2.5-1.5B-Instruct" in sentence
    assert plan(QWEN, LAPTOP, 500).fits


def test_remedies_are_settings_that_do_fit():
    found = plan(QWEN, GAMING, 3000, high=700, overrides=["method=full"])
    assert not found.fits
    remedy = next(r for r in found.remedies if r.key == "plan.remedy.settings")
    settings_to_type = str(remedy.values["settings"]).split()
    assert "train.method=lora" in settings_to_type
    again = plan(QWEN, GAMING, 3000, high=700, overrides=["method=full", *settings_to_type])
    assert again.fits


@pytest.mark.parametrize("fixed", ["gradient_checkpointing=false", "micro_batch_tokens=8192"])
def test_a_fixed_setting_is_kept_and_named_as_the_remedy(fixed):
    gpu = replace(GAMING, gpus=(Gpu("RTX", 8 * GB, int(4.1 * GB), bf16=True),))
    found = plan(QWEN, gpu, 3000, high=700, overrides=["method=lora", fixed])
    assert not found.fits
    assert found.remedies[0].key == "plan.remedy.settings"
    assert fixed.split("=")[0] in str(found.remedies[0].values["settings"])


def test_the_cpu_is_offered_where_the_gpu_is_too_small():
    small = replace(GAMING, gpus=(Gpu("GTX", 2 * GB, int(1.2 * GB), bf16=True),))
    found = plan(QWEN, small, 300)
    assert not found.fits
    assert "train.device=cpu" in str([r.values for r in found.remedies])


def test_precision():
    assert plan(TINY, LAPTOP).precision == "fp32"
    assert plan(TINY, DESKTOP, rates=Rates(1e11, 1.05e11)).precision == "fp32"
    assert plan(TINY, DESKTOP, overrides=["precision=fp32"]).precision == "fp32"
    squeezed = plan(QWEN, LAPTOP, 300)
    assert squeezed.precision == "bf16"
    assert squeezed.reasons["precision"].key == "plan.reason.precision_fit"
    assert squeezed.fits


def test_memory_decides_the_micro_batch_and_checkpointing():
    budgets = []
    for free in (3.6, 4.2, 6, 12, 70):
        gpu = replace(GAMING, gpus=(Gpu("RTX", 80 * GB, int(free * GB), bf16=True),))
        found = plan(QWEN, gpu, 3000, high=700, overrides=["method=lora"])
        if found.fits:
            assert found.predicted.peak_memory_bytes <= 0.95 * free * GB
            kept = ("full", "selective", "off").index(found.gradient_checkpointing)
            budgets.append((kept, found.micro_batch_tokens))
    assert len(budgets) >= 3
    assert budgets == sorted(budgets)
    assert budgets[-1] == (2, 16384)


def test_answers_at_once_shrink_with_memory():
    gpu = replace(GAMING, gpus=(Gpu("RTX", 8 * GB, int(7.5 * GB), bf16=True),))
    wide = replace(QWEN, kv_heads=12)
    found = plan(wide, gpu, 300, high=2000, overrides=["evaluate.batch_size=64"])
    assert found.fits
    assert found.eval_batch_size < 64
    assert plan(TINY, DESKTOP).eval_batch_size == 64


def test_a_slow_run_is_warned_about():
    assert plan(TINY, DESKTOP).warnings == ()
    assert "hours" in plan(QWEN, LAPTOP, 5000).warnings[0].sentence()


def test_other_problems():
    too_long = plan(TINY, DESKTOP, 300, high=3000)
    assert not too_long.fits
    assert "data.max_tokens=2048" in too_long.remedies[-1].sentence()
    full_disk = plan(TINY, replace(DESKTOP, disk_free_bytes=1000))
    assert not full_disk.fits
    with pytest.raises(PlanError, match="disk"):
        full_disk.require_fit()
    with pytest.raises(PlanError, match="cuda"):
        plan(TINY, DESKTOP, overrides=["device=cuda"])
    with pytest.raises(PlanError, match="No row"):
        make_plan(load_recipe(), TINY, np.array([], int), np.array([], int), DESKTOP)


def test_what_is_asked_is_done():
    found = plan(
        TINY,
        DESKTOP,
        overrides=["epochs=2", "train.batch_size=4", "rank=4", "alpha=5", "max_steps=7",
                   "learning_rate=1e-3", "warmup_ratio=0", "eval_every=3", "save_every=2",
                   "early_stopping_patience=0", "max_new_tokens=9", "targets=[q_proj]"],
    )  # fmt: skip
    assert (found.epochs, found.batch_size, found.lora_rank, found.lora_alpha) == (2, 4, 4, 5)
    assert (found.steps, found.warmup_steps, found.eval_every, found.save_every) == (7, 0, 3, 2)
    assert (found.early_stopping_patience, found.max_new_tokens) == (0, 9)
    assert found.lora_targets == ("q_proj",)
    for name in ("epochs", "lora_rank", "warmup_ratio", "lora_targets", "steps"):
        assert found.reasons[name].key == "plan.reason.asked"


def test_small_and_large_data():
    assert plan(TINY, DESKTOP, 3).batch_size == 3
    assert plan(TINY, DESKTOP, 3).steps >= 1
    assert plan(QWEN, GAMING, 200).lora_rank == 8
    assert plan(QWEN, GAMING, 3000).lora_rank == 16
    assert plan(QWEN, GAMING, 3000).epochs == 3
    assert plan(QWEN, GAMING, 30_000).epochs < 3


def test_pretraining_and_full_learning_rates():
    def rate(shape, *overrides):
        return plan(shape, replace(GAMING, gpus=()), overrides=overrides).learning_rate

    assert plan(TINY, DESKTOP, overrides=["objective=pretrain"]).method == "full"
    assert rate(TINY, "objective=pretrain") == 1e-3
    assert rate(QWEN, "method=full") == 2e-5
    assert rate(SEVEN, "method=full") == 1e-5
    assert rate(SEVEN) == 1e-4
    assert rate(TINY, "method=prefix") == 1e-1
    assert rate(QWEN, "method=prefix") == 3e-2
    assert rate(QWEN, "method=ia3") == 3e-3


def test_every_setting_has_a_reason_in_both_languages():
    found = plan(QWEN, GAMING, 300)
    concrete = set(Plan.model_fields) - {
        "model", "shape", "machine", "rows", "tokens_per_epoch", "scored_per_epoch",
        "longest_row", "reasons", "predicted", "fits", "problems", "warnings", "remedies",
    }  # fmt: skip
    assert set(found.reasons) == concrete
    for reason in found.reasons.values():
        assert reason.sentence("en") != reason.sentence("zh")


def test_every_reason_can_be_said():
    values = dict.fromkeys(
        ["params", "gpu", "cores", "times", "need", "rows", "rank", "batch", "epochs", "steps",
         "limit", "longest", "free", "missing", "most", "settings", "hours", "bits", "gpus",
         "parts", "tokens", "name", "usual", "precision", "virtual", "strategy", "processes"], 1,
    )  # fmt: skip
    for key, entry in catalogue().items():
        if key.startswith("plan."):
            assert entry["en"].format(**values) != entry["zh"].format(**values)


def test_plan_json(tmp_path):
    found = plan(QWEN, GAMING, 300, overrides=["targets=[q_proj, v_proj]"])
    write_plan(found, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == found
    assert json.loads((tmp_path / "plan.json").read_text())["shape"]["layers"] == 28
    (tmp_path / "plan.json").write_text('{"model": "x"}')
    with pytest.raises(RunError, match="another version"):
        read_plan(tmp_path / "plan.json")
    with pytest.raises(RunError):
        read_plan(tmp_path / "missing.json")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_written_recipe(tmp_path, language):
    recipe = load_recipe("bank", ["epochs=4", "system=你好: 我是 #1"])
    found = make_plan(recipe, TINY, *rows(900), DESKTOP)
    text = recipe_yaml(recipe, found, language)
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    again = load_recipe(str(tmp_path / "recipe.yaml"))
    assert again == resolve(recipe, found)
    assert again.train.learning_rate == found.learning_rate
    assert again.evaluate.max_new_tokens == found.max_new_tokens
    by_key = {line.strip().partition(":")[0]: line for line in text.splitlines()}
    assert found.reasons["learning_rate"].sentence(language) in by_key["learning_rate"]
    assert "#" not in by_key["epochs"]
    second = make_plan(again, TINY, *rows(900), DESKTOP)
    assert second.steps == found.steps
    assert second.micro_batch_tokens == found.micro_batch_tokens


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(2, 900), min_size=1, max_size=60),
    st.sampled_from([TINY, QWEN, SEVEN]),
    st.sampled_from([DESKTOP, LAPTOP, GAMING]),
)
def test_any_rows_get_a_sound_plan(lengths, shape, machine):
    length = np.array(lengths)
    found = make_plan(load_recipe(), shape, length, np.maximum(1, length // 2), machine)
    assert 1 <= found.batch_size <= len(lengths)
    assert 0 <= found.warmup_steps <= found.steps
    assert 1 <= found.eval_every <= found.steps
    assert found.predicted.train_seconds >= 0
    assert found.fits == (not found.problems)
    assert found.fits or found.remedies


def test_rows_at_once():
    some = Rows(np.array([10, 20, 30, 40]), np.array([5, 5, 5, 40]))
    assert some.at_once(1000, 4) == (100, 55, False)
    assert some.at_once(50, 4) == (50, 40, True)
    assert some.at_once(8, 4)[0] == 40
    assert replace(some, computed=0.5).at_once(1000, 4)[:2] == (50, 55)


@pytest.mark.parametrize(("count", "batch", "steps"), [(500, 16, 60), (300, 8, 8), (2000, 32, 300)])
def test_the_largest_step_is_foreseen(count, batch, steps):
    draw = np.random.default_rng(4)
    lengths = draw.integers(40, 400, count)
    largest = [
        max(draw.permutation(lengths)[:batch].sum() for _ in range(steps)) for _ in range(12)
    ]
    foreseen, _, several = Rows(lengths, lengths // 2, draws=steps).at_once(10**6, batch)
    assert foreseen == pytest.approx(np.mean(largest), rel=0.04)
    assert not several


def test_importing_the_room_is_cheap():
    heavy = "{'torch', 'transformers', 'polars', 'scipy', 'ruamel'}"
    code = f"import weitiao.plan.resolved, weitiao.runs, sys; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"

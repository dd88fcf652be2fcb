"""Each verb to its end, on a model of a few thousand weights."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import QUICK, Weitiao, one_sentence
from weitiao import __version__

CONTROL = ("\x1b", "\r")


def test_run_does_everything(weitiao: Weitiao, data: Path, tiny_base: Path) -> None:
    said = weitiao("run", data, "--model", tiny_base, *QUICK)
    assert said.code == 0, said.err
    run = data.parent / "runs" / "tea"
    for name in ("recipe.yaml", "plan.json", "report.html", "evaluation/results.json"):
        assert (run / name).is_file(), name
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    stages = ["Data", "Plan", "Training", "Evaluation", "Result"]
    places = [said.out.index(f"== {stage} ==") for stage in stages]
    assert places == sorted(places)
    assert "62 rows read: 60 can be used, 2 cannot." in said.out
    assert "rejected.jsonl" in said.out
    assert "validation loss" in said.out
    assert "predicted:" in said.out
    assert "answer loss" in said.out
    assert "runs/tea/report.html" in said.out
    assert "weitiao chat runs/tea" in said.out
    assert not any(mark in said.out for mark in CONTROL)


def test_the_stages_one_by_one_give_the_same_files(
    weitiao: Weitiao, data: Path, tiny_base: Path, finished: Path
) -> None:
    split = weitiao("data", "split", data, "--model", tiny_base, *QUICK)
    assert split.code == 0
    assert "weitiao plan runs/tea" in split.out
    plan = weitiao("plan", "tea")
    assert "gradient clipping" in plan.out, "weitiao plan shows every setting"
    assert "weitiao train runs/tea" in plan.out
    train = weitiao("train", "tea")
    assert "weitiao eval runs/tea" in train.out
    assert "== Data ==" not in train.out
    evaluated = weitiao("eval", "runs/tea")
    assert "answer loss" in evaluated.out
    report = weitiao("report", "tea")
    assert "report.html" in report.out
    adapter = Path("runs/tea/adapter/adapter_model.safetensors")
    assert (data.parent / adapter).read_bytes() == (finished / adapter).read_bytes()
    recipe = weitiao("train", "tea", "epochs=9")
    assert "train.epochs" in one_sentence(recipe)


def test_reasoning_that_is_only_read_counts_as_said_and_a_text_does_not(
    weitiao: Weitiao, tmp_path: Path, tiny_base: Path
) -> None:
    thoughts = "先想一想水温和时间。" * 8
    rows = [
        {
            "prompt": f"第{i}杯泡几分钟？",
            "response": f"<think>\n{thoughts}\n</think>\n\n泡{i}分钟。",
        }
        for i in range(40)
    ]
    (tmp_path / "tea.json").write_text(json.dumps(rows), encoding="utf-8")
    long = "\n\n".join(f"茶叶的第{i}种做法要先晒干再揉，之后慢慢烘。" * 9 for i in range(30))
    (tmp_path / "book.md").write_text(long, encoding="utf-8")
    found = {}
    for reasoning in ("learn", "context", "drop"):
        mixed = (f"data.reasoning={reasoning}", "data.mix={book.md: 0.5}")
        said = weitiao("plan", "tea.json", "--model", tiny_base, "--out", reasoning, *mixed)
        assert said.code == 0, said.err
        plan = json.loads((tmp_path / reasoning / "plan.json").read_text(encoding="utf-8"))
        found[reasoning] = plan["max_new_tokens"]
    assert found["context"] == found["learn"] > 2 * found["drop"]
    assert found["drop"] == 32, "the least there is"


def test_what_does_not_decide_the_result_can_be_changed_in_the_midst(
    weitiao: Weitiao, data: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weitiao.training import loop

    begun = ("train", data, "--model", tiny_base, *QUICK)
    steps = 0

    def interrupted(engine: loop.Engine) -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        take_step(engine)

    take_step = loop.take_step
    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", interrupted)
        assert weitiao(*begun).code == 130
    assert "train.save_every=2" in one_sentence(weitiao("train", "tea", "save_every=1"))
    for decisive in ("learning_rate=0.5", "micro_batch_tokens=1024", "evaluate.seed=3"):
        refused = one_sentence(weitiao("train", "tea", "--resume", "save_every=1", decisive))
        assert decisive.split("=")[0] in refused
    changes = ("save_every=1", "keep_checkpoints=5", "micro_batch_tokens=256", "max_new_tokens=5",
               "gradient_checkpointing=full")  # fmt: skip
    said = weitiao("train", "tea", "--resume", *changes)
    assert said.code == 0, said.err
    assert "another setting: train.save_every=1 (it was 2)" in said.out
    assert said.out.count("another setting") == len(changes)
    run = data.parent / "runs" / "tea"
    assert sorted(f.name for f in (run / "checkpoints").iterdir()) == ["step-2", "step-3", "step-4"]
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    assert (plan["micro_batch_tokens"], plan["gradient_checkpointing"]) == (256, "full")
    assert plan["reasons"]["save_every"]["key"] == "plan.reason.asked"
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    assert "max_new_tokens: 5" in recipe
    assert "save_every: 1" in recipe
    # Of what is done nothing can be changed; of the answers, which are not, still something.
    assert "train.save_every" in one_sentence(weitiao("train", "tea", "--resume", "save_every=2"))
    assert weitiao("train", "tea", "--resume", "max_new_tokens=6").code == 0


def test_a_second_run_keeps_the_first(weitiao: Weitiao, data: Path, tiny_base: Path) -> None:
    for name in ("tea", "tea-2"):
        said = weitiao("plan", data, "--model", tiny_base, *QUICK)
        assert f"weitiao train runs/{name}" in said.out


def test_the_demo_takes_the_bundled_data(weitiao: Weitiao, tiny_base: Path) -> None:
    quick = [*QUICK, "data.limit=60", "evaluate.rows=6"]
    first = weitiao("demo", "--model", tiny_base, *quick)
    assert first.code == 0, first.err
    assert "weitiao chat runs/demo\n" in first.out
    assert "field intent" in first.out
    shown = weitiao("data", "show", "demo", "1")
    assert "微潮银行" in shown.out


def test_it_speaks_chinese(weitiao: Weitiao, data: Path, tiny_base: Path) -> None:
    said = weitiao("run", data, "--model", tiny_base, "--lang", "zh", *QUICK)
    assert said.code == 0
    for word in (
        "== 数据 ==",
        "== 计划 ==",
        "== 训练 ==",
        "== 评测 ==",
        "== 结果 ==",
        "与模型对话",
    ):
        assert word in said.out
    missing = weitiao("--lang=zh", "run", "nichts.json")
    assert "找不到文件" in one_sentence(missing)


def test_check_writes_nothing(weitiao: Weitiao, data: Path, tiny_base: Path) -> None:
    before = sorted(data.parent.rglob("*"))
    said = weitiao("data", "check", data, "--model", tiny_base)
    assert said.code == 0
    assert "tea.jsonl line 61" in said.out
    assert "Look there for a missing quote" in said.out
    assert sorted(data.parent.rglob("*")) == before


def test_show_marks_what_is_learnt(weitiao: Weitiao, data: Path, tiny_base: Path) -> None:
    said = weitiao("data", "show", data, "2", "--tokens", "--model", tiny_base)
    assert "Row 2 (tea.jsonl line 2)" in said.out
    assert "|<|im_start|>|us|er|⏎" in said.out
    assert "[泡][2][分][钟][。][<|im_end|>]" in said.out
    assert "6 of them learnt" in said.out
    three = weitiao("data", "show", data, "--model", tiny_base, "max_tokens=64")
    assert [f"Row {n}" in three.out for n in (1, 2, 3, 4)] == [True, True, True, False]
    none = weitiao("data", "show", data, "999", "--model", tiny_base)
    assert "60 usable rows" in one_sentence(none)


def test_rows_cannot_steer_the_terminal(weitiao: Weitiao, tmp_path: Path, tiny_base: Path) -> None:
    nasty = tmp_path / "nasty.jsonl"
    row = {"prompt": "wipe\x1b[2J\x07 \u202eit", "response": "no\x9b31m"}
    nasty.write_text("\n".join([json.dumps(row)] * 2), encoding="utf-8")
    said = weitiao("data", "show", nasty, "--model", tiny_base, "duplicates=keep")
    assert said.code == 0, said.err
    assert "wipe[2J it" in said.out
    assert "no31m" in said.out


def test_runs_lists_them(weitiao: Weitiao, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "weitiao demo" in weitiao("runs").out
    monkeypatch.chdir(finished)
    said = weitiao("runs", "--root", "runs")
    assert "tea" in said.out
    assert "measured" in said.out


def talk(weitiao: Weitiao, patch: pytest.MonkeyPatch, *lines: str, flags: tuple[str, ...] = ()):
    patch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    return weitiao("chat", "tea", "--max-new-tokens", "5", *flags)


def test_chat_through_a_pipe(
    weitiao: Weitiao, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    said = talk(
        weitiao,
        monkeypatch,
        "/base",
        "第3杯茶要泡几分钟？",
        "/base",
        "/set temperature 0.5",
        "/set temperature hot",
        "/set temperatur 1",
        "/sett",
        "/system 你是茶人。",
        "/new",
        "/help",
        "/quit",
        "not reached",
    )
    assert said.code == 0, said.err
    assert said.out.startswith("Ask something first")
    for part in (
        "temperature = 0.5",
        'not "hot"',
        "did you mean temperature?",
        "did you mean /set?",
        "System prompt: 你是茶人。",
        "A new conversation begins.",
        "/set NAME VALUE",
    ):
        assert part in said.out, part
    assert not any(mark in said.out for mark in CONTROL)


def test_chat_answers_the_same_at_temperature_zero(
    weitiao: Weitiao, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    said = talk(weitiao, monkeypatch, "泡几分钟？", "/new", "泡几分钟？")
    first, second = said.out.split("A new conversation begins.\n")
    assert first == second
    assert first.strip()
    wrong = talk(weitiao, monkeypatch, "hello", flags=("--top-p", "3"))
    assert "top_p" in one_sentence(wrong)


def test_version_and_help(weitiao: Weitiao) -> None:
    assert weitiao("--version").out == f"weitiao {__version__}\n"
    assert "Show this page" in weitiao().out
    assert "显示本页说明" in weitiao("--lang", "zh", "data", "--help").out
    assert "train.lora.rank" in weitiao("train", "--help").out


def test_help_imports_nothing_heavy() -> None:
    heavy = [
        "torch",
        "transformers",
        "peft",
        "polars",
        "scipy",
        "numpy",
        "pydantic",
        "jinja2",
        "huggingface_hub",
    ]
    code = (
        "import sys; from weitiao.cli import main; code = main(['--help']);"
        f"found = [m for m in {heavy} if m in sys.modules]; print(found, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "weitiao demo" in done.stdout
    assert done.stderr.strip() == "[]"

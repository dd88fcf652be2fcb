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

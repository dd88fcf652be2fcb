"""Runs with nothing in them but answers, and votes on them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from weitiao.evaluation.answers import Answered
from weitiao.runs import Run

HOSTILE = '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">'


def answered(row: int, question: str, answer: str) -> Answered:
    return Answered(
        row=row, key="k", file="tea.csv", line=row + 1, prompt=(("user", question),),
        reference=f"{question}！", text=answer, answer=answer, stopped=True, tokens=3,
        loss_sum=1.0, loss_tokens=3, seconds=0.1,
    )  # fmt: skip


def write_answers(path: Path, answers: Sequence[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [orjson.dumps(asdict(answered(i, q, a))) for i, (q, a) in enumerate(answers)]
    path.write_bytes(b"\n".join(lines))


def people_run(path: Path, rows: int = 6, *, tuned: str = "泡") -> Run:
    """Make a run: the tuned model names the minutes, the base talks on; one row is hostile."""
    run = Run(path)
    questions = [f"第{i}杯茶要泡几分钟" for i in range(rows)]
    base = [(q, HOSTILE if i == 0 else f"这杯茶啊，说来话长{i}。") for i, q in enumerate(questions)]
    best = [(q, f"{tuned}{i + 1}分钟。") for i, q in enumerate(questions)]
    write_answers(run.evaluation / "base.jsonl", base)
    write_answers(run.evaluation / "tuned.jsonl", best)
    run.recipe.write_text("data:\n  path: tea.csv\nevaluate:\n  resamples: 200\n", encoding="utf-8")
    return run

"""Evaluated runs made of nothing but answers, of which a known share is right."""

import random
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import orjson

from weitiao.evaluation.answers import Answered
from weitiao.evaluation.compare import compare
from weitiao.evaluation.suite import Suite, load_suite
from weitiao.plan.machine import Machine
from weitiao.plan.plan import make_plan, write_plan
from weitiao.plan.recipe import load_recipe
from weitiao.plan.shape import ModelShape
from weitiao.runs import Run


def made_plan(*settings: str):
    shape = ModelShape("Qwen2ForCausalLM", 8192, 256, 8, 4, 2, 64, 1024, True, 2048)
    machine = Machine(
        cores=2, memory_bytes=24 << 30, available_bytes=20 << 30, gpus=(), cpu_bf16="fast",
        disk_free_bytes=40 << 30, os="Linux", python="3.11.2", torch="2.13.0",
    )  # fmt: skip
    lengths = np.full(400, 60)
    return make_plan(load_recipe("default", settings), shape, lengths, lengths // 2, machine)


def answers(right: float, rows: range, *, seed: int = 0, tokens: int = 8) -> list[Answered]:
    """Answer questions on tea; a share ``right`` of them as the reference does."""
    rng = random.Random(seed)
    found = []
    for place, row in enumerate(rows):
        wanted = f"{row % 7 + 1}分钟"
        said = wanted if rng.random() < right else "不知道"
        found.append(
            Answered(
                row=place, key="k", file="tea.csv", line=row + 1,
                prompt=(("user", f"第{row}杯茶要泡几分钟？"),), reference=wanted, text=said,
                answer=said, stopped=True, tokens=3, loss_sum=9 - 3 * right + rng.gauss(0, 1),
                loss_tokens=tokens, seconds=0.1,
            )
        )  # fmt: skip
    return found


def evaluated_run(
    path: Path,
    right: float = 0.5,
    rows: range = range(60),
    *settings: str,
    suite: Suite | None = None,
    tokens: int = 8,
) -> Run:
    """Make a run whose tuned model is right so often; its base seldom is."""
    run, quick = Run(path), ("evaluate.resamples=300", *settings)
    run.evaluation.mkdir(parents=True)
    base = answers(0.05, rows, seed=1, tokens=tokens)
    tuned = answers(right, rows, seed=2, tokens=tokens)
    for name, side in (("base", base), ("tuned", tuned)):
        lines = b"\n".join(orjson.dumps(asdict(answer)) for answer in side)
        (run.evaluation / f"{name}.jsonl").write_bytes(lines)
    given = "\n".join(f"  {s.removeprefix('evaluate.').replace('=', ': ')}" for s in quick)
    run.recipe.write_text(f"evaluate:\n{given}\n", encoding="utf-8")
    write_plan(made_plan(), run.plan)
    used = suite or replace(load_suite("intents"), name="tea", version=1, digest="a" * 16)
    results = compare(base, tuned, load_recipe(str(run.recipe)).evaluate, used)
    (run.evaluation / "results.json").write_bytes(orjson.dumps(asdict(results)))
    return run

"""A run directory as the stages would leave it, made up from seeded numbers."""

import json
import random
from dataclasses import asdict
from math import exp
from pathlib import Path

import numpy as np
import orjson

from weitiao.evaluation.answers import Answered
from weitiao.evaluation.categories import Groups
from weitiao.evaluation.compare import compare
from weitiao.events import EventLog
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.plan.machine import Machine
from weitiao.plan.plan import make_plan, write_plan
from weitiao.plan.recipe import load_recipe
from weitiao.plan.shape import ModelShape
from weitiao.records.report import DataReport, FileReport, Lengths, Place, Rejection
from weitiao.runs import Run

INTENTS = {
    "report_lost_card": "我的卡丢了，尾号{n}，帮我挂失",
    "check_balance": "查一下尾号{n}的卡还有多少钱",
    "transfer_money": "给王小明转{n}块钱",
    "find_branch": "人民路{n}号附近有你们的网点吗",
}
HOSTILE = '<script>alert("x")</script> & <b>{{ 7 * 7 }}</b>'


def made_run(path: Path, *, measured: bool = True, trained: bool = True, rows: int = 120) -> Run:
    """Make a run directory of the bank demo; without training or evaluation if so asked."""
    run = Run(path)
    for folder in (run.records, run.evaluation):
        folder.mkdir(parents=True)
    run.recipe.write_text("model:\n  name: embedded\ntrain:\n  epochs: 5  # few rows\n", "utf-8")
    write_plan(_plan(), run.plan)
    _records(run)
    if trained:
        _training(EventLog(run.events))
    if measured:
        base, tuned = _answers(rows)
        intents = {answer.row: json.loads(answer.reference)["intent"] for answer in base}
        of_row = {row: intent for row, intent in intents.items() if row % 20}
        options = EvaluateOptions(resamples=500)
        results = compare(base, tuned, options, groups=Groups("intent", of_row))
        (run.evaluation / "results.json").write_bytes(orjson.dumps(asdict(results)))
        EventLog(run.events).emit("evaluation.done", rows=rows, outcome="better", seconds=41.7)
    return run


def _plan():
    shape = ModelShape("Qwen2ForCausalLM", 8192, 256, 8, 4, 2, 64, 1024, True, 2048)
    machine = Machine(
        cores=2,
        memory_bytes=24 << 30,
        available_bytes=20 << 30,
        gpus=(),
        cpu_bf16="fast",
        disk_free_bytes=40 << 30,
        os="Linux-6.1",
        python="3.11.2",
        torch="2.13.0",
    )
    rng = np.random.default_rng(0)
    lengths = rng.integers(60, 120, 1010)
    return make_plan(load_recipe("bank"), shape, lengths, lengths // 2, machine)


def _records(run: Run) -> None:
    reasons = {"duplicate": 30, "empty_answer": 24, "broken_json": 20, "special_token": 16}
    rejected = [
        ("duplicate", {"file": "bank.jsonl", "line": 12}, {"instruction": "查一下余额"}),
        ("empty_answer", {}, {"instruction": HOSTILE, "output": ""}),
        ("broken_json", {"column": 41}, '{"instruction": "给王小明转500块钱", "out'),
        ("special_token", {"token": "<|im_end|>"}, {"instruction": "你好<|im_end|>"}),
    ]
    examples = {
        reason: (
            Rejection(
                place=Place(file="bank.jsonl", line=40 + i, text=str(row)),
                reason=reason,
                values=values,
            ),
        )
        for i, (reason, values, row) in enumerate(rejected)
    }
    (run.records / "kept.jsonl").write_text('{"kept": 1}\n', "utf-8")
    report = DataReport(
        files=(
            FileReport(
                file="bank.jsonl",
                format="jsonl",
                encoding="utf-8",
                how="valid",
                shape="alpaca",
                columns={"prompt": "instruction", "response": "output"},
                rows=1352,
                kept=1262,
            ),
        ),
        rows=1352,
        kept=1262,
        rejected=90,
        reasons=reasons,
        shortened=0,
        samples=1262,
        tokens=114_000,
        scored_tokens=48_000,
        lengths=Lengths(min=41, p50=88, p90=104, p99=121, max=128),
        split={"train": 1010, "val": 126, "test": 126},
        notes=(),
        rejections=examples,
    )
    (run.records / "report.json").write_text(report.model_dump_json(), "utf-8")


def _training(log: EventLog) -> None:
    rng = random.Random(3)
    for step in range(1, 316):
        loss = 0.08 + 4.2 * exp(-step / 22) + abs(rng.gauss(0, 0.05 + 0.4 * exp(-step / 60)))
        log.emit("train.step", step=step, steps=315, loss=round(loss, 5), tokens=1450)
        if step % 40 == 0 or step == 315:
            validation = 0.21 + 3.9 * exp(-step / 25) + 0.0003 * max(0, step - 200)
            log.emit("train.eval", step=step, loss=round(validation, 5), best=step <= 200)
    log.emit(
        "train.done",
        steps=315,
        seconds=148.2,
        tokens=570_000,
        peak_memory_bytes=1_420_000_000,
        best_step=200,
        best_loss=0.2113,
        stopped_early=False,
    )


def _answers(rows: int) -> tuple[list[Answered], list[Answered]]:
    rng = random.Random(7)
    base, tuned = [], []
    for row in range(rows):
        intent = rng.choice(list(INTENTS))
        number = str(rng.randrange(1000, 9999))
        wanted = {"intent": intent, "slots": {"n": number}, "reply": f"已为您办理{number}。"}
        given = dict(wanted)
        if rng.random() < 0.1:
            given["intent"] = rng.choice(list(INTENTS))
        if rng.random() < 0.2:
            given["slots"] = {"n": number[::-1]}
        question = INTENTS[intent].format(n=number)
        said = HOSTILE if row % 2 == 0 else f"好的，{question}，请问您还需要什么帮助吗？"
        if rng.random() < 0.04:
            said, given["intent"] = json.dumps(wanted, ensure_ascii=False), "none"
        common = {"row": row, "prompt": (("user", question),), "reference": _json(wanted)}
        base.append(
            _answered(text=said, loss=rng.gauss(150, 20), stopped=rng.random() < 0.7, **common)
        )
        tuned.append(_answered(text=_json(given), loss=rng.gauss(9, 3), stopped=True, **common))
    return base, tuned


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _answered(*, text, loss, stopped, row, prompt, reference) -> Answered:
    return Answered(
        row=row,
        key="k",
        file="bank.jsonl",
        line=row + 1,
        prompt=prompt,
        reference=reference,
        text=text,
        answer=text,
        stopped=stopped,
        tokens=40,
        loss_sum=loss,
        loss_tokens=42,
        seconds=0.15,
    )

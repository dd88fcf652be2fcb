"""What a run tells in its exports: in the model card, and of how it is to be asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from weitiao.api.begin import noted_base, recipe_of, source_of
from weitiao.api.look import system_prompt
from weitiao.runs import Run

if TYPE_CHECKING:
    from weitiao.export.card import CardFacts, Score
    from weitiao.export.manner import Manner
    from weitiao.plan.plan import Plan
    from weitiao.plan.recipe import Recipe


def card_facts(run: Run, recipe: Recipe, settled: Plan) -> CardFacts:
    """Return what a model card tells of ``run``."""
    from weitiao.evaluation.report.facts import read_facts
    from weitiao.export.card import CardFacts, license_of
    from weitiao.records.report import load_report

    rows, happened = load_report(run.records / "report.json"), read_facts(run).training
    low_rank = settled.method in ("lora", "qlora")
    return CardFacts(
        name=run.path.resolve().name,
        base=recipe.model.name,
        license=license_of(source_of(recipe)),
        languages=_languages(run),
        rows_kept=rows.kept,
        rows_rejected=rows.rejected,
        method=settled.method,
        learning_rate=settled.learning_rate,
        epochs=settled.epochs,
        steps=happened.best_step if happened and happened.best_step else settled.steps,
        seed=settled.seed,
        rank=settled.lora_rank if low_rank else None,
        alpha=settled.lora_alpha if low_rank else None,
        quantization=None if settled.quantization == "none" else settled.quantization,
        scores=_measured(run),
    )


def manner_of(run: Run) -> Manner:
    """Return how the tuned model of ``run`` is to be asked: as it was trained and measured."""
    from weitiao.export.manner import Manner
    from weitiao.plan.plan import read_plan

    asked = recipe_of(run).evaluate
    return Manner(
        system_prompt(run),
        asked.temperature,
        asked.top_p,
        asked.repetition_penalty,
        read_plan(run.plan).quantization,
        noted_base(run),
    )


def manner_in(folder: Path) -> Manner:
    """Return how the model in ``folder`` is to be asked: as its export says, or its run.

    Raises:
        RunError: what its export says cannot be read.
    """
    from weitiao.export.manner import MANNER, Manner, read_manner

    if (folder / MANNER).is_file():
        return read_manner(folder / MANNER)
    run = Run(folder.resolve().parent)
    own = folder.resolve() in (run.adapter, run.model)
    return manner_of(run) if own and run.stage_done("plan") else Manner()


def _measured(run: Run) -> tuple[Score, ...]:
    """Return the scores that have an interval, the deciding one first; none before evaluation."""
    from weitiao.evaluation.evaluate import load_results
    from weitiao.export.card import Score

    if not run.stage_done("evaluate"):
        return ()
    results = load_results(run.evaluation / "results.json")
    lines = sorted(results.scores, key=lambda line: line.name != results.verdict.score)
    return tuple(
        Score(line.name, line.base.value, line.tuned.value, change.low, change.high, line.rows)
        for line in lines
        if (change := line.difference).low is not None and change.high is not None
    )


def _languages(run: Run) -> tuple[str, ...]:
    """Return zh, en or both: what a tenth of the training answers or more is written in."""
    from weitiao.records.prepare import load_records

    chinese = [
        re.search("[一-鿿]", record.answer or record.text or "") is not None
        for record in load_records(run.records / "train.jsonl")
    ]
    share = sum(chinese) / max(len(chinese), 1)
    return tuple(name for name, part in (("zh", share), ("en", 1 - share)) if part >= 0.1)

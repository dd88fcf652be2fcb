"""The score table of an evaluation that was done as a job."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from weitiao.evaluation.answers import Answered
from weitiao.evaluation.resample import compare_paired
from weitiao.evaluation.suite import WHOLE_SET, Score, kind_of, load_suite, score_for
from weitiao.plan.evaluate_options import EvaluateOptions


def scored(lines: Iterable[str], suite: str) -> dict[str, Any]:
    """Return the suite's scores of the answers in result lines, each with its interval.

    Rows that were refused have no part in it. A server tells no losses of references: the
    scores made of them are not there.

    Raises:
        DataError, RecipeError: the suite cannot be read.
    """
    rows = [row for place, line in enumerate(lines) if (row := _row(place, line)) is not None]
    references = [row.reference for row in rows]
    asked, options = load_suite(suite), EvaluateOptions()
    kind = kind_of(references) if rows else "passage"
    table: list[dict[str, Any]] = []
    for name in asked.scores if rows else ():
        if name in WHOLE_SET:
            value = WHOLE_SET[name](row.answer for row in rows)
            table += [{"name": name, "rows": len(rows), "value": value}] if value else []
            continue
        score = score_for(name, references, asked)
        if score is not None and kind in score.kinds:
            table += _line(score, rows, options)
    return {
        "suite": asked.name,
        "version": asked.version,
        "answers": kind,
        "rows": len(rows),
        "confidence": options.confidence,
        "scores": table,
    }


def _line(score: Score, rows: Sequence[Answered], options: EvaluateOptions) -> list[dict[str, Any]]:
    found = [statistics for row in rows if (statistics := score.statistics(row)) is not None]
    if not found:
        return []
    values = np.array(found, dtype=float)
    # One system beside itself: the interval is what is wanted here, not the difference.
    estimate = compare_paired(
        values,
        values,
        score.total,
        confidence=options.confidence,
        resamples=options.resamples,
        seed=options.seed,
    ).tuned
    told = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return [{"name": score.name, "rows": len(found), **told}]


def _row(place: int, line: str) -> Answered | None:
    told: Mapping[str, Any] = orjson.loads(line)
    if told["error"] is not None:
        return None
    body = told["response"]["body"]
    choice = body["choices"][0]
    # Reasoning stands apart already, where the model's template opens with it.
    said = choice["message"]["content"]
    answer = said.rpartition("</think>")[2].strip()
    return Answered(
        row=place,
        key="",
        file="",
        line=place + 1,
        prompt=(),
        reference=told["reference"].strip(),
        text=said,
        answer=answer,
        stopped=choice["finish_reason"] == "stop",
        tokens=body["usage"]["completion_tokens"],
        loss_sum=None,
        loss_tokens=0,
        seconds=0.0,
    )

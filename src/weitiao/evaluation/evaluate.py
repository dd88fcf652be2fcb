"""Base and tuned answer the held-out rows; what comes out is compared and written down."""

import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from weitiao.errors import DataError
from weitiao.evaluation.answers import Answered, Answerer, answer_rows
from weitiao.evaluation.beside import reader
from weitiao.evaluation.categories import group
from weitiao.evaluation.compare import Results, compare
from weitiao.evaluation.suite import Suite
from weitiao.evaluation.toxicity_http import ask_scorer
from weitiao.events import EventLog
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.records.files import write_atomic
from weitiao.records.record import Record


def evaluate(
    records: Sequence[Record],
    base: Answerer,
    tuned: Answerer,
    options: EvaluateOptions,
    suite: Suite,
    out_dir: Path,
    events: EventLog,
    *,
    batch_size: int,
    max_tokens: int,
) -> Results:
    """Measure ``tuned`` against ``base`` on at most ``options.rows`` of ``records`` by ``suite``.

    Writes ``base.jsonl``, ``tuned.jsonl`` and ``results.json`` into ``out_dir``; a killed
    evaluation goes on where it was. ``max_tokens`` is the length to which training shortened
    rows. Emits ``evaluation.progress`` (see :func:`answer_rows`) and ``evaluation.done``:
    rows, outcome, overlap, seconds.

    Raises:
        DataError: there are no held-out rows.
        EndpointError: the user's scorer of toxicity cannot be asked.
        RunError: the results cannot be written.
    """
    if not records:
        raise DataError("error.no_held_out_rows")
    started = time.monotonic()
    rows = held_out(len(records), options.rows, options.seed)

    def answers(answerer: Answerer, name: str) -> list[Answered]:
        return answer_rows(
            records,
            rows,
            answerer,
            out_dir / name,
            events,
            batch_size=batch_size,
            max_tokens=max_tokens,
        )

    both = answers(base, "base.jsonl"), answers(tuned, "tuned.jsonl")
    toxic = None
    if options.toxicity_url:
        said = (answer.answer for side in both for answer in side)
        toxic = ask_scorer(options.toxicity_url, said, out_dir / "toxicity.jsonl")
    results = compare(*both, options, suite, toxic, group(records, rows))
    write_atomic(
        out_dir / "results.json", orjson.dumps(asdict(results), option=orjson.OPT_INDENT_2)
    )
    seconds = round(time.monotonic() - started, 1)
    events.emit(
        "evaluation.done",
        rows=results.rows,
        outcome=results.verdict.outcome,
        overlap=results.overlap,
        seconds=seconds,
    )
    return results


def held_out(count: int, rows: int, seed: int) -> list[int]:
    """Return which of ``count`` rows are used: all, or ``rows`` of them drawn with ``seed``."""
    return sorted(random.Random(seed).sample(range(count), min(rows, count)))


load_results = reader(Results)
"""Read ``results.json``; RunError where it is missing or is not of this version."""

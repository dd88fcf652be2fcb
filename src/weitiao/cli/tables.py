"""What was found and settled, as tables and sentences for a person."""

import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from weitiao.cli.screen import clean, lasted, memory, speed
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.evaluation.compare import Results, ScoreResult
    from weitiao.evaluation.examples import Example
    from weitiao.plan.plan import Plan
    from weitiao.records.report import DataReport
    from weitiao.runs import RunSummary

MAIN_SETTINGS = (
    "device",
    "method",
    "lora_rank",
    "learning_rate",
    "batch_size",
    "epochs",
    "steps",
    "precision",
    "max_new_tokens",
)
"""The settings of a plan that are shown where not all of them are asked for."""

ANSWER_CHARACTERS, ANSWER_LINES = 360, 10
_CHANGE_STYLES = {"better": "green", "worse": "red"}
_OUTCOME_STYLES = {"better": "bold green", "worse": "bold red"}


def command(*words: str) -> str:
    """Return a command to copy: the first word as it is, the others quoted where need be."""
    verb, *rest = words
    return " ".join([verb, *(shlex.quote(word) for word in rest)])


def table(*columns: str) -> Table:
    """Return an empty table with these headings."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in columns:
        made.add_column(heading, overflow="fold")
    return made


def data_sentences(report: "DataReport") -> list[str]:
    """Return what was read and what became of it."""
    said = [clean(file.sentence()) for file in report.files]
    key = "cli.data.kept" if report.rejected else "cli.data.all_kept"
    said.append(
        say(key, rows=f"{report.rows:,}", kept=f"{report.kept:,}", rejected=f"{report.rejected:,}")
    )
    return said


def split_sentences(report: "DataReport") -> list[str]:
    """Return how the rows are divided, how long they are, and what else should be known."""
    lengths = report.lengths
    said = [say("report.split", **{part: f"{rows:,}" for part, rows in report.split.items()})]
    if report.tokens:  # none where they were not counted
        numbers = {"p50": lengths.p50, "p99": lengths.p99, "max": lengths.max}
        said.append(say("report.lengths", shortened=report.shortened, **numbers))
    return said + [clean(note.sentence()) for note in report.notes]


def rejections(report: "DataReport") -> Table:
    """Return the reasons with their counts, a first example of each, and what to do."""
    made = table(say("report.rows"), say("report.for_example"), say("report.why"))
    made.columns[0].justify = "right"
    for name, count in report.reasons.items():
        example = report.rejections[name][0]
        why = Text(clean(example.sentence(), 200))
        why.append("\n" + clean(example.hint(), 200), style="dim")
        place = say("report.place", file=example.place.file, line=example.place.line)
        made.add_row(f"{count:,}", clean(place), why)
    return made


def settings(plan: "Plan", *, every: bool) -> Table:
    """Return the settings with their reasons: the main ones, or all that have one."""
    made = table(say("cli.plan.setting"), say("cli.plan.value"), say("cli.plan.why"))
    settled = plan.settled()
    for name in settled if every else [name for name in MAIN_SETTINGS if name in settled]:
        why = clean(plan.reasons[name].sentence())
        made.add_row(say(f"report.setting.{name}"), _value(getattr(plan, name)), Text(why))
    return made


def _value(value: object) -> str:
    if isinstance(value, bool):
        return say("report.yes" if value else "report.no")
    if isinstance(value, float):
        return f"{value:g}"
    return clean(", ".join(value) if isinstance(value, tuple) else str(value))


def forecast(plan: "Plan") -> str:
    """Say what the run is expected to take."""
    predicted = plan.predicted
    return say(
        "cli.plan.forecast",
        train=lasted(predicted.train_seconds),
        evaluate=lasted(predicted.eval_seconds),
        memory=memory(predicted.peak_memory_bytes),
        free=memory(plan.machine.free_on(plan.device)),
        speed=speed(predicted.tokens_per_second),
    )


def scores(results: "Results") -> Table:
    """Return base against tuned, a line for each score, and below it for each JSON field."""
    from weitiao.evaluation.present import score_name, written, written_change, written_interval

    made = table(
        say("report.score"),
        say("report.base"),
        say("report.tuned"),
        say("report.difference"),
        say("cli.result.interval", confidence=f"{100 * results.confidence:g}%"),
        "",
    )
    for column in made.columns[1:5]:
        column.justify = "right"

    # The unit stands in the column before; twice in a line is too wide for 80 characters.
    unit = say("unit.points", value="")

    def add(line: "ScoreResult") -> None:
        name, deciding = line.name, line.name == results.verdict.score
        mark = say(f"report.change.{line.change}") if line.change else ""
        made.add_row(
            clean(score_name(name), 40),
            written(name, line.base.value),
            written(name, line.tuned.value),
            written_change(name, line.difference.value),
            written_interval(name, line.difference).removesuffix(unit),
            Text(mark, style=_CHANGE_STYLES.get(line.change or "", "")),
            style="bold" if deciding else "",
        )

    for line in results.scores:
        add(line)
    if results.fields:
        made.add_section()
    for line in results.fields:
        add(line)
    return made


def verdict(results: "Results") -> tuple[Text, list[str]]:
    """Return the verdict in one sentence, and the sentences of caution.

    The last are the rows that turned from right to wrong, and where it got worse.
    """
    from weitiao.evaluation.present import (
        caution_sentence,
        turned_sentence,
        verdict_sentence,
        worst_category_sentence,
    )

    found = results.verdict
    style = _OUTCOME_STYLES.get(found.outcome, "bold yellow")
    cautions = [caution_sentence(results, name) for name in found.cautions]
    if results.turned and results.turned.wrong:
        cautions.append(turned_sentence(results))
    if worst := worst_category_sentence(results):
        cautions.append(clean(worst))
    return Text(verdict_sentence(results), style=style), cautions


def side_by_side(examples: Sequence["Example"]) -> list[Table]:
    """Return a table for each example: the question above, base and tuned beside each other."""
    return [_side_by_side(number, example) for number, example in enumerate(examples, start=1)]


def _side_by_side(number: int, example: "Example") -> Table:
    asked = clean(example.question.strip(), ANSWER_CHARACTERS, lines=4)
    wanted = clean(example.reference.strip(), ANSWER_CHARACTERS, ANSWER_LINES)
    title = Text(f"{number}. ", style="bold")
    title.append(asked)
    title.append("\n" + say("cli.result.reference", text=wanted), style="dim")
    made = Table(
        box=box.ROUNDED, title=title, title_justify="left", title_style="", expand=True,
        border_style="dim",
    )  # fmt: skip
    for heading in (say("report.base"), say("report.tuned")):
        made.add_column(heading, ratio=1, overflow="fold")
    made.add_row(*(_answer(text) for text in (example.base, example.tuned)))
    return made


def _answer(text: str) -> Text:
    shown = clean(text.strip(), ANSWER_CHARACTERS, ANSWER_LINES)
    return Text(shown) if shown.strip() else Text(say("report.empty"), style="dim")


def runs(found: Sequence["RunSummary"]) -> Table:
    """Return the list of runs."""
    made = table(*(say(f"cli.runs.{name}") for name in _RUN_COLUMNS))
    for line in found:
        made.add_row(
            clean(line.name),
            say(f"cli.status.{line.status}"),
            say(f"cli.outcome.{line.verdict}") if line.verdict else "–",
            clean(line.model or "–"),
            "–" if line.rows is None else f"{line.rows:,}",
            "–" if line.steps is None else f"{line.steps:,}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(line.when)),
        )
    return made


_RUN_COLUMNS = ("name", "status", "verdict", "model", "rows", "steps", "when")

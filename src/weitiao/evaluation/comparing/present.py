"""A comparison of runs in words and written numbers, for the terminal and the page alike."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from weitiao.evaluation.compare import ScoreResult
from weitiao.evaluation.comparing.runs import Against, Column, RunsCompared
from weitiao.evaluation.present import in_numbers, score_name, written
from weitiao.evaluation.resample import Estimate
from weitiao.words import Language, say

NOTHING = "–"
"""What stands where a run has no such number."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table of runs, with a cell for each; ``decides``: it is the deciding score."""

    label: str
    cells: tuple[str, ...]
    decides: bool = False


def table_lines(found: RunsCompared, language: Language | None = None) -> Iterator[Line]:
    """Yield what the runs were made of, their scores, and what else was measured."""
    columns = found.columns

    def line(label: str, cell: Callable[[Column], str | None]) -> Iterator[Line]:
        cells = tuple(cell(column) or NOTHING for column in columns)
        if any(written_cell != NOTHING for written_cell in cells):
            yield Line(label, cells)

    yield from line(say("report.base_model", language), lambda c: c.plan.model)
    yield from line(_named("method", language), lambda c: c.plan.method)
    yield from line(say("compare.training_rows", language), lambda c: f"{c.plan.rows:,}")
    yield from line(_named("steps", language), lambda c: f"{c.plan.steps:,}")
    yield from line(say("report.rows_measured", language), lambda c: f"{c.results.rows:,}")
    yield from line(
        say("compare.verdict_line", language),
        lambda c: say(f"cli.outcome.{c.results.verdict.outcome}", language),
    )
    yield from _scores(columns, language)
    yield from line(say("compare.agreement", language), _agreement)
    yield from line(say("compare.memorised", language), _memorised)
    yield from line(say("compare.pace", language), lambda c: _pace(c, language))
    yield from line(say("compare.first_token", language), _first_token)
    yield from line(say("compare.memory", language), _memory)
    yield from line(say("compare.judge", language), _judged)
    yield from _tasks(columns, language)


def _named(setting: str, language: Language | None) -> str:
    name = say(f"report.setting.{setting}", language)
    return name[0].upper() + name[1:]


def verdict_sentences(
    found: RunsCompared, language: Language | None = None
) -> Iterator[tuple[str, str]]:
    """Yield a sentence for each run but the first, with ``better``, ``worse``, ``same`` …

    Behind it stand those on scores that got worse, each with ``caution``.
    """
    for against in found.against:
        results, verdict = against.results, against.results.verdict
        names = {"name": against.name, "first": found.columns[0].name}
        if verdict.outcome == "cannot_tell":
            key = "compare.verdict.cannot_tell"
            yield say(key, language, **names, rows=results.rows), verdict.outcome
            continue
        said = say(
            f"compare.verdict.{verdict.outcome}",
            language,
            **names,
            **in_numbers(results.score(verdict.score), language),
            confidence=f"{100 * results.confidence:g}%",
            rows=results.rows,
        )
        yield said, verdict.outcome
        for name in verdict.cautions:
            numbers = in_numbers(results.score(name), language)
            yield say("compare.caution", language, **names, **numbers), "caution"


def pair_lines(
    against: Against, language: Language | None = None
) -> Iterator[tuple[ScoreResult, tuple[str, str, str, str, str]]]:
    """Yield each score on the rows in common: name, first run, this one, change, interval."""
    results = against.results
    for line in (*results.scores, *results.fields):
        score, before, after, change, interval = in_numbers(line, language).values()
        yield line, (score, before, after, change, interval)


def _scores(columns: tuple[Column, ...], language: Language | None) -> Iterator[Line]:
    """Yield a line for each score, two with intervals for the one that decides."""
    rows = [{s.name: s for s in (*c.results.scores, *c.results.fields)} for c in columns]
    deciding = columns[0].results.verdict.score
    for name in dict.fromkeys(name for row in rows for name in row):
        here = [row.get(name) for row in rows]
        label = score_name(name, language)
        if name == deciding:
            for key, side in (("compare.base_of", "base"), ("compare.tuned_of", "tuned")):
                cells = [NOTHING if s is None else _within(name, getattr(s, side)) for s in here]
                yield Line(say(key, language, score=label), tuple(cells), decides=True)
        else:
            cells = [NOTHING if s is None else _both(s) for s in here]
            yield Line(label, tuple(cells))


def _both(score: ScoreResult) -> str:
    return f"{written(score.name, score.base.value)} → {written(score.name, score.tuned.value)}"


def _within(name: str, estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return written(name, estimate.value)
    ends = f"{written(name, estimate.low)} … {written(name, estimate.high)}"
    return f"{written(name, estimate.value)} ({ends})"


def _agreement(column: Column) -> str | None:
    measured = column.forgetting
    return f"{100 * measured.whole.agreement.value:.0f}%" if measured else None


def _memorised(column: Column) -> str | None:
    measured = column.memorising
    return f"{measured.tuned.whole} / {measured.asked}" if measured and measured.asked else None


def _pace(column: Column, language: Language | None) -> str | None:
    if column.speed is None:
        return None
    rate = f"{column.speed.tuned.tokens_per_second:,.0f}"
    return say("report.tokens_per_second", language, rate=rate)


def _first_token(column: Column) -> str | None:
    return f"{column.speed.tuned.first_token_seconds:.2f} s" if column.speed else None


def _memory(column: Column) -> str | None:
    return f"{column.speed.tuned.memory_bytes / 2**30:.1f} GB" if column.speed else None


def _judged(column: Column) -> str | None:
    return f"{100 * column.judged.win_rate.value:.0f}%" if column.judged else None


def _tasks(columns: tuple[Column, ...], language: Language | None) -> Iterator[Line]:
    """Yield the lines of lm-eval; only what was asked of as many documents stands in one line."""
    here = []
    for column in columns:
        lines = column.lm_eval.lines if column.lm_eval else ()
        chat = column.lm_eval is not None and column.lm_eval.chat
        here.append({(x.task, x.metric, x.version, x.rows, x.shots, chat): x for x in lines})
    for key in dict.fromkeys(key for lines in here for key in lines):
        task, metric, _, rows, _, _ = key
        label = say("compare.lm_eval", language, task=task, metric=metric, rows=f"{rows:,}")
        found = [lines.get(key) for lines in here]
        cells = [NOTHING if x is None else f"{x.base:.3f} → {x.tuned:.3f}" for x in found]
        yield Line(label, tuple(cells))

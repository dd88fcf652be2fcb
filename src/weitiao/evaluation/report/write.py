"""Fills the page with the facts of a run, every sentence in both languages."""

from math import inf
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from weitiao.errors import DataError
from weitiao.evaluation import present
from weitiao.evaluation.compare import Results, ScoreResult
from weitiao.evaluation.poems import as_text, read_poem
from weitiao.evaluation.report.bilingual import in_both, said
from weitiao.evaluation.report.differences import compared, marked_answers
from weitiao.evaluation.report.draw import interval_bars, loss_curve
from weitiao.evaluation.report.facts import Facts, read_facts
from weitiao.evaluation.report.forest import forest
from weitiao.evaluation.report.sections import sections
from weitiao.evaluation.report.template import page_environment
from weitiao.evaluation.suite import form_of
from weitiao.plan.plan import Plan
from weitiao.records.files import write_atomic
from weitiao.runs import Run
from weitiao.words import Language, language, say

LOSSES_SHOWN = 8


def write_report(run: Run) -> Path:
    """Write ``report.html`` of a run, whatever stage it has come to, and return its path.

    The page opens in the language spoken now and changes at a click. It loads nothing.

    Raises:
        RunError: a file of the run is not of this version, or the page cannot be written.
    """
    facts = read_facts(run)
    page = _environment().get_template("page.html.jinja")
    write_atomic(run.report, page.render(facts=facts, language=language(), **_drawings(facts)))
    return run.report


def _environment() -> Environment:
    environment = page_environment("weitiao.evaluation.report")
    environment.globals.update(
        t=said,
        two=in_both,
        present=present,
        bars=_bars,
        change=_change,
        counted=_counted,
        marked=marked_answers,
        compared=compared,
        poem=_poem,
        infinity=inf,
        losses_shown=LOSSES_SHOWN,
        categories_lead=_categories_lead,
        example_note=_example_note,
        settings=_settings,
        forecast=_forecast,
        duration=lambda seconds: in_both(_duration, seconds),
    )
    return environment


def _drawings(facts: Facts) -> dict[str, Any]:
    training = facts.training
    curve = None
    if training is not None:
        curve = loss_curve(training.steps, training.validation, training.best_step)
    drawn = forest(facts.results) if facts.results else None
    return {"curve": curve, "forest": drawn, "sections": list(sections(facts))}


def _bars(results: Results, line: ScoreResult) -> Markup:
    """Draw a line of the table; shares and points have their natural ends."""
    ends = {"share": 1.0, "points": 100.0}
    values = (line.base.high, line.tuned.high, line.base.value, line.tuned.value)
    top = ends.get(form_of(line.name), 1.05 * max(v for v in values if v is not None))
    return interval_bars(line.base, line.tuned, top)


def _change(line: ScoreResult, spoken: Language) -> str:
    return present.written_change(line.name, line.difference.value, language=spoken)


def _example_note(results: Results, spoken: Language) -> str:
    name = results.example_score
    score, how = present.score_name(name, spoken), present.score_how(name, spoken)
    return say("report.example_note", spoken, score=score, how=how)


def _categories_lead(results: Results, spoken: Language) -> str:
    score = present.score_name(results.categories[0].line.name, spoken)
    if not results.category_column:
        return say("report.categories_labels", spoken, score=score)
    return say("report.categories_lead", spoken, score=score, column=results.category_column)


def _counted(results: Results, line: ScoreResult) -> Markup:
    """Return the small print of a score: its chance, its effect, and what it counts."""
    parts: list[Markup] = []
    if line.p_adjusted is not None:
        parts.append(escape(present.written_chance(line.p_adjusted)))
    if line.effect is not None:
        parts.append(said("report.effect", value=f"{abs(line.effect):.2f}"))
    if counts := results.suite.tokenisation.get(line.name):
        parts.append(said(f"report.counts.{counts}"))
    return Markup(" · ").join(parts)


def _poem(results: Results, text: str) -> Markup | None:
    """Return a poem with its tones and what is found in it, where the suite is about poems."""
    if not any(name.startswith("poem_") for name in results.suite.scores) or not text.strip():
        return None
    try:
        return in_both(as_text, read_poem(text, results.suite.rhymes))
    except DataError:  # the run was measured where the tables are installed
        return None


def _settings(plan: Plan) -> list[tuple[Markup, Markup, Markup]]:
    """Return (what it is called, value, reason) of each setting that has a reason."""
    rows = []
    for name in plan.settled():
        label = said(f"report.setting.{name}")
        value = _value(getattr(plan, name))
        rows.append((label, value, in_both(plan.reasons[name].sentence)))
    return rows


def _value(value: object) -> Markup:
    if isinstance(value, bool):
        return said("report.yes" if value else "report.no")
    if isinstance(value, float):
        return escape(f"{value:g}")
    return escape(", ".join(value) if isinstance(value, tuple) else value)


def _forecast(facts: Facts) -> list[tuple[Markup, Markup, Markup]]:
    """Return (what, predicted, what happened); a dash where it has not happened."""
    if facts.plan is None:
        return []
    predicted, training = facts.plan.predicted, facts.training
    return [
        (
            said("report.peak_memory"),
            in_both(_memory, predicted.peak_memory_bytes),
            in_both(_memory, training.peak_memory_bytes if training else None),
        ),
        (
            said("report.train_time"),
            in_both(_duration, predicted.train_seconds),
            in_both(_duration, training.seconds if training else None),
        ),
        (
            said("report.speed"),
            in_both(_speed, predicted.tokens_per_second),
            in_both(_speed, training.tokens_per_second if training else None),
        ),
        (
            said("report.eval_time"),
            in_both(_duration, predicted.eval_seconds),
            in_both(_duration, facts.evaluation_seconds),
        ),
    ]


def _memory(size: int | None, spoken: Language) -> str:
    return "–" if size is None else f"{size / 2**30:.2f} GB"


def _speed(rate: float | None, spoken: Language) -> str:
    return "–" if rate is None else say("report.tokens_per_second", spoken, rate=f"{rate:,.0f}")


def _duration(seconds: float | None, spoken: Language) -> str:
    if seconds is None:
        return "–"
    if seconds < 100:
        return say("report.seconds", spoken, seconds=f"{seconds:.0f}")
    if seconds < 5400:
        return say("report.minutes", spoken, minutes=f"{seconds / 60:.1f}")
    return say("report.hours", spoken, hours=f"{seconds / 3600:.1f}")

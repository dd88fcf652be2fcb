"""Fills the page with the facts of a run, every sentence in both languages."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from weitiao import __version__
from weitiao.evaluation import present
from weitiao.evaluation.compare import Results, ScoreResult
from weitiao.evaluation.report.draw import interval_bars, loss_curve
from weitiao.evaluation.report.facts import Facts, read_facts
from weitiao.evaluation.suite import form_of
from weitiao.plan.plan import Plan
from weitiao.records.files import write_atomic
from weitiao.runs import Run
from weitiao.words import Language, language, say


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
    environment = Environment(
        loader=PackageLoader("weitiao.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        css=Markup((resources.files(__package__) / "page.css").read_text(encoding="utf-8")),
        version=__version__,
        t=_said,
        two=_in_both,
        present=present,
        bars=_bars,
        change=_change,
        example_note=_example_note,
        settings=_settings,
        forecast=_forecast,
        duration=lambda seconds: _in_both(_duration, seconds),
    )
    return environment


def _in_both(speak: Callable[..., str], *values: Any) -> Markup:
    """Return what ``speak(*values, language)`` says in both languages; the page shows one."""
    english, chinese = speak(*values, "en"), speak(*values, "zh")
    if english == chinese:
        return escape(english)
    return Markup(
        '<span class="en" lang="en">{}</span><span class="zh" lang="zh">{}</span>'
    ).format(english, chinese)


def _said(key: str, **values: object) -> Markup:
    return _in_both(lambda spoken: say(key, spoken, **values))


def _drawings(facts: Facts) -> dict[str, Any]:
    training = facts.training
    curve = None
    if training is not None:
        curve = loss_curve(training.steps, training.validation, training.best_step)
    return {"curve": curve}


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


def _settings(plan: Plan) -> list[tuple[Markup, Markup, Markup]]:
    """Return (what it is called, value, reason) of each setting that has a reason."""
    rows = []
    for name in plan.settled():
        label = _said(f"report.setting.{name}")
        value = _value(getattr(plan, name))
        rows.append((label, value, _in_both(plan.reasons[name].sentence)))
    return rows


def _value(value: object) -> Markup:
    if isinstance(value, bool):
        return _said("report.yes" if value else "report.no")
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
            _said("report.peak_memory"),
            _in_both(_memory, predicted.peak_memory_bytes),
            _in_both(_memory, training.peak_memory_bytes if training else None),
        ),
        (
            _said("report.train_time"),
            _in_both(_duration, predicted.train_seconds),
            _in_both(_duration, training.seconds if training else None),
        ),
        (
            _said("report.speed"),
            _in_both(_speed, predicted.tokens_per_second),
            _in_both(_speed, training.tokens_per_second if training else None),
        ),
        (
            _said("report.eval_time"),
            _in_both(_duration, predicted.eval_seconds),
            _in_both(_duration, facts.evaluation_seconds),
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

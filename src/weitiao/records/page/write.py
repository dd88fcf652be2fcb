"""Fills the page with a report, in one language."""

from collections.abc import Iterable, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from weitiao import __version__
from weitiao.records.files import write_atomic
from weitiao.records.page import marks
from weitiao.records.page.advice import advice, private_flags, quality_flags, strength
from weitiao.records.page.draw import histogram
from weitiao.records.record import Reason
from weitiao.records.report import Change, DataReport, Note, Rejection
from weitiao.words import Language, catalogue, language, say

if TYPE_CHECKING:
    from jinja2 import Environment

_TEXT, _VALUE, _SENTENCE = 280, 60, 600
"""The most characters shown of a row, of a name or value, of a sentence that holds some."""


def write_page(
    report: DataReport, path: Path, title: str, in_language: Language | None = None
) -> None:
    """Write the page to ``path``; ``title`` is what the data is called.

    Raises:
        RunError: the page cannot be written.
    """
    write_atomic(path, page_html(report, title, in_language))


def page_html(report: DataReport, title: str, in_language: Language | None = None) -> str:
    """Return the page in ``in_language``, by default the one spoken now.

    It loads nothing and runs nothing. Whatever stands in rows and names of files shows as
    text, cut where it is long, with what is invisible named.
    """
    spoken = in_language or language()
    return (
        _environment(spoken)
        .get_template("page.html.jinja")
        .render(
            report=report,
            title=marks.cut(title, _VALUE),
            language=spoken,
            chart=histogram(report.histogram, report.limit),
            private=private_flags(report),
            flags=quality_flags(report),
            steps=[step for step in report.steps if step.rows],
            todo=advice(report, spoken),
        )
    )


def _environment(spoken: Language) -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("weitiao.records.page", "."),
        autoescape=True,
        # Names of files and columns stand in many places: no invisible character gets through.
        finalize=lambda value: marks.plain(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        css=Markup((resources.files(__package__) / "page.css").read_text(encoding="utf-8")),
        version=__version__,
        t=lambda key, **values: say(key, spoken, **values),
        why=partial(_why, spoken),
        hint=partial(_hint, spoken),
        named=partial(_named, spoken),
        agreement=lambda kappa: strength(kappa, spoken),
        change=_change,
        alike_text=_alike,
        note_sentence=partial(_note, spoken),
        largest=_largest,
    )
    environment.filters.update(
        n=lambda number: f"{number:,}",
        percent=_percent,
        text=lambda text: _marked(marks.named(marks.cut(text, _TEXT))),
        value=lambda text: marks.cut(str(text), _VALUE),
        sentence=lambda text: marks.cut(text, _SENTENCE),
    )
    return environment


def _named(spoken: Language, key: str, name: str) -> str:
    """Return the catalogue's word, or ``name`` as it is: a report may be of another version."""
    return say(key, spoken) if key in catalogue() else name


def _note(spoken: Language, note: Note) -> str:
    try:
        return note.sentence(spoken)
    except (KeyError, IndexError):
        return note.name


def _why(spoken: Language, name: str, examples: Iterable[Rejection]) -> str:
    """Return a reason in words, with the values of its first example."""
    try:
        return Reason(name, _values(examples)).sentence(spoken)
    except (KeyError, IndexError):
        return name


def _hint(spoken: Language, name: str, examples: Iterable[Rejection]) -> str:
    try:
        return Reason(name, _values(examples)).hint(spoken)
    except (KeyError, IndexError):
        return ""


def _values(examples: Iterable[Rejection]) -> Mapping[str, object]:
    return next((example.values for example in examples), {})


def _percent(part: int, whole: int) -> str:
    """Write a share so that only nothing is 0% and only all of it is 100%."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "<0.1%"
    if 99.9 < share < 100:
        return ">99.9%"
    return f"{share:.0f}%" if share in (0, 100) else f"{share:.1f}%"


def _change(step: str, change: Change) -> tuple[Markup, Markup]:
    """Return both sides of a change with the differences marked."""
    old, new = marks.differences(change.before, change.after)
    return _marked(old, "del"), _marked(new, "ins")


def _alike(first: str, other: str) -> Markup:
    """Return a near duplicate with what sets it apart from the first of its cluster."""
    return _marked(marks.differences(marks.cut(first, _TEXT), marks.cut(other, _TEXT))[1], "mark")


def _marked(runs: Iterable[marks.Run], tag: str | None = None) -> Markup:
    """Return runs as HTML: the marked ones in ``tag``, or as the names that they are."""
    parts = []
    for run, mark in runs:
        if mark and tag is None:
            parts.append(Markup('<span class="sign">{}</span>').format(run))
        elif mark:
            inner = _marked(marks.named(run, blanks=True))
            parts.append(Markup(f"<{tag}>{{}}</{tag}>").format(inner))
        elif tag is not None:
            parts.append(_marked(marks.named(run)))
        else:
            parts.append(Markup("{}").format(run))
    return Markup("").join(parts)


def _largest(counts: Mapping[str, int], most: int) -> list[tuple[str, int]]:
    """Return the ``most`` frequent values with their rows, the largest first."""
    return sorted(counts.items(), key=lambda item: -item[1])[:most]

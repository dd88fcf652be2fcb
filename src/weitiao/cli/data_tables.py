"""What was found in the data, as tables and sentences: the data page on a terminal."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from weitiao.cli.screen import blank, clean, sentence, show
from weitiao.cli.tables import data_sentences, rejections, split_sentences, table
from weitiao.words import catalogue, say

if TYPE_CHECKING:
    from weitiao.api import Leaks
    from weitiao.records.growing import Grown
    from weitiao.records.page.marks import Run
    from weitiao.records.report import Cluster, DataReport, Place

_CHARACTERS, _LONG_NAME = 80, 40
_CLUSTERS, _MEMBERS, _VALUES, _LEAKS = 3, 3, 20, 20


def steps(report: "DataReport") -> RenderableType | None:
    """Return each step of cleaning with its count and a first change; None where none changed."""
    from weitiao.records.page.marks import differences

    found = [step for step in report.steps if step.rows]
    if not found:
        return None
    made = _counted(say("cli.data.changed"), say("report.for_example"))
    for step in found:
        shown = Text("")
        if step.examples:
            before, after = differences(step.examples[0].before, step.examples[0].after)
            shown = Text.assemble(
                _place(step.examples[0].place),
                *_runs(before, "red strike"),
                (" → ", "dim"),
                *_runs(after, "green underline"),
            )
        made.add_row(f"{step.rows:,}", _word(f"step.{step.name}", step.name), shown)
    return made


def flags(report: "DataReport") -> RenderableType | None:
    """Return each flag with its count and a first example; private data comes veiled."""
    from weitiao.records.page.advice import private_flags, quality_flags

    found = [*quality_flags(report), *private_flags(report)]
    if not found:
        return None
    made = _counted(say("cli.data.sign"), say("report.for_example"))
    for flag in found:
        shown = Text("")
        if flag.examples:
            shown = _place(flag.examples[0])
            shown.append(_short(flag.examples[0].text))
        made.add_row(f"{flag.rows:,}", _word(f"flag.{flag.name}", flag.name), shown)
    return made


def similar(report: "DataReport") -> RenderableType | None:
    """Return near duplicates, contradictions and leakage; None where there is none of them."""
    found = report.similar
    if found is None:
        return None
    parts: list[RenderableType] = []
    if found.clusters:
        numbers = {"rows": f"{found.rows:,}", "clusters": f"{found.clusters:,}"}
        threshold = f"{100 * found.threshold:.0f}%"
        parts.append(Text(say("cli.data.near", threshold=threshold, **numbers)))
        parts.append(_clusters(found.examples, alike=True))
    if found.contradicting:
        prompts = f"{found.contradicting:,}"
        parts.append(Text(say("cli.data.contradictions", prompts=prompts)))
        parts.append(_clusters(found.contradictions, alike=False))
    if found.leaks:
        parts.append(Text(say("cli.data.leaks", rows=f"{found.leaks:,}"), style="yellow"))
    return Group(*parts) if parts else None


def balance(report: "DataReport") -> RenderableType | None:
    """Return the training rows of each value before and after; None without balancing."""
    if not report.balance:
        return None
    made = table(say("cli.data.value"), say("data_page.before"), say("data_page.after"))
    for column in made.columns[1:]:
        column.justify = "right"
    for line in report.balance[:_VALUES]:
        value = _short(line.value, _LONG_NAME) or say("data_page.empty_value")
        made.add_row(Text(value), f"{line.before:,}", f"{line.after:,}")
    if len(report.balance) > _VALUES:
        rest = say("data_page.more_values", count=len(report.balance) - _VALUES)
        made.add_row(Text(rest, style="dim"))
    return made


def people(report: "DataReport") -> RenderableType | None:
    """Return what reviewers did and how far they agree; None without a review."""
    found = report.people
    if found is None:
        return None
    counts = {n: f"{getattr(found, n):,}" for n in ("accepted", "edited", "rejected", "held_back")}
    said = Text(say("cli.data.people", **counts))
    if not found.kappa:
        return said
    made = table(
        say("data_page.reviewers"), say("data_page.both_saw"), say("data_page.kappa_name"), ""
    )
    for column in made.columns[1:3]:
        column.justify = "right"
    from weitiao.records.page.advice import strength

    for one, other, kappa, rows in found.kappa:
        pair = f"{_short(one, _LONG_NAME)} – {_short(other, _LONG_NAME)}"
        made.add_row(Text(pair), f"{rows:,}", f"{kappa:.2f}", strength(kappa))
    return Group(said, made)


def _clusters(found: Sequence["Cluster"], *, alike: bool) -> Table:
    made = _counted(*([say("cli.data.alike")] if alike else []), say("cli.data.which"))
    for cluster in found[:_CLUSTERS]:
        lines = [_place(row).append(_short(row.text)) for row in cluster.rows[:_MEMBERS]]
        if (rest := cluster.size - len(lines)) > 0:
            lines.append(Text(say("cli.data.more", count=f"{rest:,}"), style="dim"))
        percent = [f"{100 * cluster.similarity:.0f}%"] if alike else []
        made.add_row(f"{cluster.size:,}", *percent, Text("\n").join(lines))
    return made


def _counted(*columns: str) -> Table:
    made = table(say("report.rows"), *columns)
    made.columns[0].justify = "right"
    return made


def _place(place: "Place") -> Text:
    said = say("report.place", file=place.file, line=place.line)
    # The style must not reach what is appended.
    return Text.assemble((clean(said) + "  ", "dim"))


def _short(text: str, most: int = _CHARACTERS) -> str:
    from weitiao.records.page.marks import cut, plain

    return plain(cut(text, most))


def _runs(runs: Iterable["Run"], style: str) -> list[Text]:
    """Return runs with the changed ones in ``style`` and their blanks visible."""
    from weitiao.records.page.marks import plain

    return [Text(plain(run, blanks=mark), style=style if mark else "") for run, mark in runs]


def _word(key: str, name: str) -> str:
    """Return the catalogue's word, or the name as it is: a report may be of another version."""
    return say(key) if key in catalogue() else clean(name)


def show_report(console: Console, report: "DataReport") -> None:
    """Print all that was found: files, rejections, changes, flags, likenesses, parts, people."""
    for text in data_sentences(report):
        sentence(console, text)
    if report.rejected:
        show(console, rejections(report))
    for part in (steps, flags, similar, people):
        if (found := part(report)) is not None:
            show(console, found)
            blank(console)
    for text in split_sentences(report):
        sentence(console, text)
    if (balanced := balance(report)) is not None:
        show(console, balanced)


def leaks(found: "Leaks") -> Table:
    """Return the first test rows that leak, and where each stands in the training rows."""
    made = table(say("cli.leaks.test"), say("cli.leaks.train"), say("cli.leaks.by"), "", "")
    for leak in found.found[:_LEAKS]:
        made.add_row(
            *(
                clean(say("report.place", file=o.file, line=o.line))
                for o in (leak.test, leak.train)
            ),
            say(f"cli.leaks.{leak.by}"),
            f"{100 * leak.similarity:.0f}%",
            _short(leak.text),
        )
    if (rest := len(found.found) - _LEAKS) > 0:
        made.add_row(say("cli.data.more", count=f"{rest:,}"))
    return made


def refusals(grown: "Grown") -> Table:
    """Return why rows were not made, with their counts."""
    made = _counted(say("report.why"))
    for name, count in grown.rejected.items():
        made.add_row(f"{count:,}", clean(grown.examples[name].sentence(), 200))
    return made

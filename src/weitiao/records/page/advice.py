"""What the findings mean: which flags are private data, how far people agree, what to do next."""

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import get_args

from weitiao.records.options import FlagName
from weitiao.records.report import DataReport, FlagReport
from weitiao.words import Language, say

_PRIVATE = "private_"
"""How the names of flags begin that stand for private data."""

_MANY = 0.01
"""The share of the rows from which on it is worth while to shorten fewer of them."""

_Todo = tuple[str, Mapping[str, object], str]
"""The end of a key ``data_page.next.*``, its values, and a command in which {data} is the file."""


def private_flags(report: DataReport) -> list[FlagReport]:
    """Return the flags that stand for private data."""
    return [flag for flag in report.flags if flag.name.startswith(_PRIVATE) and flag.rows]


def quality_flags(report: DataReport) -> list[FlagReport]:
    """Return the other flags."""
    return [flag for flag in report.flags if not flag.name.startswith(_PRIVATE) and flag.rows]


def strength(kappa: float, language: Language | None = None) -> str:
    """Return in a word how far two people agree (Landis and Koch 1977, table 2)."""
    bounds = ((0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"))
    name = next((name for bound, name in bounds if kappa <= bound), "perfect")
    if kappa < 0 or math.isnan(kappa):
        name = "poor" if kappa < 0 else "undefined"
    return say(f"data_page.kappa.{name}", language)


def advice(report: DataReport, language: Language) -> list[tuple[str, str]]:
    """Return (what is worth doing, its command or "") in order; the way on stands last."""
    data = shlex.quote(report.files[0].file) if len(report.files) == 1 else "DATA"
    return [
        (say(f"data_page.next.{name}", language, **values), command.format(data=data))
        for name, values, command in (*_rows(report), *_whole(report), *_way_on(report))
    ]


def _rows(report: DataReport) -> Iterator[_Todo]:
    """What single rows are in want of."""
    if report.rejected:
        yield "rejected", {"rejected": f"{report.rejected:,}"}, ""
    if report.kept and report.shortened / report.kept >= _MANY:
        values = {"rows": f"{report.shortened:,}", "limit": f"{report.limit:,}"}
        command = f"weitiao data report {{data}} max_tokens={2 * report.limit}"
        yield "shortened", values, command if report.limit else ""
    if private_flags(report):
        yield "private", {}, "weitiao data report {data} private=mask"
    known = [flag.name for flag in quality_flags(report) if flag.name in get_args(FlagName)]
    if known:
        command = f"weitiao data report {{data}} {shlex.quote(f'reject_flags=[{known[0]}]')}"
        yield "flags", {}, command


def _whole(report: DataReport) -> Iterator[_Todo]:
    """What shows only when rows are laid side by side."""
    similar, people = report.similar, report.people
    if similar and similar.clusters and not any(name.startswith("near") for name in report.reasons):
        yield "near", {}, "weitiao data report {data} near=reject"
    if similar and similar.contradicting:
        yield "contradictions", {"prompts": f"{similar.contradicting:,}"}, ""
    if similar and similar.leaks:
        yield "leaks", {}, "weitiao data report {data} leakage=true"
    if people and people.held_back:
        values = {"rows": f"{people.held_back:,}"}
        yield "held_back", values, "weitiao data review {data}"


def _way_on(report: DataReport) -> Iterator[_Todo]:
    if report.kept:
        yield "show", {}, "weitiao data show {data} --tokens"
        yield "run", {}, "weitiao run {data}"

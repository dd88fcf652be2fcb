"""The report of a data set, from what was gathered and settled."""

from collections.abc import Sequence

import numpy as np

from weitiao.records.cleaning.private import find_private
from weitiao.records.findings import Findings
from weitiao.records.gathered import Gathered
from weitiao.records.options import DataOptions
from weitiao.records.record import Origin
from weitiao.records.report import (
    Change,
    DataReport,
    FileReport,
    FlagReport,
    Note,
    People,
    Place,
    StepReport,
    quantiles,
)
from weitiao.records.review import Votes, pairs, rows_seen
from weitiao.records.settle import Settled
from weitiao.records.split import PARTS

_BARS = 24


def describe(
    files: Sequence[FileReport],
    gathered: Gathered,
    settled: Settled,
    options: DataOptions,
    notes: Sequence[Note],
    votes: Votes,
) -> DataReport:
    """Return what became of the rows."""
    used = settled.used
    tokens = np.frombuffer(gathered.tokens, dtype=np.int64)[used]
    findings = gathered.findings
    told = _told(findings, options)
    kept = np.bincount(np.frombuffer(gathered.file, dtype=np.int32)[used], minlength=len(files))
    report = DataReport(
        files=tuple(
            file.model_copy(update={"kept": int(n)}) for file, n in zip(files, kept, strict=True)
        ),
        rows=gathered.rows - len(settled.refused),
        kept=len(used),
        rejected=len(gathered.rejected),
        reasons=dict(gathered.reasons.most_common()),
        shortened=int(np.frombuffer(gathered.shortened, dtype=np.int64)[used].sum()),
        samples=int(np.frombuffer(gathered.samples, dtype=np.int64)[used].sum()),
        tokens=int(tokens.sum()),
        scored_tokens=int(np.frombuffer(gathered.scored, dtype=np.int64)[used].sum()),
        lengths=quantiles(tokens),
        split=dict(zip(PARTS, np.bincount(settled.part[used], minlength=3).tolist(), strict=True)),
        notes=(*notes, *told, *settled.notes),
        limit=options.max_tokens,
        histogram=_histogram(tokens),
        rejections={name: tuple(shown) for name, shown in gathered.rejections.items()},
        steps=_steps(findings),
        flags=_flags(findings, options),
        similar=settled.similar,
        languages=dict(findings.languages.most_common()),
        categories={
            column: dict(values.most_common())
            for column, values in findings.categories.items()
            if values is not None
            and 1 < len(values) < gathered.rows / 2
            # A page that may be sent on lists no telephone numbers.
            and not any(find_private(value, options.clean.private_kinds) for value in values)
        },
        balance=tuple(settled.balance),
        grown=dict(findings.grown.most_common()),
        people=_people(findings, votes),
    )
    assert report.kept + report.rejected == report.rows == sum(file.rows for file in files)
    return report


def _told(findings: Findings, options: DataOptions) -> list[Note]:
    kinds, notes = findings.kinds, []
    if kinds["unanswered"]:
        notes.append(Note(name="unanswered", values={"count": kinds["unanswered"]}))
    if _reasoning_in_some(findings, options):
        values = {"with_reasoning": kinds["reasoning"], "without": kinds["conversation"]}
        notes.append(Note(name="reasoning_in_some", values=values))
    elif kinds["reasoning"] and options.reasoning != "learn":
        name = "reasoning_context" if options.reasoning == "context" else "reasoning_dropped"
        notes.append(Note(name=name, values={"count": kinds["reasoning"]}))
    return notes


def _reasoning_in_some(findings: Findings, options: DataOptions) -> bool:
    """Tell whether the model would learn to think now and then; reasoning in all rows is no sign.

    What is not learnt of the reasoning cannot mislead.
    """
    kinds = findings.kinds
    return options.reasoning == "learn" and bool(kinds["reasoning"] and kinds["conversation"])


def _histogram(tokens: np.ndarray[tuple[int], np.dtype[np.int64]]) -> tuple[tuple[int, int], ...]:
    """Return (up to this many tokens, rows) for bars of a round width, to the longest row."""
    longest = int(tokens.max())
    if longest == 0:
        return ()
    step = 10 ** int(np.log10(max(longest / _BARS, 1)))
    width = next(step * k for k in (1, 2, 5, 10) if step * k * _BARS >= longest)
    counts = np.bincount((tokens - 1) // width)
    return tuple((width * (i + 1), int(n)) for i, n in enumerate(counts))


def _place(origin: Origin, text: str = "") -> Place:
    return Place(file=origin.file, line=origin.line, text=text)


def _steps(findings: Findings) -> tuple[StepReport, ...]:
    return tuple(
        StepReport(
            name=name,
            rows=rows,
            examples=tuple(
                Change(place=_place(origin), before=before, after=after)
                for origin, before, after in findings.examples[f"step.{name}"]
            ),
        )
        for name, rows in findings.steps.most_common()
    )


def _flags(findings: Findings, options: DataOptions) -> tuple[FlagReport, ...]:
    return tuple(
        FlagReport(
            name=name,
            rows=rows,
            examples=tuple(_place(*example) for example in findings.examples[f"flag.{name}"]),
        )
        for name, rows in findings.flags.most_common()
        if name != "reasoning_in_some" or _reasoning_in_some(findings, options)
    )


def _people(findings: Findings, votes: Votes) -> People | None:
    if not votes:
        return None
    verdicts = findings.verdicts
    return People(
        reviewers=rows_seen(votes),
        accepted=verdicts["accept"],
        edited=verdicts["edit"],
        rejected=verdicts["review_rejected"],
        held_back=verdicts["review_held_back"],
        kappa=tuple((pair.one, pair.other, pair.kappa, pair.rows) for pair in pairs(votes)),
    )

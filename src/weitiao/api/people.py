"""People as judges: the review of a run's answers, what came out, rows to train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from weitiao.api.begin import recipe_of

if TYPE_CHECKING:
    from weitiao.evaluation.people import Exported, Form, Match, People, ReviewServer, Vote
    from weitiao.runs import Run


def match(runs: Sequence[Run], rows: int | None = None) -> Match:
    """Return the rows to judge: base against tuned of one run, or the tuned ones of two.

    Two runs meet the same votes in whichever order they are named: their sides are those that
    most was said of so far, else those by name.

    Raises:
        RunError: there are no answers, none to the same questions, or none that differ.
    """
    from weitiao.evaluation.people import match_answers, votes_by_row

    if len(runs) == 1:
        sides = runs[0].evaluation / "base.jsonl", runs[0].evaluation / "tuned.jsonl"
        return match_answers(*sides, ("base", "tuned"), rows)

    def matched(one: Run, other: Run) -> Match:
        sides = one.evaluation / "tuned.jsonl", other.evaluation / "tuned.jsonl"
        return match_answers(*sides, (names[one.path], names[other.path]), rows)

    names = _names(runs)
    first, second = sorted(runs, key=lambda run: (run.path.name, run.path.resolve()))
    usual, turned = matched(first, second), matched(second, first)
    said = (len(votes_by_row(usual, _votes(first))), len(votes_by_row(turned, _votes(second))))
    return turned if said[1] > said[0] else usual


def _names(runs: Sequence[Run]) -> dict[Path, str]:
    """Return what two runs are called: by their paths where both have the same name."""
    same = runs[0].path.name == runs[1].path.name
    return {run.path: str(run.path) if same else run.path.name for run in runs}


def _in_order(runs: Sequence[Run], matched: Match) -> Sequence[Run]:
    """Return the runs in the order of the sides of ``matched``; the first has the votes."""
    turned = len(runs) > 1 and _names(runs)[runs[0].path] != matched.one
    return runs[::-1] if turned else runs


def results(runs: Sequence[Run], matched: Match) -> People | None:
    """Count the votes so far and write them down; None where there are none.

    They stand in the run's ``evaluation/people.json``; those of two runs, in that of the first
    side, in ``people-NAME.json`` with the name of the other one.

    Raises:
        RunError: the votes cannot be read, or the results cannot be written.
    """
    import orjson

    from weitiao.evaluation.people import count_votes
    from weitiao.records.files import write_atomic

    runs = _in_order(runs, matched)
    found = count_votes(matched, _votes(runs[0]), recipe_of(runs[0]).evaluate)
    if found is not None:
        name = "people.json" if len(runs) == 1 else f"people-{runs[1].path.name}.json"
        content = orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2)
        write_atomic(runs[0].evaluation / name, content)
    return found


@contextmanager
def reviewing(
    runs: Sequence[Run], matched: Match, port: int, reviewer: str = ""
) -> Iterator[ReviewServer]:
    """Yield the server of the page, ready for ``serve_forever``.

    Raises:
        RunError: the port is taken, or the file of votes cannot be used.
    """
    from weitiao.evaluation.people import Review, Store, serving

    first = _in_order(runs, matched)[0]
    store = Store(_store_path(first))
    try:
        review = Review(matched, store, recipe_of(first).evaluate)
        with serving(review, port, reviewer) as server:
            yield server
    finally:
        store.close()


def export(runs: Sequence[Run], matched: Match, form: Form, out: str) -> Exported:
    """Write the rows that people found a better answer to.

    Raises:
        DataError: ``out`` is there already.
        RunError: the votes cannot be read, or the rows cannot be written.
    """
    from weitiao.evaluation.people import export_votes

    return export_votes(matched, _votes(_in_order(runs, matched)[0]), form, Path(out))


def _store_path(run: Run) -> Path:
    return run.evaluation / "review.sqlite"


def _votes(run: Run) -> list[Vote]:
    from weitiao.evaluation.people import Store

    if not _store_path(run).exists():
        return []
    store = Store(_store_path(run))
    try:
        return store.votes()
    finally:
        store.close()

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

    Raises:
        RunError: there are no answers, none to the same questions, or none that differ.
    """
    from weitiao.evaluation.people import match_answers

    one, other = runs[0], runs[-1]
    if len(runs) == 1:
        names, first = ("base", "tuned"), "base.jsonl"
    else:
        same = one.path.name == other.path.name
        names = (str(one.path), str(other.path)) if same else (one.path.name, other.path.name)
        first = "tuned.jsonl"
    return match_answers(one.evaluation / first, other.evaluation / "tuned.jsonl", names, rows)


def results(runs: Sequence[Run], matched: Match) -> People | None:
    """Count the votes so far and write them down; None where there are none.

    They stand in the first run's ``evaluation/people.json``; those of two runs in
    ``people-NAME.json``, with the name of the other one.

    Raises:
        RunError: the votes cannot be read, or the results cannot be written.
    """
    import orjson

    from weitiao.evaluation.people import count_votes
    from weitiao.records.files import write_atomic

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

    store = Store(_store_path(runs[0]))
    try:
        review = Review(matched, store, recipe_of(runs[0]).evaluate)
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

    return export_votes(matched, _votes(runs[0]), form, Path(out))


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

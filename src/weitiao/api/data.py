"""Everything that is done with data beside a run: looking, converting, growing, reviewing."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from weitiao.api.begin import chat_format, data_path, find_run
from weitiao.api.stages import split
from weitiao.errors import DataError
from weitiao.events import EventLog, Listener

if TYPE_CHECKING:
    from weitiao.endpoint import Endpoint
    from weitiao.plan.recipe import Recipe
    from weitiao.records.convert import Converted
    from weitiao.records.growing import Grown, Method
    from weitiao.records.options import DataOptions
    from weitiao.records.prepare import Checked
    from weitiao.records.record import Origin, Record
    from weitiao.records.report import DataReport
    from weitiao.records.review import Session
    from weitiao.records.review.label_studio import Imported
    from weitiao.records.shaping import Format

Part = Literal["kept", "train", "val", "test"]


def check(recipe: Recipe, listeners: tuple[Listener, ...] = (), *, tokens: bool = True) -> Checked:
    """Read and check the recipe's data; nothing is written.

    Without ``tokens`` nothing is counted or rejected for the model's sake, and no model is read.

    Raises:
        DataError: the data cannot be read, or no row of it can be used.
        ModelError: the model's tokenizer cannot be read.
    """
    from weitiao.records.prepare import check as check_records

    chat = chat_format(recipe) if tokens else None
    return check_records(data_path(recipe), recipe.data, chat, EventLog(None, listeners))


def report_data(
    target: str, recipe: Recipe, out: str | None = None, listeners: tuple[Listener, ...] = ()
) -> tuple[Path, DataReport]:
    """Write the page on the data of a run or of a data file; return its path and the report.

    Without ``out`` it is ``data.html`` in the run, or ``NAME.data.html`` beside the data.

    Raises:
        DataError: the data cannot be read, or the page is there already and not of a run.
    """
    from weitiao.records.page import write_page

    run = find_run(target)
    data = data_path(recipe) if run is None else run.path.resolve()
    place = data.with_name(f"{data.stem}.data.html") if run is None else run.path / "data.html"
    path, title = place if out is None else Path(out), data.name
    if path.exists() and (run is None or out is not None):
        raise DataError("error.exists", path=path)
    found = check(recipe, listeners).report if run is None else split(run, listeners)
    write_page(found, path, title)
    return path, found


def convert(
    target: str, recipe: Recipe, form: Format, out: str, part: Part | None = None
) -> Converted:
    """Write a data file, or the usable rows (or a ``part``) of a run, for another tool.

    Raises:
        DataError: the data cannot be read, or ``out`` is there already.
    """
    from weitiao.records.convert import convert as convert_file
    from weitiao.records.options import DataOptions

    run = find_run(target)
    if run is None:
        if part is not None:
            raise DataError("error.part_of_file", part=part, path=target)
        return convert_file(data_path(recipe), Path(out), form, recipe.data)
    split(run)
    return convert_file(run.records / f"{part or 'kept'}.jsonl", Path(out), form, DataOptions())


@dataclass(frozen=True, slots=True)
class Leaked:
    """A test row, ``row`` from 0, and the training row that says nearly the same."""

    row: int
    test: Origin
    train: Origin
    by: Literal["prompt", "answer"]
    similarity: float
    text: str


@dataclass(frozen=True, slots=True)
class Leaks:
    """The leaks, at most one a row and a kind, among so many rows of both files.

    ``unread``: rows of either file that cannot be read, and are not compared.
    """

    found: tuple[Leaked, ...]
    train_rows: int
    test_rows: int
    unread: int

    @property
    def rows(self) -> int:
        """How many test rows leak."""
        return len({leak.row for leak in self.found})


def leaks(target: str, recipe: Recipe, test: str) -> Leaks:
    """Compare the rows of a person's own test file with the training rows of a file or run.

    Raises:
        DataError: one of them cannot be read.
    """
    from weitiao.records.options import DataOptions as Defaults
    from weitiao.records.similar import leaks as find_leaks

    run, unread = find_run(target), _Count()
    if run is not None:
        split(run)
        trained = _all_of(run.records / "train.jsonl", Defaults(), unread)
    else:
        trained = _all_of(data_path(recipe), recipe.data, unread)
    # What was said of the user's data need not hold for the test file.
    options = recipe.data.model_copy(update={"limit": None, "encoding": None})
    try:
        tested = _all_of(Path(test), options, unread)
    except DataError as error:
        if error.key != "error.column_missing":
            raise
        tested = _all_of(Path(test), options.model_copy(update={"columns": None}), unread)
    found: list[Leaked] = []
    sides: tuple[tuple[Literal["prompt", "answer"], Callable[[Record], str]], ...] = (
        ("prompt", lambda record: record.asked),
        ("answer", lambda record: record.text or record.answer),
    )
    for by, text_of in sides:
        train_texts, test_texts = _Texts(trained, text_of), _Texts(tested, text_of)
        for leak in find_leaks(train_texts, test_texts, by, recipe.data.similar.threshold):
            one, other = tested[leak.test_row], trained[leak.train_row]
            origins = one.origin, other.origin
            found.append(Leaked(leak.test_row, *origins, by, leak.similarity, text_of(one)))
    return Leaks(tuple(found), len(trained), len(tested), unread.rows)


def grow(
    recipe: Recipe, method: Method, out: str, n: int = 1, seed: int | None = None
) -> tuple[Grown, int]:
    """Write the recipe's rows with new wordings of each; return that and the unread rows.

    Raises:
        DataError: the data cannot be read, or ``out`` is there already.
        EndpointError: the service cannot be asked.
    """
    from weitiao.records.growing import write_grown

    unread = _Count()
    rows = partial(_as_read, data_path(recipe), recipe.data, unread)
    asked = recipe.data.seed if seed is None else seed
    grown = write_grown(rows, method, Path(out), n, asked)
    return grown, unread.rows // 2  # the rows are read twice


def draft(recipe: Recipe, out: str, pairs: int = 3) -> tuple[Grown, int]:
    """Write questions and answers drafted from documents, to be reviewed; and the unread rows.

    Raises:
        DataError: the documents cannot be read, or ``out`` is there already.
        EndpointError: the service cannot be asked.
    """
    from weitiao.records.growing import write_drafts

    unread = _Count()
    passages = _as_read(data_path(recipe), recipe.data, unread)
    with endpoint(recipe) as service:
        drafted = write_drafts(passages, service, Path(out), pairs, recipe.data.seed)
    return drafted, unread.rows


def endpoint(recipe: Recipe) -> Endpoint:
    """Return the service that the recipe names, with a cache in the user's own folder.

    Raises:
        EndpointError: none is named.
    """
    from weitiao.endpoint import Endpoint as Service

    asked = recipe.endpoint
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Service(
        asked.url,
        asked.model,
        key_variable=asked.key_variable,
        max_requests=asked.max_requests,
        parallel=asked.parallel,
        timeout=asked.timeout,
        cache=home / "weitiao" / "endpoint.sqlite",
    )


def review(recipe: Recipe, reviewer: str, double: float | None = None) -> tuple[Session, int]:
    """Return a review of the recipe's rows by one person, to be gone through; and the unread rows.

    Raises:
        DataError: the data or the decisions so far cannot be read.
    """
    from weitiao.records.cleaning import Cleaner
    from weitiao.records.review import Session as Review
    from weitiao.records.review import find_votes
    from weitiao.records.review.queue import DOUBLE

    data, options, unread = data_path(recipe), recipe.data, _Count()
    records = _all_of(data, options, unread)
    clean = Cleaner(options.clean, options.system)
    flags = {
        i: [found.flag for found in cleaned.flags]
        for i, record in enumerate(records)
        if (cleaned := clean(record)).flags
    }
    votes = find_votes(data, options.review)
    share = DOUBLE if double is None else double
    session = Review(records, votes, reviewer, options.review, flags=flags, double=share)
    return session, unread.rows


def export_review(recipe: Recipe, out: str) -> tuple[int, int]:
    """Write the recipe's rows as Label Studio's tasks; return how many, and the unread rows.

    Raises:
        DataError: the data cannot be read, or ``out`` is there already.
    """
    from weitiao.records.review.label_studio import export_tasks

    if Path(out).exists():
        raise DataError("error.exists", path=out)
    unread = _Count()
    rows = export_tasks(_as_read(data_path(recipe), recipe.data, unread), Path(out))
    return rows, unread.rows


def import_review(recipe: Recipe, export: str) -> tuple[Imported, Path, int]:
    """Take in Label Studio's full JSON export; return it, the file of votes and the new votes.

    Raises:
        DataError: it is no such export.
    """
    from weitiao.records.review import find_votes
    from weitiao.records.review.label_studio import read_export

    if not Path(export).exists():
        raise DataError("error.file_missing", path=export)
    imported = read_export(Path(export))
    votes = find_votes(data_path(recipe), recipe.data.review)
    newer = votes.newer(imported.votes)
    votes.add(*newer)
    return imported, votes.path, len(newer)


class _Count:
    """Counts rows that cannot be read."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, *_: object) -> None:
        self.rows += 1


class _Texts(Sequence[str]):
    """One text of each record, made when it is asked for."""

    def __init__(self, records: Sequence[Record], text_of: Callable[[Record], str]) -> None:
        self._records, self._text_of = records, text_of

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: int | slice) -> str | list[str]:  # type: ignore[override]
        if isinstance(i, slice):
            return [self._text_of(record) for record in self._records[i]]
        return self._text_of(self._records[i])


def _as_read(path: Path, options: DataOptions, unread: _Count) -> Iterator[Record]:
    from weitiao.records.reading import find_files
    from weitiao.records.source import as_read

    return as_read(find_files(path), options, unread)


def _all_of(path: Path, options: DataOptions, unread: _Count) -> Sequence[Record]:
    """Return all rows as they were read; they stand on disk."""
    from weitiao.records.record import Record as Row
    from weitiao.records.spool import Spool, Stored, dumps

    folder = TemporaryDirectory(prefix="weitiao-")
    spool = Spool(Path(folder.name) / "rows")
    for record in _as_read(path, options, unread):
        spool.append(dumps(record.to_json()))
    if not len(spool):
        raise DataError("error.no_rows", path=path)
    stored = Stored(spool, range(len(spool)), Row.from_json, folder)
    weakref.finalize(stored, spool.close)
    return stored

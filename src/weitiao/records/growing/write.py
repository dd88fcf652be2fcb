"""Files of grown rows and of drafts, and beside them what was refused."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from weitiao.endpoint import Endpoint
from weitiao.errors import DataError
from weitiao.records.files import open_atomic
from weitiao.records.growing.drafts import GROUNDED, draft
from weitiao.records.growing.gate import BOUNDS, Bounds
from weitiao.records.growing.grow import GrowReject, Rows, families
from weitiao.records.growing.method import Method
from weitiao.records.record import Reason, Record
from weitiao.records.spool import dumps

_Outcome = tuple[Record | GrowReject, Literal["row", "new"]]


@dataclass(frozen=True, slots=True)
class Grown:
    """What was written: rows read and rows made, and the refusals by reason.

    ``rejected`` counts by the reason's name, the most frequent first; ``examples`` holds
    the first of each; ``aside`` is the file that holds them all, if there are any.
    """

    path: Path
    rows: int
    new: int
    rejected: Mapping[str, int]
    examples: Mapping[str, Reason]
    aside: Path | None


def write_grown(
    rows: Rows,
    method: Method,
    path: Path,
    n: int = 1,
    seed: int = 42,
    bounds: Bounds = BOUNDS,
) -> Grown:
    """Write all rows, each with the rows made of it after it; see ``grow.grow``.

    Refusals go to ``*.rejected.jsonl`` beside ``path``. Both files appear whole or not at all.

    Raises:
        DataError: one of the two files is there already.
        EndpointError: the service cannot be asked; what it answered is in its cache.
    """

    def outcomes() -> Iterator[_Outcome]:
        for parent, family in families(rows, method, n, seed, bounds):
            yield parent, "row"
            yield from ((one, "new") for one in family)

    return _write(path, outcomes())


def write_drafts(
    passages: Iterable[Record],
    endpoint: Endpoint,
    path: Path,
    pairs: int = 3,
    seed: int = 42,
    least: float = GROUNDED,
) -> Grown:
    """Write the rows drafted from ``passages``, which wait for review; see ``drafts.draft``.

    Refusals go to ``*.rejected.jsonl`` beside ``path``. Both files appear whole or not at all.

    Raises:
        DataError: one of the two files is there already.
        EndpointError: the service cannot be asked; what it answered is in its cache.
    """
    read = 0

    def counted() -> Iterator[Record]:
        nonlocal read
        for passage in passages:
            read += 1
            yield passage

    drafted = draft(counted(), endpoint, pairs, seed, least)
    written = _write(path, ((one, "new") for one in drafted))
    return replace(written, rows=read)


def _write(path: Path, outcomes: Iterable[_Outcome]) -> Grown:
    aside = path.with_name(f"{path.stem}.rejected.jsonl")
    for place in (path, aside):
        if place.exists():
            raise DataError("error.grown_exists", path=place)
    counts = {"row": 0, "new": 0}
    rejected: Counter[str] = Counter()
    examples: dict[str, Reason] = {}
    with ExitStack() as files:
        kept = files.enter_context(open_atomic(path))
        refused: IO[bytes] | None = None
        for one, kind in outcomes:
            if isinstance(one, Record):
                counts[kind] += 1
                kept.write(dumps(one.to_json()) + b"\n")
                continue
            refused = refused or files.enter_context(open_atomic(aside))
            refused.write(dumps(_line(one)) + b"\n")
            rejected[one.reason.name] += 1
            examples.setdefault(one.reason.name, one.reason)
    by_count = dict(rejected.most_common())
    return Grown(path, counts["row"], counts["new"], by_count, examples, aside if refused else None)


def _line(one: GrowReject) -> dict[str, Any]:
    """Return the line of the file of refusals, in the form of ``rejected.jsonl``."""
    origin, reason = one.parent.origin, one.reason
    return {
        "row": one.text,
        "file": origin.file,
        "line": origin.line,
        "parent": one.parent.id,
        "reason": reason.name,
        "values": dict(reason.values),
        "hint": reason.hint("en"),
    }

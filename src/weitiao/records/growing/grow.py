"""From rows to more rows: the same answers to questions in other words."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weitiao.records.growing.gate import BOUNDS, Bounds, against
from weitiao.records.growing.method import Candidate, Method, question, question_at
from weitiao.records.record import Lineage, Reason, Record

Rows = Callable[[], Iterable[Record]]
"""Reads all rows from the start; it is called twice, so that memory holds none of them."""

METHODS = ("synonyms", "paraphrase", "back_translation")
"""The names of the methods; each is the ``Lineage.method`` of the rows it makes."""


@dataclass(frozen=True, slots=True)
class GrowReject:
    """No new row of ``parent``: the text that was refused, if there was one, and why."""

    parent: Record
    text: str
    reason: Reason


class Prompts:
    """The prompts there are, to find a new one that is not new: 8 bytes each, by hash."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        hashes = (_hash(record) for record in records)
        self._old: NDArray[np.uint64] = np.sort(np.fromiter(hashes, np.uint64))
        self._new: set[int] = set()

    def add(self, record: Record) -> bool:
        """Take in the record's prompt; return whether it was not there yet."""
        key = _hash(record)
        place = int(np.searchsorted(self._old, np.uint64(key)))
        if key in self._new or (place < len(self._old) and int(self._old[place]) == key):
            return False
        self._new.add(key)
        return True


def grow(
    rows: Rows, method: Method, n: int = 1, seed: int = 42, bounds: Bounds = BOUNDS
) -> Iterator[Record | GrowReject]:
    """Yield the rows that ``method`` makes of ``rows``, up to ``n`` of each, and what it refuses.

    A new row has its parent's answer, origin and metadata, and its lineage names parent and
    method. It must pass the gate (see ``gate.against``) and its prompt must be new. The
    same ``seed`` gives the same rows, as far as the service answers the same.

    Raises:
        EndpointError: the service cannot be asked.
    """
    for _, family in families(rows, method, n, seed, bounds):
        yield from family


def families(
    rows: Rows, method: Method, n: int, seed: int, bounds: Bounds
) -> Iterator[tuple[Record, list[Record | GrowReject]]]:
    """Yield each row with what :func:`grow` makes of it."""
    prompts = Prompts(rows())

    def made(record: Record) -> tuple[Record, list[Candidate]]:
        reason = _no_parent(record)
        return record, [reason] if reason else method.candidates(record, n, seed)

    found = method.endpoint.map(made, rows()) if method.endpoint else map(made, rows())
    for parent, candidates in found:
        yield parent, [_judged(parent, c, method.name, bounds, prompts) for c in candidates]


def _no_parent(record: Record) -> Reason | None:
    lineage = record.lineage
    if lineage.method in METHODS:
        return Reason("grow_grown")
    if lineage.draft:
        return Reason("grow_draft")
    return Reason("grow_no_question") if question_at(record) is None else None


def _judged(
    parent: Record, candidate: Candidate, method: str, bounds: Bounds, prompts: Prompts
) -> Record | GrowReject:
    if isinstance(candidate, Reason):
        return GrowReject(parent, "", candidate)
    reason = against(parent, candidate, bounds)
    if reason is None and not prompts.add(candidate):
        reason = Reason("grow_known")
    if reason is not None:
        return GrowReject(parent, question(candidate), reason)
    return candidate.with_lineage(Lineage(parent=parent.id, method=method))


def _hash(record: Record) -> int:
    prompt = Record(record.origin, messages=record.prompt)
    return int.from_bytes(prompt.fingerprint()[:8], "big")

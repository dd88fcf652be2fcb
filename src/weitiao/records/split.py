"""Training, validation and test rows, parted so that no prompt stands on both sides."""

import json
from collections.abc import Sequence
from math import inf

import numpy as np
import xxhash
from numpy.typing import NDArray

from weitiao.records.folding import folded
from weitiao.records.record import Record

PARTS = ("train", "val", "test")
"""The names of the parts, in the order of their ratios."""


def split(
    groups: NDArray[np.int64], order: NDArray[np.uint64], ratios: Sequence[float] = (8, 1, 1)
) -> NDArray[np.uint8]:
    """Return the part of each row, uint8[N], as a place in ``PARTS``.

    ``groups``: int64[N], numbers from 0, rows with equal ones stay together; ``order``:
    uint64[N], the rows' :func:`order_key`. Groups go, in the order of their lowest key, to the
    part that lacks most of its rows; groups too large for the smallest part go first, while there
    is room for
    them. (Dealing every group by size would fill the small parts with small groups alone.)
    Where there are as many groups as parts asked for, each gets at least one.
    """
    counts = np.bincount(groups)
    sizes = counts[counts > 0]
    group_of = (np.cumsum(counts > 0) - 1)[groups]
    turn = np.full(len(sizes), np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(turn, group_of, order)
    asked = [part for part, ratio in enumerate(ratios) if ratio > 0] or [0]
    total = sum(ratios) or 1
    lacking = {part: len(groups) * ratios[part] / total for part in asked}
    large = np.where(sizes > min(lacking.values()), sizes, 0)
    dealing = np.lexsort((turn, -large)) if large.any() else np.argsort(turn, kind="stable")
    dealt = _dealt(sizes[dealing].tolist(), [lacking.get(part, -inf) for part in range(3)])
    if len(sizes) >= len(asked):
        _give_each_one(dealt, asked)
    part_of = np.empty_like(dealt)
    part_of[dealing] = dealt
    parts: NDArray[np.uint8] = part_of[group_of]
    return parts


def _dealt(sizes: Sequence[int], lacking: Sequence[float]) -> NDArray[np.uint8]:
    """Return the part of each group in turn: the one that lacks most, of equals the first."""
    a, b, c = lacking
    dealt = bytearray()
    for size in sizes:
        if a >= b and a >= c:
            dealt.append(0)
            a -= size
        elif b >= c:
            dealt.append(1)
            b -= size
        else:
            dealt.append(2)
            c -= size
    return np.frombuffer(dealt, np.uint8).copy()


def _give_each_one(dealt: NDArray[np.uint8], asked: Sequence[int]) -> None:
    """Let a part without a group have the last one of the part that has most of them."""
    for part in asked:
        groups = np.bincount(dealt, minlength=len(PARTS))
        if not groups[part]:
            dealt[np.flatnonzero(dealt == groups.argmax())[-1]] = part


def prompt_key(record: Record, group_by: str | None = None) -> str:
    """Return a text that is equal for rows that stay together.

    It is the value of the metadata field ``group_by`` where there is one, and else the prompt,
    or the passage: full-width forms, case and blanks do not make two prompts of one.
    """
    if group_by is not None and group_by in record.metadata:
        return json.dumps(record.metadata[group_by], ensure_ascii=False, sort_keys=True)
    said = [f"{m.role}\0{m.content}" for m in record.prompt]
    return folded("\0".join(said) or record.text or "")


def order_key(seed: int, key: str) -> int:
    """Return 64 bits of a hash: the same for equal keys, and their place in the seeded order."""
    return xxhash.xxh3_64_intdigest(f"{seed}\0{key}".encode("utf-8", "surrogatepass"))

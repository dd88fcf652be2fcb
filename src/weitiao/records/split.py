"""Training, validation and test rows, parted so that no prompt stands on both sides."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence

from weitiao.records.record import Record

PARTS = ("train", "val", "test")
"""The names of the parts, in the order of their ratios."""


def split(
    records: Sequence[Record],
    ratios: Sequence[float] = (8, 1, 1),
    seed: int = 42,
    group_by: str | None = None,
) -> dict[str, list[int]]:
    """Return part → indices of ``records``, ascending; each index is in exactly one part.

    Records with equal prompts, or equal values of the metadata field ``group_by``, stay
    together. Groups go, in the order of a seeded hash, to the part that lacks most of its
    rows; groups too large for the smallest part go first, while there is room for them.
    (Dealing every group by size would fill the small parts with small groups alone.) Where
    there are as many groups as parts asked for, each gets at least one.
    """
    groups: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        groups.setdefault(_group(record, group_by), []).append(i)
    asked = [i for i, ratio in enumerate(ratios) if ratio > 0] or [0]
    total = sum(ratios) or 1
    lacking = {i: len(records) * ratios[i] / total for i in asked}
    smallest = min(lacking.values())

    def turn(key: str) -> tuple[int, bytes]:
        size = len(groups[key])
        return (-size if size > smallest else 0, _hash(seed, key))

    order = sorted(groups, key=turn)
    dealt: dict[int, list[str]] = {i: [] for i in asked}
    for key in order:
        part = max(asked, key=lambda i: lacking[i])
        dealt[part].append(key)
        lacking[part] -= len(groups[key])
    if len(groups) >= len(asked):
        _give_each_one(dealt)
    return {
        name: sorted(i for key in dealt.get(part, ()) for i in groups[key])
        for part, name in enumerate(PARTS)
    }


def _give_each_one(dealt: dict[int, list[str]]) -> None:
    for part, keys in dealt.items():
        if not keys:
            richest = max(dealt, key=lambda other: len(dealt[other]))
            dealt[part] = [dealt[richest].pop()]


def _group(record: Record, group_by: str | None) -> str:
    if group_by is not None and group_by in record.metadata:
        return json.dumps(record.metadata[group_by], ensure_ascii=False, sort_keys=True)
    said = [f"{m.role}\0{m.content}" for m in record.prompt]
    # Full-width forms, case and blanks do not make two prompts of one.
    text = unicodedata.normalize("NFKC", "\0".join(said) or record.text or "").casefold()
    return "".join(text.split())


def _hash(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{key}".encode()).digest()

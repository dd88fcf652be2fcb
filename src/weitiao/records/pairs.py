"""Rows that are one plain question and its answer, a block at a time.

Nearly all rows of nearly all files are such rows. What the stage does with each of them by
itself is done here for a whole block in calls that loop in C, with the same result; the
stage is the reference, and a test compares the two.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import methodcaller
from typing import Any

import orjson
import xxhash

from weitiao.records.folding import folded_all
from weitiao.records.reading import RawRow, Stretch
from weitiao.records.shaping import Shape

_MARKS = 8
"""The quotation marks of two keys and two texts: with no more of them there is nothing else."""

_count_marks = methodcaller("count", b'"')


@dataclass(frozen=True, slots=True)
class Pairs:
    """The plain rows of a block: their lines in the file, questions and answers."""

    file: str
    lines: list[int]
    prompts: list[str]
    answers: list[str]

    def jsons(self) -> list[bytes]:
        """Return each row's record as JSON, as ``dumps`` writes it."""
        begin = b'{"origin":{"file":' + orjson.dumps(self.file) + b',"line":'
        asked, said = (map(orjson.dumps, side) for side in (self.prompts, self.answers))
        return [
            b'%b%d},"messages":[{"role":"user","content":%b},{"role":"assistant","content":%b}]}'
            % (begin, line, prompt, answer)
            for line, prompt, answer in zip(self.lines, asked, said, strict=True)
        ]

    def fingerprints(self) -> list[bytes]:
        """Return each row's ``Record.fingerprint``."""
        asked, said = (_without_blanks(side) for side in (self.prompts, self.answers))
        texts = [f"\0user\0{a}\0assistant\0{b}" for a, b in zip(asked, said, strict=True)]
        return list(map(xxhash.xxh3_128_digest, map(str.encode, texts)))

    def groups(self, seed: int) -> list[int]:
        """Return each row's ``order_key`` of its ``prompt_key``."""
        texts = [f"user\0{prompt}" for prompt in self.prompts]
        begin = f"{seed}\0"
        keys = [begin + key for key in folded_all(texts)]
        return list(map(xxhash.xxh3_64_intdigest, map(str.encode, keys)))


def _without_blanks(texts: list[str]) -> Iterable[str]:
    """Return each text with its words parted by one blank."""
    together = "".join(texts)
    if together.split() == [together]:
        return texts
    return map(" ".join, map(str.split, texts))


def plain_pairs(
    rows: Sequence[RawRow] | Stretch, shape: Shape
) -> tuple[Pairs, Sequence[RawRow]] | None:
    """Return the rows that hold nothing but two texts with words in both, and the others.

    None if such rows are few. Rows with anything that a check might object to are not plain.
    """
    if shape.columns.keys() != {"prompt", "response"} or shape.inner is not None:
        return None
    asked, answered = shape.columns["prompt"], shape.columns["response"]
    values: list[Any]
    lines: list[bytes]
    marks: Iterator[int]
    if not isinstance(rows, Stretch):
        values, lines, marks = [row.data for row in rows], [], repeat(_MARKS)
    elif (read := rows.objects()) is not None:
        values, lines = read
        marks = map(_count_marks, lines)
    else:
        return None
    # "<" and "[": what every control token and every mark of reasoning begins with.
    plain = [
        (number, prompt, answer)
        for number, (data, quotes) in enumerate(zip(values, marks, strict=False))
        if quotes == _MARKS
        and type(data) is dict
        and len(data) == 2
        and type(prompt := data.get(asked)) is str
        and type(answer := data.get(answered)) is str
        and prompt.strip()
        and answer.strip()
        and not ("<" in prompt or "<" in answer or "[" in prompt or "[" in answer)
    ]
    if not plain or 2 * len(plain) < len(values):
        return None
    numbers, prompts, answers = map(list, zip(*plain, strict=True))
    others = sorted({*range(len(values))}.difference(numbers))
    if isinstance(rows, Stretch):
        where = [rows.line + number for number in numbers]
        found = (rows.row(number, lines[number]) for number in others)
        return Pairs(rows.path.name, where, prompts, answers), [r for r in found if r is not None]
    where = [rows[number].line for number in numbers]
    return Pairs(rows[0].file, where, prompts, answers), [rows[number] for number in others]

"""Rows that are one plain question and its answer, a block at a time.

Nearly all rows of nearly all files are such rows. What the stage does with each of them by
itself is done here for a whole block in calls that loop in C, with the same result; the
stage is the reference, and a test compares the two.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import itemgetter, methodcaller
from typing import Any

import orjson
import xxhash

from weitiao.records.folding import folded_all
from weitiao.records.reading import RawRow, Stretch
from weitiao.records.shaping import Shape

_MARKS = 8
"""The quotation marks of two keys and two texts: with no more of them there is nothing else."""

_count_marks = methodcaller("count", b'"')

_TOGETHER = 256
"""Rows that are looked at together; one that is not plain costs no more than these."""


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
    read = rows.objects() if isinstance(rows, Stretch) else ([row.data for row in rows], [])
    if read is None:
        return None
    values, lines = read
    numbers: list[int] = []
    prompts: list[str] = []
    answers: list[str] = []
    for begin in range(0, len(values), _TOGETHER):
        end = begin + _TOGETHER
        part = values[begin:end], lines[begin:end], asked, answered
        if (whole := _all_plain(*part)) is not None:
            chosen: Iterable[int] = range(len(whole[0]))
            more = whole
        else:
            chosen, more = _some_plain(*part)
        numbers.extend(begin + number for number in chosen)
        prompts.extend(more[0])
        answers.extend(more[1])
    if 2 * len(numbers) < max(len(values), 1):
        return None
    others = sorted({*range(len(values))}.difference(numbers))
    if isinstance(rows, Stretch):
        where = [rows.line + number for number in numbers]
        careful = (rows.row(number, lines[number]) for number in others)
        left = [row for row in careful if row is not None]
        return Pairs(rows.path.name, where, prompts, answers), left
    where = [rows[number].line for number in numbers]
    return Pairs(rows[0].file, where, prompts, answers), [rows[number] for number in others]


def _all_plain(
    values: Sequence[Any], lines: Sequence[bytes], asked: str, answered: str
) -> tuple[list[str], list[str]] | None:
    """Return the questions and answers of rows that are all plain; None if one is not.

    ``lines``: the bytes from which the values were read, or none where nothing was missed.
    """
    try:
        prompts = list(map(itemgetter(asked), values))
        answers = list(map(itemgetter(answered), values))
    except (TypeError, LookupError):
        return None
    plain = (
        {*map(type, values)} == {dict}
        and {*map(len, values)} == {2}
        and {*map(type, prompts), *map(type, answers)} == {str}
        and all(map(str.strip, prompts))
        and all(map(str.strip, answers))
        and {*map(_count_marks, lines)} <= {_MARKS}
    )
    if not plain or _is_suspect("".join(prompts)) or _is_suspect("".join(answers)):
        return None
    return prompts, answers


def _some_plain(
    values: Sequence[Any], lines: Sequence[bytes], asked: str, answered: str
) -> tuple[list[int], tuple[list[str], list[str]]]:
    """Return the numbers of the rows that are plain, and their questions and answers."""
    marks = map(_count_marks, lines) if lines else repeat(_MARKS)
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
        and not (_is_suspect(prompt) or _is_suspect(answer))
    ]
    return [p[0] for p in plain], ([p[1] for p in plain], [p[2] for p in plain])


def _is_suspect(text: str) -> bool:
    """Tell whether ``text`` holds what control tokens and marks of reasoning begin with."""
    return "<" in text or "[" in text

"""Rows that are one plain question and its answer, a block at a time.

Nearly all rows of nearly all files are such rows. What the stage does with each of them by
itself is done here for a whole block in calls that loop in C, with the same result; the
stage is the reference, and a test compares the two.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller

import numpy as np
import orjson
import xxhash

from weitiao.records.folding import folded
from weitiao.records.reading import RawRow
from weitiao.records.shaping import Shape

_digest = methodcaller("digest")


@dataclass(frozen=True, slots=True)
class Pairs:
    """The plain rows of a block: their numbers in it, lines, questions and answers."""

    numbers: list[int]
    file: str
    lines: list[int]
    prompts: list[str]
    answers: list[str]

    def jsons(self) -> list[bytes]:
        """Return each row's record as JSON."""
        file = self.file
        records = [
            {
                "origin": {"file": file, "line": line},
                "messages": [
                    {"role": "user", "content": prompt},
                    {"role": "assistant", "content": answer},
                ],
            }
            for line, prompt, answer in zip(self.lines, self.prompts, self.answers, strict=True)
        ]
        return list(map(orjson.dumps, records))

    def fingerprints(self) -> list[bytes]:
        """Return each row's ``Record.fingerprint``."""
        asked, said = (map(" ".join, map(str.split, side)) for side in (self.prompts, self.answers))
        texts = [f"\0user\0{a}\0assistant\0{b}" for a, b in zip(asked, said, strict=True)]
        return list(map(xxhash.xxh3_128_digest, map(str.encode, texts)))

    def groups(self, seed: int) -> list[int]:
        """Return each row's ``order_key`` of its ``prompt_key``."""
        texts = [f"user\0{prompt}" for prompt in self.prompts]
        begin = f"{seed}\0"
        keys = [f"{begin}{key}".encode() for key in map(folded, texts)]
        digests = b"".join(map(_digest, map(hashlib.sha256, keys)))
        found: list[int] = np.frombuffer(digests, dtype=">u8")[::4].tolist()
        return found


def plain_pairs(rows: Sequence[RawRow], shape: Shape) -> Pairs | None:
    """Return the rows that hold nothing but two texts with words in both; None if too few.

    Rows with anything that a check might object to are not among them.
    """
    if shape.columns.keys() != {"prompt", "response"} or shape.inner is not None:
        return None
    asked, answered = shape.columns["prompt"], shape.columns["response"]
    found = [
        (number, row.line, data[asked], data[answered])
        for number, row in enumerate(rows)
        if (data := row.data) is not None and len(data) == 2 and asked in data and answered in data
    ]
    # "<" and "[": what every control token and every mark of reasoning begins with.
    plain = [
        pair
        for pair in found
        if type(prompt := pair[2]) is str
        and type(answer := pair[3]) is str
        and prompt.strip()
        and answer.strip()
        and not ("<" in prompt or "<" in answer or "[" in prompt or "[" in answer)
    ]
    if not plain or 2 * len(plain) < len(rows):
        return None
    numbers, lines, prompts, answers = map(list, zip(*plain, strict=True))
    return Pairs(numbers, rows[0].file, lines, prompts, answers)

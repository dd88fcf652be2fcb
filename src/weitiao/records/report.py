"""What was found in the data: the numbers behind ``records/report.json``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from weitiao.records.shapes import Shape
from weitiao.words import Language, say


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileReport(_Frozen):
    """One file: how it was read, and what became of its rows.

    ``format``: json, jsonl or csv; ``how`` the encoding was found: a key ``encoding.*``.
    """

    file: str
    format: str
    encoding: str
    how: str
    shape: str
    columns: Mapping[str, str]
    rows: int
    kept: int

    def sentence(self, language: Language | None = None) -> str:
        """Return the file's line on the screen: encoding, shape and what becomes what."""
        return say(
            "data.file",
            language,
            file=self.file,
            encoding=say(f"encoding.{self.how}", language, name=self.encoding),
            shape=Shape(self.shape, self.columns).describe(language),
        )


class Note(_Frozen):
    """Something the user should know that rejected no row; ``name`` is a key ``note.*``."""

    name: str
    values: Mapping[str, Any] = {}

    def sentence(self, language: Language | None = None) -> str:
        """Return the note in words."""
        return say(f"note.{self.name}", language, **self.values)


class Lengths(_Frozen):
    """Quantiles of the tokens of a row, prompt and answer together."""

    min: int
    p50: int
    p90: int
    p99: int
    max: int


class DataReport(_Frozen):
    """What became of the rows. ``kept + rejected == rows``, always.

    ``reasons``: rejected rows by reason, the most frequent first. ``tokens`` and
    ``scored_tokens`` are sums over the kept rows; ``split`` counts rows.
    """

    files: tuple[FileReport, ...]
    rows: int
    kept: int
    rejected: int
    reasons: Mapping[str, int]
    shortened: int
    samples: int
    tokens: int
    scored_tokens: int
    lengths: Lengths
    split: Mapping[str, int]
    notes: tuple[Note, ...]


def quantiles(tokens: Sequence[int]) -> Lengths:
    """Return the quantiles of ``tokens``, which holds at least one number."""
    low, p50, p90, p99, high = np.percentile(tokens, (0, 50, 90, 99, 100), method="higher")
    return Lengths(min=int(low), p50=int(p50), p90=int(p90), p99=int(p99), max=int(high))


def load_report(path: Path) -> DataReport:
    """Return the report that ``prepare`` wrote."""
    return DataReport.model_validate_json(path.read_bytes())

"""What was found in the data: the numbers behind ``records/report.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from weitiao.records.record import Reason
from weitiao.records.shaping.shapes import Shape
from weitiao.words import Language, say


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileReport(_Frozen):
    """One file: how it was read, and what became of its rows.

    ``format``: json, csv and so on; ``how`` the encoding was found: a key ``encoding.*``;
    ``entry``: that of LLaMA-Factory's registry by which it was read.
    """

    file: str
    format: str
    encoding: str
    how: str
    shape: str
    columns: Mapping[str, str]
    rows: int
    kept: int
    entry: str | None = None

    def sentence(self, language: Language | None = None) -> str:
        """Return the file's line on the screen: encoding, shape and what becomes what."""
        return say(
            "data.file",
            language,
            file=self.file,
            encoding=say(f"encoding.{self.how}", language, name=self.encoding),
            shape=Shape(self.shape, self.columns, self.entry).describe(language),
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


class Place(_Frozen):
    """A row of the user's: its file, its line, and the beginning of what it says."""

    file: str
    line: int
    text: str = ""


class Change(_Frozen):
    """What a step of cleaning did to a row: a stretch of its text before and after."""

    place: Place
    before: str
    after: str


class StepReport(_Frozen):
    """A step of cleaning: ``name`` is a key ``step.*``; ``rows`` were changed by it."""

    name: str
    rows: int
    examples: tuple[Change, ...]


class FlagReport(_Frozen):
    """A flag: ``name`` is a key ``flag.*``; each example's text is what was found."""

    name: str
    rows: int
    examples: tuple[Place, ...]


class Cluster(_Frozen):
    """Near duplicates: the row that stays first; ``similarity`` is the lowest of its pairs'."""

    rows: tuple[Place, ...]
    size: int
    similarity: float


class Similarities(_Frozen):
    """Near duplicates and contradictions: how many, and the largest of them as examples.

    ``contradictions``: rows with one prompt and different answers, the prompts' number in
    ``contradicting``. ``leaks``: held-out rows with a near duplicate in training; 0 where
    the split kept them together.
    """

    threshold: float
    clusters: int
    rows: int
    examples: tuple[Cluster, ...]
    contradicting: int
    contradictions: tuple[Cluster, ...]
    leaks: int


class Rejection(_Frozen):
    """A rejected row as an example: ``reason`` and ``values`` are those of a ``Reason``."""

    place: Place
    reason: str
    values: Mapping[str, Any] = {}

    def sentence(self, language: Language | None = None) -> str:
        """Return why, in words."""
        return Reason(self.reason, self.values).sentence(language)

    def hint(self, language: Language | None = None) -> str:
        """Return what can be done about it."""
        return Reason(self.reason, self.values).hint(language)


class People(_Frozen):
    """What reviewers did. ``kappa``: (one, other, Cohen's kappa, rows both saw)."""

    reviewers: Mapping[str, int]
    accepted: int
    edited: int
    rejected: int
    held_back: int
    kappa: tuple[tuple[str, str, float, int], ...]


class Balanced(_Frozen):
    """Training rows of one value (or one file of ``mix``) before and after balancing."""

    value: str
    before: int
    after: int


class DataReport(_Frozen):
    """What became of the rows. ``kept + rejected == rows``, always.

    ``reasons``: rejected rows by reason, the most frequent first; ``rejections`` an example
    or more of each. ``tokens`` and ``scored_tokens`` are sums over the kept rows; ``split``
    counts rows. ``histogram``: (up to this many tokens, rows), ascending; ``limit`` is
    ``max_tokens``. ``languages``: rows by main language (zh, en, other). ``categories``:
    column → value → rows, for columns with few values. ``grown``: rows by method. ``people``:
    reviewers, reviewed rows and agreement, where there is a review.
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
    limit: int = 0
    histogram: tuple[tuple[int, int], ...] = ()
    rejections: Mapping[str, tuple[Rejection, ...]] = {}
    steps: tuple[StepReport, ...] = ()
    flags: tuple[FlagReport, ...] = ()
    similar: Similarities | None = None
    languages: Mapping[str, int] = {}
    categories: Mapping[str, Mapping[str, int]] = {}
    balance: tuple[Balanced, ...] = ()
    grown: Mapping[str, int] = {}
    people: People | None = None


def quantiles(tokens: npt.NDArray[np.int64]) -> Lengths:
    """Return the quantiles of ``tokens``, which holds at least one number."""
    low, p50, p90, p99, high = np.percentile(tokens, (0, 50, 90, 99, 100), method="higher")
    return Lengths(min=int(low), p50=int(p50), p90=int(p90), p99=int(p99), max=int(high))


def load_report(path: Path) -> DataReport:
    """Return the report that ``prepare`` wrote."""
    return DataReport.model_validate_json(path.read_bytes())

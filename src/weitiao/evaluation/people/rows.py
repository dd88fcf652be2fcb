"""Which answers stand against which: base and tuned of a run, or the tuned ones of two runs."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from weitiao.errors import RunError
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.common_rows import asked_answers, in_common


@dataclass(frozen=True, slots=True)
class Row:
    """A question with two answers: of ``Match.one``, then of ``Match.other``.

    ``id`` is made of all that is shown: a judgement holds for these answers and for no others.
    """

    id: str
    prompt: tuple[tuple[str, str], ...]
    reference: str
    answers: tuple[str, str]

    @property
    def question(self) -> str:
        """The last thing that the user says."""
        return next((said for role, said in reversed(self.prompt) if role == "user"), "")


@dataclass(frozen=True, slots=True)
class Match:
    """The rows to judge, in the order of the review.

    ``identical``: rows with twice the same answer, about which there is nothing to ask;
    ``unmatched``: answers to which the other side has none.
    """

    one: str
    other: str
    rows: tuple[Row, ...]
    identical: int
    unmatched: int


def match_answers(one: Path, other: Path, names: tuple[str, str], most: int | None = None) -> Match:
    """Match the answers of two files by question and reference; keep ``most`` rows, or all.

    Raises:
        RunError: a file holds no answers, nothing was asked of both, or all answers are the same.
    """
    answers = asked_answers(one), asked_answers(other)
    pairs = in_common(*answers, names)
    # A question that stands twice in the test rows, answered the same way, is asked once.
    rows = {
        row.id: row
        for a, b in pairs
        if a.answer.strip() != b.answer.strip() and (row := _row(a, b))
    }
    if not rows:
        raise RunError("error.people_all_same", one=names[0], other=names[1])
    # By the digest: one order for all, and a shorter review is the beginning of a longer one.
    chosen = sorted(rows.values(), key=lambda row: row.id)[:most]
    identical = sum(a.answer.strip() == b.answer.strip() for a, b in pairs)
    return Match(*names, tuple(chosen), identical, sum(map(len, answers)) - 2 * len(pairs))


def _row(one: Answered, other: Answered) -> Row:
    parts = [
        *(part for turn in one.prompt for part in turn),
        one.reference,
        one.answer,
        other.answer,
    ]
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass"))
    return Row(digest.hexdigest()[:32], one.prompt, one.reference, (one.answer, other.answer))

"""How far reviewers agree with each other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from weitiao.records.review.votes import Vote, Votes


@dataclass(frozen=True, slots=True)
class Pair:
    """Two reviewers, over the ``rows`` both saw; ``agreement`` is the share they judge alike."""

    one: str
    other: str
    rows: int
    agreement: float
    kappa: float


def cohens_kappa(one: Sequence[str], other: Sequence[str]) -> float:
    """Return Cohen's kappa of two reviewers' verdicts on the same rows (at least one).

    (p_o − p_e) / (1 − p_e), where p_o is the share of equal verdicts and p_e the share to
    be expected by chance if each gave verdicts as often as he does, but at random
    (J. Cohen, A Coefficient of Agreement for Nominal Scales, Educational and Psychological
    Measurement 20, 1960, 37–46). Where both give one and the same verdict throughout, the
    formula is 0/0; they agree, so 1 is returned.
    """
    # In whole numbers, so that 0/0 is seen for what it is.
    rows = len(one)
    equal = sum(a == b for a, b in zip(one, other, strict=True)) * rows
    others = Counter(other)
    chance = sum(count * others[verdict] for verdict, count in Counter(one).items())
    return 1.0 if chance == rows * rows else (equal - chance) / (rows * rows - chance)


def pairs(votes: Votes) -> tuple[Pair, ...]:
    """Return the agreement of each two reviewers who saw the same rows, by their names.

    The classes are accept, edit and reject; two edits are the same verdict, whatever
    their texts.
    """
    seen: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in votes.values():
        for one, other in combinations(sorted(row, key=_name), 2):
            verdicts = seen.setdefault((one.reviewer, other.reviewer), [])
            verdicts.append((one.verdict, other.verdict))
    return tuple(
        Pair(
            one,
            other,
            len(verdicts),
            sum(a == b for a, b in verdicts) / len(verdicts),
            cohens_kappa([a for a, _ in verdicts], [b for _, b in verdicts]),
        )
        for (one, other), verdicts in sorted(seen.items())
    )


def rows_seen(votes: Votes) -> dict[str, int]:
    """Return reviewer → rows he judged, the busiest first."""
    return dict(Counter(vote.reviewer for row in votes.values() for vote in row).most_common())


def _name(vote: Vote) -> str:
    return vote.reviewer

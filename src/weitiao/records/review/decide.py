"""What follows from the votes on a row, and what becomes of the row by it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from weitiao.records.record import Origin, Reason, Record
from weitiao.records.review.edits import Edit, with_edit
from weitiao.records.review.votes import Verdict, Vote

_EMPTY = Record(Origin("", 0))


@dataclass(frozen=True, slots=True)
class Decision:
    """What most reviewers of a row say; ``verdict`` is none where nobody has said anything.

    ``edited``: what the row shall say, for an edit; ``agreeing``: who says so, of so many
    ``reviewers``; ``held_back``: they agree less than the ``asked`` share, or as many say
    something else, so that another person must decide.
    """

    verdict: Verdict | Literal["none"]
    edited: Edit | None = None
    agreeing: tuple[str, ...] = ()
    reviewers: int = 0
    asked: float = 0.0
    held_back: bool = False

    @property
    def agreement(self) -> float:
        """The share of reviewers who say the same; 0 without a reviewer."""
        return len(self.agreeing) / self.reviewers if self.reviewers else 0.0


def decide(votes: Sequence[Vote], agreement: float) -> Decision:
    """Return what the votes on one row, each reviewer's last, come to.

    Two edits to different texts, blanks aside, are two opinions. The opinion of most counts
    if their share is at least ``agreement`` and no other opinion has as many: one reviewer
    against one is a conflict whatever share is asked. Of equal edits the latest counts.
    """
    if not votes:
        return Decision("none", asked=agreement)
    opinions: dict[tuple[str, str], list[Vote]] = {}
    for vote in votes:
        opinions.setdefault(_opinion(vote), []).append(vote)
    most, *others = sorted(opinions.values(), key=len, reverse=True)
    return Decision(
        verdict=most[-1].verdict,
        edited=most[-1].edited,
        agreeing=tuple(vote.reviewer for vote in most),
        reviewers=len(votes),
        asked=agreement,
        held_back=len(most) < agreement * len(votes)
        or len(most) == max(map(len, others), default=0),
    )


def _opinion(vote: Vote) -> tuple[str, str]:
    edited = "" if vote.edited is None else with_edit(_EMPTY, vote.edited).id
    return vote.verdict, edited


def apply(record: Record, decision: Decision, *, required: bool = False) -> Record | Reason:
    """Return the record as the reviewers want it, or the reason why it is not used.

    An accepted row carries its reviewers' names and is a draft no more. ``required``: a row
    that nobody reviewed, here or in another tool, is held back.
    """
    lineage = record.lineage
    if decision.verdict == "none":
        if lineage.draft:
            return Reason("draft_unreviewed")
        missing = required and not lineage.reviewers
        return Reason("review_missing") if missing else record
    if decision.held_back:
        return Reason(
            "review_held_back",
            {
                "agreeing": len(decision.agreeing),
                "reviewers": decision.reviewers,
                "asked": decision.asked,
            },
        )
    if decision.verdict == "reject":
        return Reason("review_rejected", {"reviewers": ", ".join(decision.agreeing)})
    if decision.edited is not None:
        record = with_edit(record, decision.edited)
    names = tuple(dict.fromkeys((*lineage.reviewers, *decision.agreeing)))
    return record.with_lineage(replace(lineage, draft=False, reviewers=names))

"""Which rows a reviewer should look at, and in which order."""

from array import array
from collections.abc import Container, Iterable, Sequence
from itertools import chain
from typing import Literal

from weitiao.records.record import Record
from weitiao.records.review.decide import decide
from weitiao.records.review.votes import Vote, Votes

DOUBLE = 0.1
"""The share of rows that two people look at, where nothing else is said."""

Need = Literal["draft", "flagged", "second", "conflict", "unseen"]
NEEDS: tuple[Need, ...] = ("draft", "flagged", "second", "conflict", "unseen")
"""Why a row needs a reviewer, the most urgent first."""


def need(
    record: Record,
    votes: Sequence[Vote],
    reviewer: str,
    *,
    flagged: bool,
    double: float,
    agreement: float,
) -> Need | None:
    """Return why ``reviewer`` should look at a row with these votes; None where he need not.

    Rows that were accepted in another tool, or that he judged before, need nothing of him.
    ``double`` is the share of rows for two people: which they are follows from what the
    row says, so that it is the same for everybody and every time.
    """
    if any(vote.reviewer == reviewer for vote in votes):
        return None
    if not votes:
        lineage = record.lineage
        if lineage.draft:
            return "draft"
        return None if lineage.reviewers else "flagged" if flagged else "unseen"
    if len(votes) == 1:
        return "second" if int(votes[0].row[:8], 16) < double * 2**32 else None
    return "conflict" if decide(votes, agreement).held_back else None


def queue(
    records: Iterable[Record],
    votes: Votes,
    reviewer: str,
    *,
    flagged: Container[int] = (),
    double: float = DOUBLE,
    agreement: float = 0.6,
) -> Sequence[int]:
    """Return the numbers (from 0) of the records that ``reviewer`` should look at, in order.

    Unreviewed drafts come first, then unreviewed rows whose number is ``flagged``, rows
    that one other person has judged, conflicts, and all other unreviewed rows; within each
    of these the order is the file's.
    """
    waiting = {why: array("q") for why in NEEDS}
    for i, record in enumerate(records):
        why = need(
            record,
            votes.get(record.id, ()) if votes else (),
            reviewer,
            flagged=i in flagged,
            double=double,
            agreement=agreement,
        )
        if why is not None:
            waiting[why].append(i)
    return array("q", chain.from_iterable(waiting.values()))

"""What people decided about rows: their votes, what follows from them, whom to ask what."""

from weitiao.records.review.agreement import Pair, pairs, rows_seen
from weitiao.records.review.decide import Decision, apply, decide
from weitiao.records.review.session import Progress, Session
from weitiao.records.review.votes import Vote, Votes, find_votes, load_votes, votes_path

__all__ = [
    "Decision",
    "Pair",
    "Progress",
    "Session",
    "Vote",
    "Votes",
    "apply",
    "decide",
    "find_votes",
    "load_votes",
    "pairs",
    "rows_seen",
    "votes_path",
]

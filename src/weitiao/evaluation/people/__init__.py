"""People compare answers without knowing whose they are: rows, votes, the page, what comes out."""

from weitiao.evaluation.people.export import FORMS, Exported, Form, export_votes
from weitiao.evaluation.people.results import People, count_votes, load_people, votes_by_row
from weitiao.evaluation.people.review import Review
from weitiao.evaluation.people.rows import Match, Row, match_answers
from weitiao.evaluation.people.server import ReviewServer, serving
from weitiao.evaluation.people.store import Store, Vote

__all__ = [
    "FORMS",
    "Exported",
    "Form",
    "Match",
    "People",
    "Review",
    "ReviewServer",
    "Row",
    "Store",
    "Vote",
    "count_votes",
    "export_votes",
    "load_people",
    "match_answers",
    "serving",
    "votes_by_row",
]

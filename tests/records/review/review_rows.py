"""Rows to review, and short ways to write votes."""

from weitiao.records.record import Lineage, Message, Origin, Record
from weitiao.records.review import Vote


def row(question: str, answer: str = "答", line: int = 1, lineage: Lineage | None = None) -> Record:
    record = Record(
        Origin("tea.jsonl", line), (Message("user", question), Message("assistant", answer))
    )
    return record if lineage is None else record.with_lineage(lineage)


def vote(record: Record, who: str, verdict: str = "accept", when: float = 1.0, **more) -> Vote:
    return Vote(record.id, who, verdict, when, **more)

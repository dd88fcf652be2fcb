"""Rows for the tests of growing."""

from typing import Any

from weitiao.records.record import Message, Origin, Record


def row(question: str, answer: str = "好的。", line: int = 1, **metadata: Any) -> Record:
    messages = (Message("user", question), Message("assistant", answer))
    return Record(Origin("a.jsonl", line), messages=messages, metadata=metadata)


def passage(text: str, line: int = 1, **metadata: Any) -> Record:
    return Record(Origin("book.txt", line), text=text, metadata=metadata)

"""What a reviewer may change in a row: its last answer, or its passage."""

from dataclasses import replace

from weitiao.records.record import Message, Record

Edit = tuple[Message, ...] | str
"""What a row says after an edit: all its turns, or its passage."""


def answer_of(record: Record) -> str:
    """Return the text that a reviewer judges: the last answer, or the passage."""
    return record.answer if record.text is None else record.text


def edit_of(record: Record, text: str) -> Edit | None:
    """Return what the row says with ``text`` as its answer; None where that changes nothing.

    Blank text changes nothing: an answer that should not be there is rejected. Line
    endings and blanks after the last line, which editors put there, do not count.
    """
    new = _plain(text)
    if not new or new == _plain(answer_of(record)):
        return None
    if record.text is not None:
        return new
    turns = list(record.messages)
    last = next((i for i in reversed(range(len(turns))) if turns[i].role == "assistant"), None)
    if last is None:
        return (*turns, Message("assistant", new))
    turns[last] = replace(turns[last], content=new)
    return tuple(turns)


def with_edit(record: Record, edit: Edit) -> Record:
    """Return the record saying what ``edit`` says."""
    if isinstance(edit, str):
        return replace(record, text=edit)
    return replace(record, messages=edit)


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").rstrip().lstrip("\n")

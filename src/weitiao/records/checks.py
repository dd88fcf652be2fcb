"""What is wrong with a row: each check returns a named reason, or None."""

import re
from collections.abc import Callable
from dataclasses import replace

from weitiao.records.record import Message, Reason, Record

ControlToken = Callable[[str], str | None]
"""Returns the first token in a text that steers the model, or None."""

_KNOWN_TOKENS = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>")


def known_control_token(text: str) -> str | None:
    """Return the first thing in ``text`` that is written as most models' special tokens are."""
    found = _KNOWN_TOKENS.search(text) if "<" in text else None
    return found.group() if found else None


def with_system(record: Record, system: str | None) -> Record:
    """Return the conversation with the system prompt ``system`` if it has none of its own."""
    if not system or not record.messages or any(m.role == "system" for m in record.messages):
        return record
    return replace(record, messages=(Message("system", system), *record.messages))


def without_unanswered(record: Record) -> Record:
    """Return the conversation without the turns after its last answer: nothing answers them."""
    if not record.messages or record.messages[-1].role == "assistant":
        return record
    answers = [i for i, m in enumerate(record.messages) if m.role == "assistant"]
    return replace(record, messages=record.messages[: answers[-1] + 1]) if answers else record


def first_reason(record: Record, control_token: ControlToken) -> Reason | None:
    """Return the first reason against the record; the checks stand in order of what helps most."""
    if not _is_plain(record):
        for check in CHECKS:
            if (reason := check(record)) is not None:
                return reason
    return special_token(record, control_token)


def _is_plain(record: Record) -> bool:
    """Tell whether it is one question and its answer, as nearly all rows are, with words in both.

    Then no check of ``CHECKS`` finds anything, and they need not be asked one by one.
    """
    if len(record.messages) != 2:
        return False
    asked, said = record.messages
    return bool(
        asked.role == "user"
        and said.role == "assistant"
        and asked.content.strip()
        and said.content.strip()
        and "</think>" not in said.content
        and not (asked.tool_calls or said.tool_calls)
    )


def empty_text(record: Record) -> Reason | None:
    """A passage without a word."""
    empty = record.text is not None and not record.text.strip()
    return Reason("empty_text") if empty else None


def empty_prompt(record: Record) -> Reason | None:
    """A question without a word, or no question at all."""
    if record.text is not None:
        return None
    asked = [m.content for m in record.messages if m.role == "user"]
    return None if asked and all(text.strip() for text in asked) else Reason("empty_prompt")


def no_answer(record: Record) -> Reason | None:
    """A conversation in which the assistant says nothing."""
    if record.text is not None or any(m.role == "assistant" for m in record.messages):
        return None
    return Reason("no_answer")


def empty_answer(record: Record) -> Reason | None:
    """An answer without a word, or with nothing after its reasoning."""
    for message in record.messages:
        if message.role != "assistant" or message.tool_calls:
            continue
        if not message.content.rpartition("</think>")[2].strip():
            return Reason("empty_answer")
    return None


_FOLLOWERS = {
    None: {"system", "user"},
    "system": {"user"},
    "user": {"assistant"},
    "assistant": {"user", "tool"},
    "tool": {"assistant", "tool"},
}


def bad_turn_order(record: Record) -> Reason | None:
    """Turns that do not alternate: what belongs to what is then a guess."""
    before: Message | None = None
    for number, message in enumerate(record.messages, start=1):
        role = before.role if before else None
        # A call of a tool may stand in several turns before its results.
        calls_again = bool(before and before.tool_calls and message.tool_calls)
        if message.role not in _FOLLOWERS[role] and not calls_again:
            return Reason("bad_turn_order", {"turn": number, "role": message.role})
        before = message
    return None


def special_token(record: Record, control_token: ControlToken) -> Reason | None:
    """A text that holds a token by which the model is steered: it would end or forge a turn.

    Passages (``record.text``) may hold them: so a base model learns how turns look.
    """
    for message in record.messages:
        if token := control_token(message.content):
            return Reason("special_token", {"token": token})
    return None


CHECKS: tuple[Callable[[Record], Reason | None], ...] = (
    empty_text,
    empty_prompt,
    no_answer,
    empty_answer,
    bad_turn_order,
)
"""Every check that needs only the record, in the order in which they are asked."""

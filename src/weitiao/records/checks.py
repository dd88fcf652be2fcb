"""What is wrong with a row: each check returns a named reason, or None."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from weitiao.records.options import DataOptions
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.render import ChatFormat


@dataclass(slots=True)
class Context:
    """What checks know beside the row: the model's format, the options, the rows kept so far."""

    chat: ChatFormat
    options: DataOptions
    seen: dict[bytes, Origin] = field(default_factory=dict)


def with_system(record: Record, system: str | None) -> Record:
    """Return the conversation with the system prompt ``system`` if it has none of its own."""
    if not system or not record.messages or any(m.role == "system" for m in record.messages):
        return record
    return replace(record, messages=(Message("system", system), *record.messages))


def without_unanswered(record: Record) -> Record:
    """Return the conversation without the turns after its last answer: nothing answers them."""
    answers = [i for i, m in enumerate(record.messages) if m.role == "assistant"]
    return replace(record, messages=record.messages[: answers[-1] + 1]) if answers else record


def first_reason(record: Record, context: Context) -> Reason | None:
    """Return the first reason against the record; the checks stand in order of what helps most."""
    found = (check(record, context) for check in CHECKS)
    return next((reason for reason in found if reason is not None), None)


def empty_text(record: Record, context: Context) -> Reason | None:
    """A passage without a word."""
    empty = record.text is not None and not record.text.strip()
    return Reason("empty_text") if empty else None


def empty_prompt(record: Record, context: Context) -> Reason | None:
    """A question without a word, or no question at all."""
    if record.text is not None:
        return None
    asked = [m.content for m in record.messages if m.role == "user"]
    return None if asked and all(text.strip() for text in asked) else Reason("empty_prompt")


def no_answer(record: Record, context: Context) -> Reason | None:
    """A conversation in which the assistant says nothing."""
    if record.text is not None or any(m.role == "assistant" for m in record.messages):
        return None
    return Reason("no_answer")


def empty_answer(record: Record, context: Context) -> Reason | None:
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


def bad_turn_order(record: Record, context: Context) -> Reason | None:
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


def special_token(record: Record, context: Context) -> Reason | None:
    """A text that holds a token by which the model is steered: it would end or forge a turn.

    Passages (``record.text``) may hold them: so a base model learns how turns look.
    """
    for message in record.messages:
        if token := context.chat.control_token(message.content):
            return Reason("special_token", {"token": token})
    return None


def duplicate(record: Record, context: Context) -> Reason | None:
    """A row that says the same, blanks aside, as one that was kept before."""
    if context.options.duplicates == "keep":
        return None
    key = record.fingerprint()
    if (first := context.seen.get(key)) is not None:
        return Reason("duplicate", {"file": first.file, "line": first.line})
    return None


CHECKS: tuple[Callable[[Record, Context], Reason | None], ...] = (
    empty_text,
    empty_prompt,
    no_answer,
    empty_answer,
    bad_turn_order,
    special_token,
    duplicate,
)
"""Every check, in the order in which they are asked."""

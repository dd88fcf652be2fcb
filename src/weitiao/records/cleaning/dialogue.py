"""Keep some turns of a conversation; leave out its system prompt, or set another."""

from collections.abc import Sequence
from typing import Literal

from weitiao.records.record import Message

Messages = tuple[Message, ...]


def keep_turns(messages: Messages, first: int | None, last: int | None) -> Messages:
    """Return the first ``first`` question-and-answer turns, and of these the last ``last``.

    A turn begins with the user's words and goes on to the next ones: calls of tools and
    their results belong to it. What stands before the first question (the system prompt,
    a greeting) stays. None keeps them all.
    """
    if first is None and last is None:
        return messages
    starts = [i for i, message in enumerate(messages) if message.role == "user"]
    kept = starts[:first][-last if last else 0 :]
    if len(kept) == len(starts):
        return messages
    following = starts.index(kept[-1]) + 1
    end = starts[following] if following < len(starts) else len(messages)
    return messages[: starts[0]] + messages[kept[0] : end]


def with_system_turn(
    messages: Messages, what: Literal["keep", "drop", "replace"], system: str | None
) -> Messages:
    """Return the conversation without its system prompts (drop), or with ``system`` first."""
    if what == "keep" or not messages:
        return messages
    rest = tuple(message for message in messages if message.role != "system")
    replaced = (Message("system", system), *rest) if what == "replace" and system else rest
    return messages if _say_the_same(messages, replaced) else replaced


def _say_the_same(one: Sequence[Message], other: Sequence[Message]) -> bool:
    return [(m.role, m.content) for m in one] == [(m.role, m.content) for m in other]

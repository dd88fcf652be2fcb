"""Names of columns that other tools and people give to questions, answers and the rest."""

from collections.abc import Mapping
from typing import Any

from weitiao.records.reading import CONVERSATION_COLUMNS

Row = Mapping[str, Any]

QUESTIONS = (
    *("question", "query", "problem", "ask", "prompt", "instruction", "input"),
    *("问题", "提问", "问", "指令", "输入"),
)
"""Names of a column of questions, the likeliest first."""

ANSWERS = (
    *("answer", "response", "output", "target", "targets", "solution", "completion"),
    *("答案", "回答", "回复", "答", "输出"),
)
"""Names of a column of answers, the likeliest first."""

OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt"),
    "tools": ("tools", "functions"),
    "history": ("history",),
    "input": ("input",),
    "context": ("context",),
}
"""Target → names of a column that only some rows of a file may have."""

_TURNS = ("system", "tools")
OPTIONAL_OF: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("conversation", "openai", "ms-swift", "llamafactory", "weitiao"), _TURNS),
    "alpaca": (*_TURNS, "history", "input"),
    "instruction": (*_TURNS, "history", "context"),
    "exchange": (*_TURNS, "history"),
}
"""Shape → the targets of :data:`OPTIONAL` that it knows; all other shapes know none."""

PREFERENCE = (
    frozenset({"chosen", "rejected"}),
    frozenset({"rejected_response"}),
    frozenset({"rejected_messages"}),
    frozenset({"kto_tag"}),
)
"""Columns that together make a row one of preference data."""

LABEL = "label"
"""KTO's column of likes and dislikes, where it is true or false."""

MEDIA = frozenset(f"{name}{s}" for name in ("image", "audio", "video") for s in ("", "s"))
"""Columns of pictures, sound and film."""

_TOOLS_OF_REVIEW = {"data", "annotations", "fields", "responses", "user_input"}

KNOWN = frozenset(
    {"text", "metadata", "origin", LABEL, "chosen_messages", *QUESTIONS, *ANSWERS}
    | {*CONVERSATION_COLUMNS, *_TOOLS_OF_REVIEW, *MEDIA}
    | {name for names in OPTIONAL.values() for name in names}
    | {name for names in PREFERENCE for name in names}
)
"""Every name that has a meaning in some shape: no column of metadata can safely have it."""


def with_inner_metadata(rest: dict[str, Any]) -> dict[str, Any]:
    """Return a row's or turn's other fields with those inside a field ``metadata`` beside them.

    Where a name stands in both, all stays as it is: neither value may be lost.
    """
    inner = rest.get("metadata")
    if not isinstance(inner, dict):
        return rest
    outer = {name: value for name, value in rest.items() if name != "metadata"}
    return rest if inner.keys() & outer.keys() else {**inner, **outer}

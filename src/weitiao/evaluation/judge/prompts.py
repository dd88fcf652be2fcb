"""What the judge is asked, and how its reply is read."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from weitiao.evaluation.answers import Answered
from weitiao.evaluation.units import has_han
from weitiao.words import Language, say

PROMPT_VERSION = 1
"""To be raised whenever the wording or the levels change: verdicts of two versions differ."""

LEVELS = ("correct", "helpful", "readers")
STORY_LEVELS = (*LEVELS, "plot", "values")

Winner = Literal["A", "B", "tie"]
_WINNERS: dict[str, Winner] = {
    "a": "A",
    "b": "B",
    **dict.fromkeys(("tie", "draw", "equal", "same", "both", "平局", "平", "一样"), "tie"),
}
_NUMBER = re.compile(r"\s*([1-5](?:\.\d+)?)\s*(?:/\s*5\s*)?")


@dataclass(frozen=True, slots=True)
class Vote:
    """One reply: the better answer, each answer's numbers in the order of the levels, and why."""

    winner: Winner
    a: tuple[float, ...]
    b: tuple[float, ...]
    why: str


def question(row: Answered) -> str:
    """Return what was asked: the one question, or the whole conversation before the answer."""
    if len(row.prompt) == 1:
        return row.prompt[0][1]
    return "\n\n".join(f"[{role}]\n{content}" for role, content in row.prompt)


def request(
    row: Answered, a: str, b: str, levels: tuple[str, ...], instructions: str | None
) -> list[dict[str, str]]:
    """Return the messages that ask which of the answers ``a`` and ``b`` is better."""
    asked = question(row)
    language: Language = "zh" if has_han(asked + row.reference) else "en"
    form = dict.fromkeys(levels, "1-5")
    text = say(
        "judge.prompt",
        language,
        question=asked,
        reference=say("judge.reference", language, text=row.reference) if row.reference else "",
        instructions=say("judge.instructions", language, text=instructions) if instructions else "",
        a=a,
        b=b,
        levels="\n".join(
            f"- {name}: {say(f'judge.level.{name}.how', language)}" for name in levels
        ),
        form=json.dumps({"A": form, "B": form, "why": "…", "winner": "A | B | tie"}),
    )
    return [{"role": "user", "content": text}]


def again(messages: list[dict[str, str]], reply: str) -> list[dict[str, str]]:
    """Return the messages that ask once more after a reply that could not be read."""
    language: Language = "zh" if has_han(messages[0]["content"]) else "en"
    return [
        *messages,
        {"role": "assistant", "content": reply or "…"},
        {"role": "user", "content": say("judge.again", language)},
    ]


def read_vote(reply: str, levels: tuple[str, ...]) -> Vote | None:
    """Return the vote in a reply, wherever its JSON object stands; None where there is none."""
    text = reply.rpartition("</think>")[2]
    decoder = json.JSONDecoder(strict=False)
    for start in (match.start() for match in re.finditer(r"\{", text)):
        try:
            value, _ = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and (vote := _vote(_folded(value), levels)):
            return vote
    return None


def _vote(value: dict[str, Any], levels: tuple[str, ...]) -> Vote | None:
    winner = _WINNERS.get(str(value.get("winner", "")).strip().lower())
    a, b = (_numbers(value.get(side), levels) for side in ("a", "b"))
    if winner is None or a is None or b is None:
        return None
    return Vote(winner, a, b, str(value.get("why", "")).strip())


def _numbers(value: object, levels: tuple[str, ...]) -> tuple[float, ...] | None:
    if not isinstance(value, dict):
        return None
    found = [_NUMBER.fullmatch(str(_folded(value).get(name))) for name in levels]
    numbers = tuple(float(match[1]) for match in found if match)
    return numbers if len(numbers) == len(levels) and max(numbers) <= 5 else None


def _folded(value: dict[str, Any]) -> dict[str, Any]:
    return {str(name).strip().lower(): below for name, below in value.items()}

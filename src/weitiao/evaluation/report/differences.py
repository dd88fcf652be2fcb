"""What differs between two texts, so that the page can mark it."""

from difflib import SequenceMatcher
from typing import Literal

from weitiao.evaluation.compare import Results
from weitiao.evaluation.examples import Example
from weitiao.evaluation.units import pieces

LEAST_ALIKE = 0.3
"""Of texts that have less in common nothing is marked: it would be all of them."""

GAP = "□"
"""Stands where something is missing."""

Mark = Literal["", "del", "ins", "mark"]
Marked = list[tuple[Mark, str]]
"""Stretches of a text with the element that marks them; empty: the same in both."""


def compared(results: Results) -> Literal["reference", "other"]:
    """Say with what an answer is compared: the reference where it alone is right, or the other."""
    return "reference" if results.kind in ("json", "short") else "other"


def marked_answers(results: Results, example: Example) -> tuple[Marked, Marked]:
    """Return the base's and the tuned model's answer, with what differs marked."""
    if compared(results) == "reference":
        return _against(example.base, example.reference), _against(example.tuned, example.reference)
    opcodes = _opcodes(example.base, example.tuned)
    if opcodes is None:
        return [("", example.base)], [("", example.tuned)]
    base, tuned = pieces(example.base), pieces(example.tuned)
    return (
        [("" if same else "del", "".join(base[a:b])) for same, a, b, _, _ in opcodes if b > a],
        [("" if same else "ins", "".join(tuned[c:d])) for same, _, _, c, d in opcodes if d > c],
    )


def _against(answer: str, reference: str) -> Marked:
    opcodes = _opcodes(answer, reference)
    if opcodes is None:
        return [("", answer)]
    cut = pieces(answer)
    return [("" if same else "mark", "".join(cut[a:b]) or GAP) for same, a, b, _, _ in opcodes]


def _opcodes(one: str, other: str) -> list[tuple[bool, int, int, int, int]] | None:
    """Return (same, from, to, from, to) stretch by stretch, in pieces of each text."""
    matcher = SequenceMatcher(None, _keys(one), _keys(other))
    if matcher.ratio() < LEAST_ALIKE:
        return None
    found: list[tuple[bool, int, int, int, int]] = []
    codes = matcher.get_opcodes()
    for i, (tag, *ends) in enumerate(codes):
        a, b, c, d = ends
        # A single character that both happen to have says nothing among what differs.
        stray = tag == "equal" and b - a == 1 and 0 < i < len(codes) - 1
        same = tag == "equal" and not stray
        if found and not same and not found[-1][0]:
            _, a, _, c, _ = found.pop()
        found.append((same, a, b, c, d))
    return found


def _keys(text: str) -> list[str]:
    return [piece.strip().casefold() for piece in pieces(text)]

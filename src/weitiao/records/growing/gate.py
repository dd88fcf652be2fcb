"""Whether a new wording is near enough to its parent, and far enough from it."""

from functools import cache
from typing import TYPE_CHECKING

from weitiao.records.growing.facts import labels_of, language_of, lost
from weitiao.records.growing.method import question
from weitiao.records.record import Reason, Record

if TYPE_CHECKING:
    from sacrebleu.metrics.chrf import CHRF

Bounds = tuple[float, float]

BOUNDS: Bounds = (20.0, 92.0)
"""Points of chrF: below the first the meaning drifts, above the second it is a copy."""


def against(parent: Record, new: Record, bounds: Bounds = BOUNDS) -> Reason | None:
    """Return why ``new`` cannot stand beside ``parent``, or None.

    The questions must lie within ``bounds``; so must an answer that was changed, except
    that it may be as near as it likes. Facts of both must survive: see ``facts.lost``.
    """
    old = question(parent)
    labels = labels_of(parent, old)
    reason = _reworded(old, question(new), bounds, labels)
    if reason is None and new.answer != parent.answer:
        return _reworded(parent.answer, new.answer, (bounds[0], 100.0), set())
    return reason


def likeness(parent: str, new: str) -> float:
    """Return chrF (Popović 2015; sacrebleu), 0 to 100, of ``new`` against ``parent``.

    Character n-grams up to 6, and up to 3 for Chinese, where a character says about as much
    as two or three letters.
    """
    return float(_chrf(3 if language_of(parent) == "zh" else 6).sentence_score(new, [parent]).score)


def _reworded(old: str, new: str, bounds: Bounds, labels: set[str]) -> Reason | None:
    if not new.strip():
        return Reason("grow_empty")
    if (fact := lost(old, new, labels)) is not None:
        return Reason("grow_lost", {"fact": fact if len(fact) <= 60 else f"{fact[:60]}…"})
    score = round(likeness(old, new), 1)
    if score < bounds[0]:
        return Reason("grow_drift", {"score": score, "bound": bounds[0]})
    if score > bounds[1]:
        return Reason("grow_copy", {"score": score, "bound": bounds[1]})
    return None


@cache
def _chrf(char_order: int) -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(char_order=char_order)

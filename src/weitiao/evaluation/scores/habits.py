"""How a model speaks, whatever it was asked."""

from collections.abc import Iterable

from weitiao.evaluation.units import ngrams, units


def repetition(answer: str) -> float:
    """Return the share of the answer's 4-grams that were said before in it; 0 for short answers.

    Units: Han characters, words, punctuation marks.
    """
    grams = ngrams(units(answer, punctuation=True), 4)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(answers: Iterable[str], n: int) -> float | None:
    """Return distinct n-grams over all n-grams of all answers together (Li et al. 2016).

    A model that says the same to everyone comes near 0. None where no answer has ``n`` units.
    """
    seen: set[tuple[str, ...]] = set()
    total = 0
    for answer in answers:
        grams = ngrams(units(answer), n)
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def distinct_2(answers: Iterable[str]) -> float | None:
    """Return :func:`distinct` of pairs of neighbours."""
    return distinct(answers, 2)


def length(answer: str) -> int:
    """Return the number of characters without outer blanks."""
    return len(answer.strip())

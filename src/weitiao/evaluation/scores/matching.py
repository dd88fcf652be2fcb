"""Is the answer the reference, wholly or in part of its words."""

import re
import unicodedata
from collections import Counter

from weitiao.evaluation.units import units

# Marks that change what a number says stay: 1.5, 10:30, 3/4, -2, 5%.
_NUMBER_MARK = re.compile(r"(?<=\d)[.,:/](?=\d)|(?<!\w)-(?=\d)|(?<=\d)%")
_ARTICLES = frozenset(("a", "an", "the"))


def exact_match(answer: str, reference: str) -> float:
    """Return 1 where the two are the same but for outer blanks, else 0."""
    return float(answer.strip() == reference.strip())


def normalised_match(answer: str, reference: str) -> float:
    """Return 1 where the two are the same but for case, width, blanks and punctuation, else 0.

    Punctuation inside numbers counts. A reference of nothing but punctuation must be met exactly.
    """
    wanted = normalised(reference)
    return float(normalised(answer) == wanted) if wanted else exact_match(answer, reference)


def normalised(text: str) -> str:
    """Return what is compared where case, width, blanks and punctuation do not count."""
    text = unicodedata.normalize("NFKC", text).casefold()
    kept = {match.start() for match in _NUMBER_MARK.finditer(text)}
    return "".join(
        c for i, c in enumerate(text) if i in kept or unicodedata.category(c)[0] not in "PZC"
    )


def token_f1(answer: str, reference: str) -> float | None:
    """Return the F1 of the units that both hold, in any order (SQuAD, Rajpurkar et al. 2016).

    Case and punctuation do not count, nor English articles beside other words. None where
    the reference has no unit.
    """
    given, wanted = _counted(answer), _counted(reference)
    if not wanted:
        return None
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


def _counted(text: str) -> Counter[str]:
    found = units(text)
    # "A" alone is an answer, not an article.
    return Counter([unit for unit in found if unit not in _ARTICLES] or found)

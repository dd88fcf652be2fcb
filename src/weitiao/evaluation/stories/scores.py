"""Scores of stories: (answer, reference) → a number, or None where the score does not apply."""

import re
from collections.abc import Callable
from functools import cache

from weitiao.evaluation.stories.grades import common_characters, read_units, share_known
from weitiao.evaluation.units import has_han, units

# A full stop ends a sentence only before a blank or a quotation mark, so not in 3.5.
_SENTENCE_END = re.compile(r"[。！？!?…\n]+|\.(?=[\s\"”’']|$)")
_SPOKEN = re.compile(
    r"“[^”]*”|「[^」]*」|『[^』]*』|\"[^\"\n]*\""
    # An apostrophe within a word is no quotation mark.
    r"|(?<!\w)‘.*?’(?!\w)|(?<!\w)'[^\n]*?'(?!\w)",
    re.DOTALL,
)


def sentence_length(answer: str, _: str) -> float:
    """Return the units in a sentence, on average; 0 where nothing is said."""
    lengths = [n for part in _SENTENCE_END.split(answer) if (n := len(units(part)))]
    return sum(lengths) / len(lengths) if lengths else 0.0


def dialogue_share(answer: str, _: str) -> float:
    """Return the share of the units that stand within quotation marks."""
    spoken = sum(len(units(part)) for part in _SPOKEN.findall(answer))
    return spoken / whole if (whole := len(units(answer))) else 0.0


def word_length(answer: str, reference: str) -> float | None:
    """Return the letters in a word, on average; None where the reference is in Chinese."""
    if has_han(reference):
        return None
    words = [word for word in read_units(answer) if not has_han(word)]
    return sum(map(len, words)) / len(words) if words else 0.0


def common_share(answer: str, reference: str) -> float | None:
    """Return the share of common Chinese characters; None where the reference has none at all."""
    return _common()(answer, reference)


@cache
def _common() -> Callable[[str, str], float | None]:
    return share_known(common_characters())

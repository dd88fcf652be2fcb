"""Suggest corrections of likely misspellings; nothing is ever changed."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from weitiao.errors import DataError
from weitiao.records.cleaning.flags import CODE
from weitiao.records.cleaning.wordlist import WordList, read_lines

_MOST = 5
"""The most suggestions for one text."""

# Names begin with a capital letter, and terms and code hold digits, dots or underscores.
_ENGLISH_WORD = re.compile(r"(?<![\w.@/#’'\\-])[a-z]{5,20}(?![\w@/\\’'-]|\.\w)")
_FREQUENT = 2e-6
"""The least share of all words that a correction has: rarer ones are guesses."""

_BRITISH_TO_AMERICAN = (
    ("our", "or"), ("is", "iz"), ("ys", "yz"), ("ll", "l"), ("ae", "e"),
    ("tre", "ter"), ("ence", "ense"),
)  # fmt: skip


class Speller:
    """Suggestions by a list of confusions (Chinese) and a dictionary (English).

    ``own``: a file of the user's own confusions, which come before ours.

    Raises:
        DataError: the file is missing or holds a line that is no pair, or the library for
            English is not installed.
    """

    def __init__(self, own: str | None) -> None:
        ours = resources.files(__package__).joinpath("confusions.tsv").read_text("utf-8")
        self._confusions = dict(_pairs(ours.splitlines(), "confusions.tsv"))
        if own:
            self._confusions.update(_pairs(read_lines(Path(own)), own))
        self._wrong = WordList(self._confusions)
        self._correct = lru_cache(maxsize=100_000)(_English())

    def suggest(self, texts: Iterable[str]) -> str | None:
        """Return suggestions such as ``按装→安装, recieve→receive``, or None."""
        found: dict[str, None] = {}
        for text in texts:
            found.update(dict.fromkeys(self._chinese(text)))
            for word in () if CODE.search(text) else _ENGLISH_WORD.findall(text):
                if meant := self._correct(word):
                    found[f"{word}→{meant}"] = None
        return ", ".join(list(found)[:_MOST]) or None

    def _chinese(self, text: str) -> Iterator[str]:
        lowered = text.lower()
        for place, wrong in self._wrong.find(text):
            meant, right_in = self._confusions[wrong]
            if not any(_stands_in(lowered, place, wrong, whole) for whole in right_in):
                yield f"{wrong}→{meant}"


class _English:
    """The correction of an English word by pyspellchecker's dictionary."""

    def __init__(self) -> None:
        try:
            from spellchecker import SpellChecker
        except ImportError:
            raise DataError("error.spelling_not_installed") from None
        # At a distance of two, a word has more neighbours than a reader would think of.
        self._dictionary: Any = SpellChecker(language="en", distance=1)

    def __call__(self, word: str) -> str | None:
        """Return the one frequent word that ``word`` is a slip away from, or None."""
        if word in self._dictionary:
            return None
        near = self._dictionary.known(self._dictionary.edit_distance_1(word))
        shares = {w: self._dictionary.word_usage_frequency(w) for w in near}
        best = max(shares, key=lambda w: (shares[w], w), default=None)
        return best if best and shares[best] >= _FREQUENT and _is_slip(word, best) else None


def _is_slip(word: str, meant: str) -> bool:
    """Return whether ``word`` may be ``meant`` with a slip, and is no word of its own.

    Slips keep the first and the last letter; the dictionary is American and lacks plurals.
    """
    british = {word.replace(*pair) for pair in _BRITISH_TO_AMERICAN}
    return (word[0], word[-1]) == (meant[0], meant[-1]) and meant not in british


def _pairs(lines: list[str], path: str) -> Iterator[tuple[str, tuple[str, tuple[str, ...]]]]:
    """Yield (wrong, (right, words in which the first is right)), the first in lower case."""
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        wrong, right, *right_in = [part.strip() for part in line.split("\t")] + [""]
        if not wrong or not right or wrong == right:
            raise DataError("error.confusion_line", path=path, line=number, value=line.strip())
        yield wrong.lower(), (right, tuple(right_in[0].lower().split()))


def _stands_in(text: str, place: int, part: str, whole: str) -> bool:
    """Return whether ``part``, found at ``place``, is a part of the word ``whole`` there."""
    return text.startswith(whole, place - whole.index(part)) if part in whole else False

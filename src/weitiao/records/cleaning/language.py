"""Which language a text is mainly in, as far as its letters tell."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]+")
_KANA = re.compile("[\u3041-\u30ff]+")
_WORDS = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
_OTHER = re.compile("[\u00c0-\u024f\u0370-\u1fff\uac00-\ud7af]+")
ENGLISH = re.compile(
    r"\b(?:the|of|and|to|is|are|in|a|an|you|it|for|that|this|what|how|why|i|my|do|be|with|on)\b",
    re.IGNORECASE,
)
"""English's most frequent words."""

_WORDS_THAT_MUST_SHOW_ENGLISH = 8
_WIDE_BUT_NOT_CHINESE = re.compile("[\u0800-\u1fff\u3041-\u30ff\ua000-\ud7ff]")

_CHINESE = 2.2
"""Bytes a character in UTF-8 above which a text is Chinese, if it is no other wide script."""

Main = Literal["zh", "latin", "other", "none"]


@dataclass(frozen=True, slots=True)
class Letters:
    """How much of a text is in which letters.

    ``han``: Chinese characters; ``kana``; ``words``: words of plain Latin letters;
    ``other``: letters of other scripts, and Latin ones with accents.
    """

    han: int
    kana: int
    words: int
    other: int

    @staticmethod
    def of(text: str) -> "Letters":
        """Return the counts for ``text``."""
        if text.isascii():
            return Letters(0, 0, len(_WORDS.findall(text)), 0)
        return Letters(
            sum(map(len, _HAN.findall(text))),
            sum(map(len, _KANA.findall(text))),
            len(_WORDS.findall(text)),
            sum(map(len, _OTHER.findall(text))),
        )

    @property
    def main(self) -> Main:
        """What most of the text is in; two Chinese characters weigh as much as a word."""
        weights: dict[Main, float] = {
            "zh": self.han / 2,
            "latin": self.words,
            # Japanese writes half of its text in Chinese characters.
            "other": self.other / 5 + (self.han if self.kana * 4 > self.han else self.kana / 2),
        }
        best = max(weights, key=weights.__getitem__)
        return best if weights[best] else "none"


def main_language(text: str) -> Literal["zh", "en", "other"]:
    """Return what ``text`` is mainly in: Chinese, English, or anything else.

    Of Latin letters, a text of eight words and more is English if it holds one of English's
    most frequent words, a shorter one if its letters are plain.
    """
    if mostly_chinese(text):
        return "zh"
    letters = Letters.of(text)
    if letters.main != "latin":
        return "zh" if letters.main == "zh" else "other"
    if letters.words < _WORDS_THAT_MUST_SHOW_ENGLISH:
        return "other" if letters.other else "en"
    return "en" if ENGLISH.search(text) else "other"


def main_languages(texts: Sequence[str]) -> Counter[str]:
    """Return how many of ``texts`` have which main language; quick where they are Chinese."""
    found: Counter[str] = Counter()
    if not _WIDE_BUT_NOT_CHINESE.search("".join(texts)):
        sure = len(texts)
        texts = [t for t in texts if len(t.encode("utf-8", "surrogatepass")) <= _CHINESE * len(t)]
        found["zh"] = sure - len(texts)
    found.update(map(main_language, texts))
    return +found


def mostly_chinese(text: str) -> bool:
    """Return whether clearly most of ``text`` is Chinese; cheap, and false where in doubt."""
    # In UTF-8 a Chinese character has two bytes more than ASCII, an accented letter one.
    size = len(text.encode("utf-8", "surrogatepass"))
    return size > _CHINESE * len(text) and not _WIDE_BUT_NOT_CHINESE.search(text)

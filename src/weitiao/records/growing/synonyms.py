"""New wordings by exchanging words for others that mean the same."""

import random
import re
from typing import NamedTuple

from weitiao.records.growing.facts import fixed, labels_of
from weitiao.records.growing.method import Candidate, Method, question_at, reworded
from weitiao.records.growing.thesaurus import Thesaurus, lower
from weitiao.records.record import Reason, Record

_WORD = re.compile("[A-Za-z0-9]+")
_TRIES = 3
"""Drawings for each variant wanted: some give a wording that is there already."""


class _Text(NamedTuple):
    """A text, the places of words that can be exchanged, and how many of them may be."""

    text: str
    places: list[tuple[int, int]]
    most: int


def synonyms(thesaurus: Thesaurus, share: float = 0.2, answers: bool = False) -> Method:
    """Return the method that exchanges words of the question by ``thesaurus``.

    At most ``share`` (0 to 1) of a text's words are exchanged, and at least one; numbers,
    code, JSON, addresses, placeholders, quotes and what the answer quotes stay. With
    ``answers`` the last answer is reworded in the same way.
    """
    words = _Words(thesaurus)

    def candidates(record: Record, n: int, seed: int) -> list[Candidate]:
        asked = question_at(record)
        places = [i for i in (asked, len(record.prompt) if answers else None) if i is not None]
        old = tuple(record.messages[i].content for i in places)
        labels = labels_of(record, old[0])
        texts = [words.exchangeable(text, labels, share) for text in old]
        rng = random.Random(f"{seed}:{record.id}")
        found: dict[tuple[str, ...], None] = {}
        for _ in range(n * _TRIES):
            found[tuple(_drawn(text, thesaurus, rng) for text in texts)] = None
            found.pop(old, None)
            if len(found) == n:
                break
        new = [reworded(record, dict(zip(places, wording, strict=True))) for wording in found]
        return [*new] or [Reason("grow_no_synonym")]

    return Method("synonyms", candidates)


class _Words:
    """Parts a text into words by the longest matches, read forwards and backwards."""

    def __init__(self, thesaurus: Thesaurus) -> None:
        self._thesaurus = thesaurus
        self._backwards = frozenset(word[::-1] for word in thesaurus.known)

    def exchangeable(self, text: str, labels: set[str], share: float) -> _Text:
        low = lower(text)
        forwards = self._parted(low, self._thesaurus.known)
        # Where the two readings differ it is open where words end: those are left alone.
        size = len(low)
        backwards = {
            (size - end, size - start) for start, end in self._parted(low[::-1], self._backwards)
        }
        mask = fixed(text, labels)
        places = [
            (start, end)
            for start, end in forwards
            if low[start:end] in self._thesaurus.others
            and (start, end) in backwards
            and not any(mask[start:end])
        ]
        words = sum(low[start:end].strip().isalnum() for start, end in forwards)
        return _Text(text, places, max(1, int(share * words)))

    def _parted(self, text: str, known: frozenset[str]) -> list[tuple[int, int]]:
        """Return the words of ``text`` in order; what is in no list stands by itself."""
        found = []
        start = 0
        while start < len(text):
            run = _WORD.match(text, start)
            end = run.end() if run else start + 1
            for longer in range(min(start + self._thesaurus.longest, len(text)), end, -1):
                if text[start:longer] in known and not _inside_word(text, longer):
                    end = longer
                    break
            found.append((start, end))
            start = end
        return found


def _inside_word(text: str, place: int) -> bool:
    """Return whether a word of Latin letters or a number goes on across ``place``."""
    return bool(_WORD.fullmatch(text[place - 1 : place + 1])) and 0 < place < len(text)


def _drawn(text: _Text, thesaurus: Thesaurus, rng: random.Random) -> str:
    if not text.places:
        return text.text
    count = rng.randint(1, min(text.most, len(text.places)))
    pieces: list[str] = []
    done = 0
    for start, end in sorted(rng.sample(text.places, count)):
        old = text.text[start:end]
        pieces += text.text[done:start], _cased(rng.choice(thesaurus.others[lower(old)]), old)
        done = end
    return "".join([*pieces, text.text[done:]])


def _cased(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word

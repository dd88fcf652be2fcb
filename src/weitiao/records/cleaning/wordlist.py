"""Find many words in a text at once."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from weitiao.errors import DataError
from weitiao.records.reading.encoding import detect

_LETTER = re.compile("[a-z0-9]")


class WordList:
    """Words to look for, whatever their case; those of Latin letters as whole words only.

    The cost of a look-up is that of one regular expression over the first characters, and
    of the words that share one where it stands: it hardly grows with the list.
    """

    def __init__(self, words: Iterable[str]) -> None:
        by_first: defaultdict[str, set[str]] = defaultdict(set)
        for word in words:
            if lowered := word.strip().lower():
                by_first[lowered[0]].add(lowered)
        self._words = {
            first: tuple(sorted(sharing, key=len, reverse=True))
            for first, sharing in by_first.items()
        }
        self._firsts = re.compile("|".join(map(re.escape, sorted(by_first))) or "(?!)")

    def __bool__(self) -> bool:
        return bool(self._words)

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield (place, word) of each word in ``text``, the longest where several begin.

        Places count in ``text.lower()``, the words are in lower case.
        """
        if not self._words:
            return
        text = text.lower()
        for first in self._firsts.finditer(text):
            place = first.start()
            sharing = self._words[first[0]]
            if text.startswith(sharing, place):
                for word in sharing:
                    if text.startswith(word, place) and _is_whole(text, place, word):
                        yield place, word
                        break


def read_lines(path: Path) -> list[str]:
    """Return the lines of a user's list, in whatever encoding it is.

    Raises:
        DataError: there is no such file, or it cannot be opened.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError("error.file_missing", path=path) from None
    except OSError as error:
        cause = error.strerror or str(error)
        raise DataError("error.file_unreadable", path=path, cause=cause) from error
    return data.decode(detect(data).name, errors="replace").splitlines()


def _is_whole(text: str, place: int, word: str) -> bool:
    """Return whether no Latin word goes on at either end of ``word``."""
    end = place + len(word)
    before, after = text[max(place - 1, 0) : place], text[end : end + 1]
    goes_on_before = _LETTER.match(before) and _LETTER.match(word)
    goes_on_after = _LETTER.match(after) and _LETTER.match(word[-1])
    return not (goes_on_before or goes_on_after)

"""Which words may stand for one another: a user's list, or the Tongyici Cilin."""

import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from weitiao.errors import DataError
from weitiao.records.reading.encoding import detect

CILIN = "cilin"
"""The source that is not a file but the Python package ``cilin`` (Tongyici Cilin)."""

_CODE = re.compile(r"[A-Z][a-z]\d\d[A-Z]\d\d([=#@])\s+")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_SEPARATED = re.compile(r"[,，、;；\t]+")
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class Thesaurus:
    """``others``: word → the words it may be exchanged for; ``known``: all words, to find
    where words end; ``longest``: characters of the longest one. All in lower case.
    """

    others: dict[str, tuple[str, ...]]
    known: frozenset[str]
    longest: int


def load_thesaurus(source: str) -> Thesaurus:
    """Return the thesaurus of a text file, or of the package ``cilin`` where that is asked for.

    A line of the file is a group of words that mean the same, parted by commas, tabs or
    blanks (where there are commas or tabs, a blank belongs to its English phrase). Lines of
    Cilin's form are understood: ``Aa01A01= 人 士 …``; those with ``#`` (related words) and
    ``@`` (single words) only tell where words end.

    A word of several groups has several meanings and is exchanged for none, and neither
    is a single Chinese character: most often it is a part of some other word.

    Raises:
        DataError: there is no such file, it holds no group, or the package is not installed.
    """
    path = Path(source)
    if source == CILIN and not path.is_file():
        return made(_cilin())
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError("error.thesaurus_unreadable", path=path, cause=error.strerror) from error
    text = data.decode(detect(data).name, errors="replace")
    thesaurus = made(_group(line) for line in text.removeprefix("\ufeff").splitlines())
    if not thesaurus.others:
        raise DataError("error.thesaurus_empty", path=path)
    return thesaurus


def made(groups: Iterable[tuple[bool, list[str]]]) -> Thesaurus:
    """Return the thesaurus of groups: whether the words mean the same, and the words."""
    others: dict[str, tuple[str, ...]] = {}
    known: set[str] = set()
    ambiguous: set[str] = set()
    for same, words in groups:
        words = list(dict.fromkeys(lower(word) for word in words))
        for word in words:
            if word in known:
                ambiguous.add(word)
            elif same and _exchangeable(word):
                others[word] = tuple(w for w in words if w != word and _exchangeable(w))
        known.update(words)
    kept = {w: group for w, group in others.items() if group and w not in ambiguous}
    return Thesaurus(kept, frozenset(known), max(map(len, known), default=0))


def lower(text: str) -> str:
    """Return ``text`` with A to Z in lower case: unlike ``str.lower``, of the same length."""
    return text.translate(_LOWER)


def _exchangeable(word: str) -> bool:
    return len(word) > 1 or not _HAN.match(word)


def _group(line: str) -> tuple[bool, list[str]]:
    line = line.strip()
    if code := _CODE.match(line):
        return code[1] == "=", line[code.end() :].split()
    pieces = _SEPARATED.split(line)
    if len(pieces) > 1:
        pieces = [p for piece in pieces for p in (piece.split() if _HAN.search(piece) else [piece])]
    else:
        pieces = line.split()
    return True, [" ".join(piece.split()) for piece in pieces if piece.strip()]


def _cilin() -> Iterator[tuple[bool, list[str]]]:
    try:
        package = importlib.import_module(CILIN)
    except ImportError as error:
        raise DataError("error.no_cilin") from error
    groups: dict[str, set[str]] = package.Cilin(trad=False).category_split(level=5)
    for code, words in groups.items():
        yield code.endswith("="), sorted(words)  # sets: their order differs from run to run

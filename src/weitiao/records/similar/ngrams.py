"""Texts as sets of character n-grams: what near duplicates are compared by.

A text is written in NFKC, in small letters, without blanks and punctuation; this form is only
compared, never kept. Each of its characters begins one n-gram, cut short at the text's end: two
characters from an ideograph, kana or hangul on, four from any other. One changed character
leaves a verse of 28 at 0.87, where trigrams would leave it at 0.81. Unlike texts stay far below:
of 1,000 pairs of long answers, one reaches 0.17 in Chinese and 0.15 in English, where letter
pairs would bring half of them over 0.5.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

LONGEST = 100_000
"""Of a longer text, only so many characters from its start are compared."""

_DENSE, _SPARSE = 2, 4
_PIECE = 500_000
_NOT_SAID = ("P", "Z", "C")
_IDEOGRAPHIC = (
    (0x2E80, 0x9FFF),  # radicals, kana, bopomofo, Han
    (0xA960, 0xA97F),
    (0xAC00, 0xD7FF),  # hangul
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),  # the planes of rare Han
)
FACTOR = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of N texts, M in all.

    ``hashes``: uint64[M], text after text, repetitions and all; ``sizes``: int64[N], how many of
    them are each text's; ``whole``: uint64[N], equal for equal texts, 0 for a text without a word.
    """

    hashes: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    whole: NDArray[np.uint64]

    @property
    def owners(self) -> NDArray[np.int64]:
        """int64[M]: the text of each n-gram."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)


def pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield ``texts`` in order, so many at a time that their n-grams take a few megabytes."""
    start = room = 0
    for i, text in enumerate(texts):
        room += min(len(text), LONGEST) + 1
        if room > _PIECE and i > start:
            yield texts[start:i]
            start, room = i, min(len(text), LONGEST) + 1
    if start < len(texts):
        yield texts[start:]


def grams(texts: Sequence[str]) -> Grams:
    """Return the n-grams of ``texts``."""
    # One pass over the whole piece: no normal form reaches across a NUL.
    joined = "".join(f"{text[:LONGEST]}\0" for text in texts)
    if joined.count("\0") != len(texts):
        joined = "".join(text[:LONGEST].replace("\0", " ") + "\0" for text in texts)
    points, _ = _said(joined)
    # Most Chinese text is in NFKC once its punctuation is gone, which is quickly seen.
    bare = points.tobytes().decode("utf-32-le", "surrogatepass")
    points, reach = _said(unicodedata.normalize("NFKC", bare).casefold())
    ends = np.flatnonzero(points == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
    sizes = ends - starts
    said = points > 0
    places = np.arange(len(points)) - np.repeat(starts, sizes + 1)
    placed = mix(((places.astype(np.uint64) << np.uint64(21)) | points)[said])
    return Grams(_windows(points, reach)[said], sizes, sums(placed, sizes))


def sums(values: NDArray[np.uint64], sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the sum of each text's values; 0 for a text that has none."""
    out = np.zeros(len(sizes), np.uint64)
    starts = np.cumsum(sizes) - sizes
    some = sizes > 0
    if some.any():
        out[some] = np.add.reduceat(values, starts[some])
    return out


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each value over all 64 bits, one to one (the last step of SplitMix64)."""
    out = values ^ (values >> np.uint64(30))
    out *= _MIX_1
    out ^= out >> np.uint64(27)
    out *= _MIX_2
    out ^= out >> np.uint64(31)
    return out


def _said(text: str) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return the code points that say something, and the NULs, with the reach of each."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    reach = _reach()[points]
    kept = (reach > 0) | (points == 0)
    return points[kept], reach[kept]


def _windows(points: NDArray[np.uint32], reach: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a hash of the n-gram that begins at each character; a text's end is a 0."""
    padded = np.concatenate([points, np.zeros(_SPARSE, np.uint32)]).astype(np.uint64)
    hashes = padded[: len(points)].copy()
    inside = points > 0
    for step in range(1, _SPARSE):
        following = padded[step : step + len(points)]
        inside = inside & (following > 0) & (reach > step)
        hashes *= FACTOR
        hashes += following * inside
    return mix(hashes)


@cache
def _reach() -> NDArray[np.uint8]:
    """Return code point → how many characters its n-gram has; 0: it says nothing."""
    kinds = map(unicodedata.category, map(chr, range(0x110000)))
    said = np.fromiter((kind[0] not in _NOT_SAID for kind in kinds), dtype=bool, count=0x110000)
    reach = np.full(0x110000, _SPARSE, np.uint8)
    for first, last in _IDEOGRAPHIC:
        reach[first : last + 1] = _DENSE
    reach[~said] = 0
    return reach

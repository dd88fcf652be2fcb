"""Near duplicates among millions of short texts, in a few numbers a row.

MinHash with bands (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets,
chapter 3) finds the candidates, and the exact Jaccard similarity of the n-grams decides.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from weitiao.records.similar.groups import Groups
from weitiao.records.similar.ngrams import FACTOR, Grams, grams, mix, pieces

_MOST_HASHES = 128
_MISSED = 0.01
"""The share of pairs exactly at the threshold that may fall through all bands."""

_WINDOW = 4
_PORTION = 500_000
_BATCH, _BATCH_CHARACTERS = 10_000, 2_000_000
_FEWEST, _TEMPLATE_SHARE = 200, 0.5
_HALF = np.uint64(32)
_PAIR_BITS = np.uint64(44)
_LOW = (np.uint64(1) << _PAIR_BITS) - np.uint64(1)


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Rows that say nearly the same: int64[size], ascending.

    ``similarity``: the lowest of the pairs by which they were linked.
    """

    rows: NDArray[np.int64]
    similarity: float


class NearIndex:
    """Near duplicates of one kind of text (prompts, say), added in the order of their rows.

    Two texts are near duplicates if the Jaccard similarity of their n-grams is at least
    ``threshold``. N-grams that stand in more than half of the first 10,000 texts are the
    data's template, an instruction that all prompts share, and take no part: the rest decides
    (of a text that is nothing else, only an equal text is a near duplicate).

    Memory: 12 bytes a row and 4 a band, 76 at the threshold of 0.85; while clusters are looked
    for, about 70 more.
    """

    def __init__(self, threshold: float = 0.85) -> None:
        self._threshold = threshold
        bands, rows = _bands(threshold)
        rng = np.random.default_rng(1)
        self._factors = rng.integers(0, 1 << 32, (bands, rows), dtype=np.uint32) | np.uint32(1)
        self._offsets = rng.integers(0, 1 << 32, (bands, rows), dtype=np.uint32)
        self._waiting: list[str] = []
        self._waiting_characters = 0
        self._template: NDArray[np.uint64] | None = None
        self._whole: list[NDArray[np.uint64]] = []
        self._sizes: list[NDArray[np.uint32]] = []
        self._columns: list[NDArray[np.uint32]] = []

    def add(self, texts: Sequence[str]) -> None:
        """Take in the next rows' texts; a text without a word takes no part."""
        self._waiting += texts
        self._waiting_characters += sum(map(len, texts))
        if len(self._waiting) >= _BATCH or self._waiting_characters >= _BATCH_CHARACTERS:
            self._sketch_waiting()

    def clusters(self, texts_of: Callable[[Sequence[int]], list[str]]) -> list[Cluster]:
        """Return the clusters of at least two rows, by their first row.

        ``texts_of`` gives the texts of rows, ascending, as they were added; it is asked only
        for candidates, a few thousand at a time. A row that is near one row of a cluster
        belongs to the cluster, even if it is not near the others.
        """
        self._sketch_waiting()
        whole = np.concatenate([np.zeros(0, np.uint64), *self._whole])
        groups = Groups(len(whole))
        groups.join_equal(whole)
        firsts = np.flatnonzero((groups.labels() == np.arange(len(whole))) & (whole != 0))
        del whole
        links = [np.zeros((0, 2))]
        for band in range(len(self._factors)):
            column = np.concatenate([np.zeros(0, np.uint32), *(c[band] for c in self._columns)])
            for places in _candidates(column[firsts]):
                pairs = firsts[places]
                labels = groups.labels()
                pairs = pairs[:, labels[pairs[0]] != labels[pairs[1]]]
                similarity = self.similarity(pairs, texts_of)
                near = similarity >= self._threshold
                for a, b in pairs[:, near].T.tolist():
                    groups.join(a, b)
                links.append(np.stack([pairs[0, near], similarity[near]], axis=1))
        return _clusters(groups, np.concatenate(links))

    def similarity(
        self, pairs: NDArray[np.int64], texts_of: Callable[[Sequence[int]], list[str]]
    ) -> NDArray[np.float64]:
        """Return the Jaccard similarity, float64[P], of each pair of rows, int64[2, P]."""
        self._sizes = [np.concatenate([np.zeros(0, np.uint32), *self._sizes])]
        found = [self._compared(part, texts_of) for part in _portions(pairs, self._sizes[0])]
        return np.concatenate([np.zeros(0), *found])

    def _sketch_waiting(self) -> None:
        texts, self._waiting, self._waiting_characters = self._waiting, [], 0
        if self._template is None:
            self._template = _template(texts[:_BATCH])
        for piece in pieces(texts):
            self._sketch(piece)

    def _sketch(self, texts: Sequence[str]) -> None:
        found = self._grams(texts)
        self._whole.append(found.whole)
        self._sizes.append(found.sizes.astype(np.uint32))
        columns = np.zeros((len(self._factors), len(texts)), np.uint32)
        some = found.sizes > 0
        if some.any():
            starts = (np.cumsum(found.sizes) - found.sizes)[some]
            columns[:, some] = self._minima((found.hashes >> _HALF).astype(np.uint32), starts)
        self._columns.append(columns)

    def _grams(self, texts: Sequence[str]) -> Grams:
        """Return the n-grams without the template's; a text may have none left."""
        found = grams(texts)
        if self._template is None or not len(self._template):
            return found
        own = ~np.isin(found.hashes & _LOW, self._template)
        sizes = np.bincount(found.owners[own], minlength=len(texts)).astype(np.int64)
        return Grams(found.hashes[own], sizes, found.whole)

    def _minima(self, hashes: NDArray[np.uint32], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return uint32[bands, texts]: equal where all the smallest hashes of a band are."""
        permuted = np.empty_like(hashes)
        out = np.empty((len(self._factors), len(starts)), np.uint32)
        for band, (factors, offsets) in enumerate(zip(self._factors, self._offsets, strict=True)):
            seen = np.zeros(len(starts), np.uint64)
            for factor, offset in zip(factors, offsets, strict=True):
                np.multiply(hashes, factor, out=permuted)
                permuted += offset
                seen = seen * FACTOR + np.minimum.reduceat(permuted, starts)
            out[band] = mix(seen) >> _HALF
        return out

    def _compared(
        self, pairs: NDArray[np.int64], texts_of: Callable[[Sequence[int]], list[str]]
    ) -> NDArray[np.float64]:
        rows, places = np.unique(pairs, return_inverse=True)
        places = places.reshape(pairs.shape)
        texts = texts_of(rows.tolist())
        found = [_sets(self._grams(piece)) for piece in pieces(texts)]
        hashes = np.concatenate([sets.hashes for sets in found])
        sizes = np.concatenate([sets.sizes for sets in found])
        starts = np.cumsum(sizes) - sizes
        lengths = sizes[places]
        both = lengths.sum(axis=0)
        # The n-grams of both sides under the pair's number: what stands twice is shared.
        owners = np.repeat(np.arange(pairs.shape[1]), both)
        flat_lengths = lengths.T.ravel()
        begins = np.repeat(starts[places.T.ravel()], flat_lengths)
        steps = np.arange(len(begins)) - np.repeat(
            np.cumsum(flat_lengths) - flat_lengths, flat_lengths
        )
        keys = (owners.astype(np.uint64) << _PAIR_BITS) | hashes[begins + steps]
        keys.sort()
        twice = keys[1:][keys[1:] == keys[:-1]] >> _PAIR_BITS
        shared = np.bincount(twice.astype(np.int64), minlength=pairs.shape[1])
        similarity: NDArray[np.float64] = shared / np.maximum(both - shared, 1)
        return similarity


def _bands(threshold: float) -> tuple[int, int]:
    """Return how many bands of how many hashes miss at most ``_MISSED`` at the threshold."""
    for rows in range(_MOST_HASHES, 0, -1):
        for bands in range(1, _MOST_HASHES // rows + 1):
            if (1 - threshold**rows) ** bands <= _MISSED:
                return bands, rows
    raise AssertionError("one hash a band finds everything from 0.036 on")


def _sets(found: Grams) -> Grams:
    """Return each text's n-grams once, of their hashes the low 44 bits."""
    keys = (found.owners.astype(np.uint64) << _PAIR_BITS) | (found.hashes & _LOW)
    keys.sort()
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    sizes = np.bincount((keys >> _PAIR_BITS).astype(np.int64), minlength=len(found.sizes))
    return Grams(keys & _LOW, sizes.astype(np.int64), found.whole)


def _template(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the n-grams, low 44 bits, that stand in more than half of the different texts."""
    found = [_sets(grams(piece)) for piece in pieces(list(dict.fromkeys(texts)))]
    distinct = sum(len(sets.sizes) for sets in found)
    if distinct < _FEWEST:
        return np.zeros(0, np.uint64)
    values, counts = np.unique(np.concatenate([s.hashes for s in found]), return_counts=True)
    return values[counts > _TEMPLATE_SHARE * distinct]


def _candidates(column: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
    """Yield pairs, int64[2, P], of places where ``column`` is equal.

    Each place is paired with the ``_WINDOW`` before it and with the first of all, so that the
    work grows with the rows even where thousands of unlike texts fall together.
    """
    keys = (column.astype(np.uint64) << _HALF) | np.arange(len(column), dtype=np.uint64)
    keys.sort()
    same = (keys[1:] >> _HALF) == (keys[:-1] >> _HALF)
    keys = keys[(np.append(same, False) | np.append(False, same))[: len(keys)]]
    places = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    values = keys >> _HALF
    begins = np.flatnonzero(np.append(True, values[1:] != values[:-1])[: len(values)])
    first = np.repeat(begins, np.diff(np.append(begins, len(values))))
    rank = np.arange(len(values)) - first
    yield np.stack([places[first[rank > 0]], places[rank > 0]])
    for back in range(1, _WINDOW + 1):
        later = np.flatnonzero(rank > back)
        yield np.stack([places[later - back], places[later]])


def _portions(pairs: NDArray[np.int64], sizes: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs, int64[2, P], so many at a time that their n-grams take a few megabytes."""
    upto = np.cumsum(sizes[pairs].sum(axis=0, dtype=np.int64) + 1)
    cuts = np.searchsorted(upto, np.arange(_PORTION, upto[-1] if len(upto) else 0, _PORTION))
    yield from (part for part in np.split(pairs, np.unique(cuts), axis=1) if part.size)


def _clusters(groups: Groups, links: NDArray[np.float64]) -> list[Cluster]:
    labels = groups.labels()
    lowest = np.ones(len(labels))
    np.minimum.at(lowest, labels[links[:, 0].astype(np.int64)], links[:, 1])
    members = np.flatnonzero(np.bincount(labels, minlength=len(labels))[labels] > 1)
    members = members[np.argsort(labels[members], kind="stable")]
    borders = np.flatnonzero(np.diff(labels[members], prepend=-1, append=-1))
    return [
        Cluster(members[begin:end], float(lowest[labels[members[begin]]]))
        for begin, end in pairwise(borders.tolist())
    ]

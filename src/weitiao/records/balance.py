"""How often each training row is used: kinds evened out, other files mixed in."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from weitiao.errors import DataError
from weitiao.records.options import BalanceOptions
from weitiao.records.report import Balanced

_VALUES_NAMED = 8


@dataclass(frozen=True, slots=True)
class Balance:
    """``copies``: int64 of one item a row, how often it is used, 0 where it is not at all.

    ``table``: each value's rows before and after, the most frequent value first.
    """

    copies: NDArray[np.int64]
    table: tuple[Balanced, ...]


def balance(values: Sequence[str], options: BalanceOptions, seed: int) -> Balance:
    """Return how often to use each training row, given its value in the column ``by``.

    First each value is cut to at most ``cap`` rows; then its rows are repeated by its
    weight; then temperature T raises the smaller values, so that shares p become
    proportional to p ** (1 / T) while the largest value stays as it is (G. Lample and
    A. Conneau, Cross-lingual Language Model Pretraining, 2019, section 3.1, with
    alpha = 1 / T). No value loses its last row. Copies of one value differ by at most 1;
    which rows get the more is decided by a hash of ``seed`` and the row's number.

    Raises:
        DataError: no column is named, or a weight is given for a value that no row has.
    """
    if options.by is None:
        if options.cap or options.weights or options.temperature:
            raise DataError("error.balance_without_column")
        return Balance(np.ones(len(values), np.int64), ())
    names: dict[str, int] = {}
    codes = np.fromiter((names.setdefault(v, len(names)) for v in values), np.int64, len(values))
    before = np.bincount(codes, minlength=len(names))
    frequent = [list(names)[i] for i in np.argsort(-before, kind="stable")]
    _check_weights(options, frequent)
    usable = np.minimum(before, options.cap or len(values))
    weights = [Fraction(str(options.weights.get(name, 1))) for name in names]
    after = [max(1, _round(w * int(m))) for w, m in zip(weights, usable, strict=True)]
    if options.temperature is not None and after:
        most, power = max(after), 1 / options.temperature
        after = [round(most * (rows / most) ** power) for rows in after]
    copies = _dealt(_ranks(codes, before, seed), usable[codes], np.array(after, np.int64)[codes])
    table = (
        Balanced(value=name, before=int(before[names[name]]), after=after[names[name]])
        for name in frequent
    )
    return Balance(copies, tuple(table))


def mix(
    own_rows: int, sizes: Mapping[str, int], shares: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.int64]]:
    """Return file → the numbers of its rows to put into training, ascending.

    With ``own_rows`` rows of the person's own (after balancing) and shares that add up to
    S < 1, training has own_rows / (1 - S) rows, and each file gives its share of them, to
    the nearest whole row. Rows are drawn at random; all of a file that is too small are
    repeated as often as needed. ``sizes``: file → rows it holds.

    Raises:
        DataError: the shares add up to 1 or more, or a file holds no row.
    """
    exact = {file: Fraction(str(share)) for file, share in shares.items()}
    rest = 1 - sum(exact.values())
    if rest <= 0:
        raise DataError("error.mix_shares", total=float(1 - rest))
    drawn = {}
    for file, share in exact.items():
        if not sizes[file]:
            raise DataError("error.mix_empty", path=file)
        rows = np.arange(sizes[file])
        # Its own order for each file, whichever others are mixed in.
        own_seed = int.from_bytes(hashlib.blake2b(file.encode(), digest_size=8).digest()) ^ seed
        ranks = _ranks(np.zeros_like(rows), np.array([len(rows)]), own_seed)
        wanted = np.int64(_round(share * own_rows / rest))
        drawn[file] = np.repeat(rows, _dealt(ranks, np.full_like(rows, len(rows)), wanted))
    return drawn


def _check_weights(options: BalanceOptions, frequent: Sequence[str]) -> None:
    known = set(frequent)
    for value in options.weights:
        if value not in known:
            raise DataError(
                "error.balance_no_value",
                value=value,
                column=options.by,
                values=", ".join(frequent[:_VALUES_NAMED]),
            )


def _round(number: Fraction) -> int:
    return int(number + Fraction(1, 2))


def _dealt(
    ranks: NDArray[np.int64], usable: NDArray[np.int64], wanted: NDArray[np.int64] | np.int64
) -> NDArray[np.int64]:
    """Deal ``wanted`` copies among the first ``usable`` ranks as evenly as can be."""
    return np.where(ranks < usable, (wanted + usable - 1 - ranks) // usable, 0)


def _ranks(codes: NDArray[np.int64], sizes: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return each row's place, from 0, among the rows of its code, in a seeded order."""
    order = np.lexsort((_mixed(len(codes), seed), codes))
    starts = np.cumsum(sizes) - sizes
    ranks = np.empty_like(codes)
    ranks[order] = np.arange(len(codes)) - np.repeat(starts, sizes)
    return ranks


def _mixed(count: int, seed: int) -> NDArray[np.uint64]:
    """Return SplitMix64's numbers 0 to ``count`` - 1 (G. Steele et al., OOPSLA 2014).

    Generators of a library may give others in its next version; a split should not change.
    """
    z = np.uint64(seed & (2**64 - 1)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

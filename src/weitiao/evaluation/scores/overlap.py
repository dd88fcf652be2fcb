"""How much of the reference's wording an answer holds."""

from collections import Counter, defaultdict
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from weitiao.evaluation.resample import Floats
from weitiao.evaluation.units import has_han, lcs_length, ngrams, units

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU, BLEUScore

_CHRF_ORDERS = 6


def rouge_n(answer: str, reference: str, n: int) -> float | None:
    """Return ROUGE-N F1 (Lin 2004): runs of ``n`` units that both hold.

    None where the reference has fewer than ``n`` units.
    """
    given = Counter(ngrams(units(answer), n))
    wanted = Counter(ngrams(units(reference), n))
    if not wanted:
        return None
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


def rouge_1(answer: str, reference: str) -> float | None:
    """Return ROUGE-1 F1; see :func:`rouge_n`."""
    return rouge_n(answer, reference, 1)


def rouge_2(answer: str, reference: str) -> float | None:
    """Return ROUGE-2 F1; see :func:`rouge_n`."""
    return rouge_n(answer, reference, 2)


def rouge_l(answer: str, reference: str) -> float | None:
    """Return ROUGE-L F1 (Lin 2004): 2·LCS / (units of the answer + units of the reference).

    Units: each Han character, each word of other scripts; case and punctuation do not count.
    None where the reference has no unit.
    """
    given, wanted = units(answer), units(reference)
    if not wanted:
        return None
    return 2 * lcs_length(given, wanted) / (len(given) + len(wanted))


def meteor(answer: str, reference: str) -> float | None:
    """Return METEOR by equal units alone (Banerjee and Lavie 2005), no stems, no synonyms.

    10PR / (R + 9P), less 0.5 · (chunks / matches)³ of it. From its end backwards each unit of
    the answer is laid on the last equal one of the reference that is free, as nltk does.
    None where the reference has no unit.
    """
    given, wanted = units(answer), units(reference)
    if not wanted:
        return None
    free: dict[str, list[int]] = defaultdict(list)
    for place, unit in enumerate(wanted):
        free[unit].append(place)
    pairs = [(i, free[u].pop()) for i, u in reversed([*enumerate(given)]) if free.get(u)]
    if not pairs:
        return 0.0
    joined = sum((a - 1, b - 1) == following for (a, b), following in pairwise(pairs))
    precision, recall = len(pairs) / len(given), len(pairs) / len(wanted)
    mean = 10 * precision * recall / (recall + 9 * precision)
    return mean * (1 - 0.5 * ((len(pairs) - joined) / len(pairs)) ** 3)


def bleu(answer: str, reference: str) -> float:
    """Return sentence BLEU-4 in 0–100 (sacrebleu, exp smoothing, effective order)."""
    return float(bleu_statistics(answer, reference).score)


def bleu_statistics(answer: str, reference: str) -> "BLEUScore":
    """Return sacrebleu's counts, totals and lengths of one pair, which add up to corpus BLEU.

    The tokenizer is sacrebleu's ``zh`` where the reference holds a Han character, else ``13a``.
    """
    return _bleu("zh" if has_han(reference) else "13a").sentence_score(answer, [reference])


def bleu_total(sums: Floats) -> Floats:
    """Return corpus BLEU-4 in 0–100 from sums of counts, totals, and the two lengths."""
    from sacrebleu.metrics.bleu import BLEU

    found = [
        BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9], smooth_method="exp").score
        for row in np.atleast_2d(sums).astype(int).tolist()
    ]
    return np.array(found).reshape(sums.shape[:-1])


@cache
def _bleu(tokenizer: str) -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=True)


def chrf_statistics(answer: str, reference: str) -> list[int] | None:
    """Return (of the answer, of the reference, of both) for runs of 1 to 6 characters.

    Blanks do not count, case does. None where the reference is blank.
    """
    given, wanted = "".join(answer.split()), "".join(reference.split())
    if not wanted:
        return None
    found: list[int] = []
    for n in range(1, _CHRF_ORDERS + 1):
        ours, theirs = _runs(given, n), _runs(wanted, n)
        # As sacrebleu has it: an order that the reference is too short for does not count.
        found += (ours.total() if theirs else 0, theirs.total(), (ours & theirs).total())
    return found


def _runs(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def chrf_total(sums: Floats) -> Floats:
    """Return chrF2 in 0–100 (Popović 2015, as sacrebleu counts it) from sums of statistics."""
    ours, theirs, both = (sums[..., part::3] for part in range(3))
    counts = (ours > 0) & (theirs > 0)
    orders = np.maximum(counts.sum(-1), 1)
    precision = (_ratio(both, ours) * counts).sum(-1) / orders
    recall = (_ratio(both, theirs) * counts).sum(-1) / orders
    return 100 * _ratio(5 * precision * recall, 4 * precision + recall)


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros(np.shape(a)), where=np.asarray(b) > 0)

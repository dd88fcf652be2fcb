"""Pure functions (answer, reference) → a number, or None where the score does not apply.

Whether a score applies is told by the reference alone, so that base and tuned answers to
one row are always both counted or both left out. Units: see ``units.py``.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from weitiao.evaluation.units import has_han, lcs_length, ngrams, units

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU, BLEUScore

_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL | re.IGNORECASE)
# Marks that change what a number says stay: 1.5, 10:30, 3/4, -2, 5%.
_NUMBER_MARK = re.compile(r"(?<=\d)[.,:/](?=\d)|(?<!\w)-(?=\d)|(?<=\d)%")


def exact_match(answer: str, reference: str) -> float:
    """Return 1 where the two are the same but for outer blanks, else 0."""
    return float(answer.strip() == reference.strip())


def normalised_match(answer: str, reference: str) -> float:
    """Return 1 where the two are the same but for case, width, blanks and punctuation, else 0.

    Punctuation inside numbers counts. A reference of nothing but punctuation must be met exactly.
    """
    wanted = _normalised(reference)
    return float(_normalised(answer) == wanted) if wanted else exact_match(answer, reference)


def _normalised(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    kept = {match.start() for match in _NUMBER_MARK.finditer(text)}
    return "".join(
        c for i, c in enumerate(text) if i in kept or unicodedata.category(c)[0] not in "PZC"
    )


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that is the whole of ``text``, or None."""
    try:
        value = orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def json_valid(answer: str, reference: str) -> float | None:
    """Return 1 where the whole answer is one JSON object, else 0.

    None where the reference is not one itself.
    """
    if json_object(reference) is None:
        return None
    return float(json_object(answer) is not None)


def json_fields(answer: str, reference: str) -> float | None:
    """Return the share of the reference's leaf fields that the answer holds with an equal value.

    An answer inside a Markdown code fence is read too: its form is judged by
    :func:`json_valid`. None where the reference is no JSON object or has no field.
    """
    found = field_matches(answer, reference)
    return sum(found.values()) / len(found) if found else None


def field_matches(answer: str, reference: str) -> dict[str, bool]:
    """Return leaf field of the reference (``slots.card``) → whether the answer's value is equal.

    Values are equal when their types are (``true`` is not ``1``, ``1`` is ``1.0``) and
    texts are the same but for outer blanks. Empty where the reference is no JSON object.
    """
    wanted = json_object(reference)
    if not wanted:
        return {}
    fenced = _FENCE.search(answer)
    given = json_object(answer) or (json_object(fenced[1]) if fenced else None) or {}
    leaves = dict(_leaves(given))
    return {path: path in leaves and leaves[path] == value for path, value in _leaves(wanted)}


def _leaves(value: object) -> Iterable[tuple[str, tuple[str, object]]]:
    """Yield (path, (kind, value)) of each leaf; an empty list or object is a leaf."""
    # A stack, not recursion: a model's answer may nest deeper than Python's own stack goes.
    todo: list[tuple[str, object]] = [("", value)]
    while todo:
        path, value = todo.pop()
        inner: list[tuple[Any, object]] = []
        if isinstance(value, dict):
            inner = list(value.items())
        elif isinstance(value, list):
            inner = list(enumerate(value))
        todo.extend((f"{path}.{key}" if path else str(key), item) for key, item in reversed(inner))
        if not inner:
            yield path, (_kind(value), value.strip() if isinstance(value, str) else value)


def _kind(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if number else type(value).__name__


def rouge_l(answer: str, reference: str) -> float | None:
    """Return ROUGE-L F1 (Lin 2004): 2·LCS / (units of the answer + units of the reference).

    Units: each Han character, each word of other scripts; case and punctuation do not count.
    None where the reference has no unit.
    """
    given, wanted = units(answer), units(reference)
    if not wanted:
        return None
    return 2 * lcs_length(given, wanted) / (len(given) + len(wanted))


def bleu(answer: str, reference: str) -> float:
    """Return sentence BLEU-4 in 0–100 (sacrebleu, exp smoothing, effective order)."""
    return float(bleu_statistics(answer, reference).score)


def bleu_statistics(answer: str, reference: str) -> "BLEUScore":
    """Return sacrebleu's counts, totals and lengths of one pair, which add up to corpus BLEU.

    The tokenizer is sacrebleu's ``zh`` where the reference holds a Han character, else ``13a``.
    """
    return _bleu("zh" if has_han(reference) else "13a").sentence_score(answer, [reference])


@cache
def _bleu(tokenizer: str) -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=True)


def repetition(answer: str) -> float:
    """Return the share of the answer's 4-grams that were said before in it; 0 for short answers.

    Units: Han characters, words, punctuation marks.
    """
    grams = ngrams(units(answer, punctuation=True), 4)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_2(answers: Iterable[str]) -> float | None:
    """Return distinct 2-grams over all 2-grams of all answers together (Li et al. 2016).

    A model that says the same to everyone comes near 0. None where no answer has two units.
    """
    seen: set[tuple[str, ...]] = set()
    total = 0
    for answer in answers:
        grams = ngrams(units(answer), 2)
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def length(answer: str) -> int:
    """Return the number of characters without outer blanks."""
    return len(answer.strip())

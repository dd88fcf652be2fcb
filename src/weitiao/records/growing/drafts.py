"""Questions and answers drafted from passages by a service; a person reviews them."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from weitiao.endpoint import Endpoint
from weitiao.records.growing.facts import language_of, numbers
from weitiao.records.growing.grow import GrowReject, Prompts
from weitiao.records.record import Lineage, Message, Reason, Record
from weitiao.words import say

GROUNDED = 0.5
"""The least share of an answer that its passage must hold; see :func:`grounded`."""

_QUESTIONS = ("question", "问题", "q", "instruction", "prompt", "问")
_ANSWERS = ("answer", "答案", "a", "output", "response", "回答", "答")
_UNIT = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]|[^\\W\\d_\u3400-\u4dbf\u4e00-\u9fff]+|\\d+")
_ENUMERATION = re.compile(r"^\s*[(（]?\d{1,2}[.、)）]", re.MULTILINE)


def draft(
    passages: Iterable[Record],
    endpoint: Endpoint,
    pairs: int = 3,
    seed: int = 42,
    least: float = GROUNDED,
) -> Iterator[Record | GrowReject]:
    """Yield the rows drafted from ``passages``, up to ``pairs`` of each, and what was refused.

    A draft keeps the passage's origin and metadata, with the passage itself and its place
    (``passage``, ``source``) for the reviewer, and its lineage says that it is a draft. An
    answer that its passage does not bear out is refused, and so is a question asked before.

    Raises:
        EndpointError: the service cannot be asked.
    """
    prompts = Prompts()

    def asked(passage: Record) -> tuple[Record, str | Reason]:
        text = passage.text or ""
        if not text.strip():
            return passage, Reason("draft_no_text")
        request = say("growing.draft", language_of(text), pairs=pairs, text=text)
        answer = endpoint.answer([{"role": "user", "content": request}], seed=seed)
        if answer.error is not None:
            return passage, Reason("grow_no_answer", {"cause": answer.error.sentence()})
        return passage, answer.text.rpartition("</think>")[2]

    for passage, reply in endpoint.map(asked, passages):
        if isinstance(reply, Reason):
            yield GrowReject(passage, "", reply)
            continue
        found = parsed(reply)[:pairs]
        if not found:
            yield GrowReject(passage, reply, Reason("draft_unreadable"))
        for question, answer in found:
            yield _judged(passage, question, answer, least, prompts)


def parsed(reply: str) -> list[tuple[str, str]]:
    """Return the pairs of question and answer in a reply.

    JSON is asked for; read is any JSON object with a question and an answer in it, wherever
    it stands: in a list, in Markdown, one a line, or before the place where a reply broke off.
    """
    pairs: list[tuple[str, str]] = []
    decoder = json.JSONDecoder(strict=False)
    start = reply.find("{")
    while start >= 0:
        end = start + 1
        try:
            value, after = decoder.raw_decode(reply, start)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and (pair := _pair(value)):
            pairs.append(pair)
            end = after
        start = reply.find("{", end)
    return pairs


def grounded(answer: str, passage: str) -> float:
    """Return how much of ``answer`` stands in ``passage``, 0 to 1.

    The mean of two containments, that of its units (Han characters, words, numbers) and
    that of its pairs of neighbouring units; 0 where it has no unit.
    """
    said, there = _units(answer), _units(passage)
    shares = []
    for size in (1, 2):
        grams = list(zip(*(said[i:] for i in range(size)), strict=False))
        known = set(zip(*(there[i:] for i in range(size)), strict=False))
        if grams:
            shares.append(sum(gram in known for gram in grams) / len(grams))
    return sum(shares) / len(shares) if shares else 0.0


def _judged(
    passage: Record, question: str, answer: str, least: float, prompts: Prompts
) -> Record | GrowReject:
    text = passage.text or ""
    origin = passage.origin
    record = Record(
        origin,
        messages=(Message("user", question), Message("assistant", answer)),
        metadata={**passage.metadata, "passage": text, "source": f"{origin.file}:{origin.line}"},
    ).with_lineage(Lineage(parent=passage.id, method="draft", draft=True))
    share = round(grounded(answer, text), 2)
    there = numbers(text)
    number = next((n for n in numbers(_ENUMERATION.sub("", answer)) if n not in there), None)
    if share < least:
        reason = Reason("draft_ungrounded", {"share": share, "bound": least})
    elif number is not None:
        reason = Reason("draft_number", {"number": number})
    elif not prompts.add(record):
        reason = Reason("grow_known")
    else:
        return record
    return GrowReject(passage, f"{question}\n{answer}", reason)


def _pair(value: dict[str, Any]) -> tuple[str, str] | None:
    fields = {str(name).strip().lower(): field for name, field in value.items()}
    sides = []
    for names in (_QUESTIONS, _ANSWERS):
        said = next((fields[n] for n in names if isinstance(fields.get(n), str | int | float)), "")
        sides.append(str(said).strip())
    return (sides[0], sides[1]) if all(sides) else None


def _units(text: str) -> list[str]:
    return [unit.casefold() for unit in _UNIT.findall(text)]

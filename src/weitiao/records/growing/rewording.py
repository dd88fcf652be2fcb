"""New wordings by a service: paraphrase, and translation there and back."""

import re
from collections.abc import Callable

from weitiao.endpoint import Endpoint
from weitiao.records.growing.facts import language_of
from weitiao.records.growing.method import Candidate, Method, question, question_at, reworded
from weitiao.records.record import Reason, Record
from weitiao.words import Language, say

_TAGGED = re.compile(r"<text>(.*?)</text>", re.DOTALL)
_QUOTES = (('"', '"'), ("“", "”"), ("「", "」"), ("『", "』"))


class _NoAnswerError(Exception):
    """The service has no answer to this one request; holds why."""


def paraphrase(endpoint: Endpoint) -> Method:
    """Return the method that asks ``endpoint`` to say the question in other words."""

    def new(text: str, seed: int) -> str:
        language = language_of(text)
        return _asked(endpoint, say("growing.paraphrase", language, text=text), seed)

    return _method("paraphrase", new, endpoint)


def back_translation(endpoint: Endpoint, via: str | None = None) -> Method:
    """Return the method that translates the question and back again by ``endpoint``.

    ``via``: the language between, by any name the model understands; by default English
    for Chinese rows and Chinese for all others.
    """

    def new(text: str, seed: int) -> str:
        language = language_of(text)
        other: Language = "en" if language == "zh" else "zh"
        between = via or say(f"growing.language_{other}", language)
        own = say(f"growing.language_{language}", language)
        there = say("growing.translate", language, language=between, text=text)
        middle = _asked(endpoint, there, seed)
        back = say("growing.translate", language, language=own, text=middle)
        return _asked(endpoint, back, seed)

    return _method("back_translation", new, endpoint)


def _asked(endpoint: Endpoint, request: str, seed: int) -> str:
    answer = endpoint.answer([{"role": "user", "content": request}], seed=seed)
    if answer.error is not None:
        raise _NoAnswerError(answer.error.sentence())
    return without_wrapping(answer.text)


def without_wrapping(reply: str) -> str:
    """Return what a model was asked for, without its reasoning, tags or quotes around it."""
    text = reply.rpartition("</think>")[2]
    if tagged := _TAGGED.search(text):
        text = tagged[1]
    text = text.strip()
    for left, right in _QUOTES:
        inner = text[1:-1]
        if (
            inner
            and text[0] == left
            and text[-1] == right
            and left not in inner
            and right not in inner
        ):
            return inner.strip()
    return text


def _method(name: str, new: Callable[[str, int], str], endpoint: Endpoint) -> Method:
    def candidate(record: Record, seed: int) -> Candidate:
        place = question_at(record)
        if place is None:
            return Reason("grow_no_question")
        try:
            return reworded(record, {place: new(question(record), seed)})
        except _NoAnswerError as error:
            return Reason("grow_no_answer", {"cause": str(error)})

    def candidates(record: Record, n: int, seed: int) -> list[Candidate]:
        return [candidate(record, seed + i) for i in range(n)]

    return Method(name, candidates, endpoint)

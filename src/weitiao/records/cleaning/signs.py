"""What is seen in a record and changes nothing: flags, private data, misspellings."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weitiao.records.cleaning.flags import ABOUT_ANSWERS, SHOWN
from weitiao.records.cleaning.mojibake import unrestored
from weitiao.records.cleaning.private import find_private, veil
from weitiao.records.cleaning.spelling import Speller
from weitiao.records.cleaning.wordlist import WordList, read_lines
from weitiao.records.options import CleanOptions, PrivateKind
from weitiao.records.record import Message, Record


class Signs:
    """Looks for what ``options`` ask for.

    Raises:
        DataError: a list of words is missing or unreadable, or the library for spelling is
            not installed.
    """

    def __init__(self, options: CleanOptions) -> None:
        asked = {*options.reject_flags, *((*ABOUT_ANSWERS, "reasoning_in_some") * options.flags)}
        self._about_answers = {n: look for n, look in ABOUT_ANSWERS.items() if n in asked}
        self._flag_reasoning = "reasoning_in_some" in asked
        self._mojibake = options.mojibake
        self._masked = options.private == "mask"
        self._kinds = frozenset[PrivateKind](
            () if options.private == "ignore" else options.private_kinds
        )
        self._words = WordList(w for path in options.word_lists for w in read_lines(Path(path)))
        self._speller = Speller(options.confusions) if options.spelling else None

    @property
    def idle(self) -> bool:
        """Whether nothing is looked for."""
        looked_for = (self._about_answers, self._flag_reasoning, self._mojibake, self._kinds)
        return not any((*looked_for, self._words, self._speller))

    def seen(self, record: Record) -> dict[str, str]:
        """Return flag → the first stretch that shows it, or all suggestions of spelling."""
        texts = [record.text] if record.text is not None else [m.content for m in record.messages]
        found: dict[str, str] = {}
        for flag, stretch in self._seen(record, texts):
            found.setdefault(flag, stretch)
        return found

    def _seen(self, record: Record, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
        for text in texts:
            if self._mojibake and (lost := unrestored(text)):
                yield "mojibake_unrestored", lost
            for _, word in self._words.find(text) if self._words else ():
                yield "profanity", word
        if self._kinds:
            yield from self._private(record.messages, texts)
        if record.messages:
            yield from self._in_answers(record.messages)
        if self._speller and (suggestions := self._speller.suggest(texts)):
            yield "spelling", suggestions

    def _private(
        self, messages: Sequence[Message], texts: Sequence[str]
    ) -> Iterator[tuple[str, str]]:
        # Masking left nothing in the texts; in the calls of tools it is told, not changed.
        for text in () if self._masked else texts:
            yield from self._private_in(text)
        for message in messages:
            for text in _leaves(message.tool_calls) if message.tool_calls else ():
                yield from self._private_in(text)

    def _private_in(self, text: str) -> Iterator[tuple[str, str]]:
        for stretch in find_private(text, self._kinds):
            yield f"private_{stretch.kind}", veil(text[stretch.start : stretch.end])

    def _in_answers(self, messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
        question = ""
        for message in messages:
            if message.role == "user":
                question = message.content
            elif message.role == "assistant" and message.content:
                answer = message.content
                if has_reasoning(answer):
                    if self._flag_reasoning:
                        yield "reasoning_in_some", answer[:SHOWN]
                    answer = answer.rpartition("</think>")[2].lstrip()
                for flag, look in self._about_answers.items():
                    if stretch := look(question, answer):
                        yield flag, stretch


def has_reasoning(answer: str) -> bool:
    """Return whether an answer holds reasoning, or the half of it that a template leaves."""
    return "<think>" in answer or "</think>" in answer


def _leaves(value: Any) -> Iterator[str]:
    """Yield what stands in the fields of ``value``, as text."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield str(value)

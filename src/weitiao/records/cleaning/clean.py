"""All steps of cleaning, record by record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from weitiao.errors import DataError
from weitiao.records.cleaning.dialogue import keep_turns, with_system_turn
from weitiao.records.cleaning.flags import SHOWN
from weitiao.records.cleaning.mojibake import repair
from weitiao.records.cleaning.normalise import normalise
from weitiao.records.cleaning.private import find_private, mask, veil
from weitiao.records.cleaning.script import to_script
from weitiao.records.cleaning.signs import Signs
from weitiao.records.cleaning.width import half_width
from weitiao.records.options import CleanOptions
from weitiao.records.record import Message, Reason, Record

_BEFORE_CHANGE = 30
_Step = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Changed:
    """What a step changed: a stretch of at most 120 characters around its first change.

    ``step`` is a key ``step.*``. Private data that is masked does not stand here either.
    """

    step: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Found:
    """What was seen in a record: ``flag`` is a key ``flag.*``, ``text`` a stretch of it."""

    flag: str
    text: str


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A record after cleaning.

    ``record`` is the very same object where nothing changed; ``changes`` holds each step
    once, and ``flags`` each flag once. ``reason``: why the record is to be rejected.

    The flag ``reasoning_in_some`` stands for reasoning (``<think>``) in this record; that
    there is none in others shows over the whole data only, by counting.
    """

    record: Record
    changes: tuple[Changed, ...] = ()
    flags: tuple[Found, ...] = ()
    reason: Reason | None = None


class Cleaner:
    """Cleans records as ``options`` say, each by itself.

    Texts are those of turns and passages. Metadata, tools and calls of tools stay as they
    are; what tools answered is data, of which only private parts are masked.

    ``system``: the prompt of ``system_turn=replace``.

    Raises:
        DataError: a list of words is missing or unreadable, the library for spelling is not
            installed, or there is no system prompt to replace the rows' own with.
    """

    def __init__(self, options: CleanOptions, system: str | None = None) -> None:
        if options.system_turn == "replace" and not system:
            raise DataError("error.no_system_to_replace_with")
        self._options, self._system = options, system
        self._kinds = frozenset(options.private_kinds)
        self._steps = _steps(options)
        self._steps_of_tools = {n: step for n, step in self._steps.items() if n == "private"}
        self._signs = Signs(options)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be changed or looked for, so that records need not be shown."""
        options = self._options
        turns = options.first_turns, options.last_turns
        kept = turns == (None, None) and options.system_turn == "keep"
        return kept and not self._steps and self._signs.idle

    def __call__(self, record: Record) -> Cleaned:
        """Return the record cleaned, with what was changed and seen."""
        changes: dict[str, Changed] = {}
        record = self._with_chosen_turns(record, changes)
        if record.text is None:
            record = self._with_clean_messages(record, changes)
        else:
            text = self._clean(record.text, self._steps, changes)
            record = record if text is record.text else replace(record, text=text)
        if not (found := self._signs.seen(record)):
            return Cleaned(record, tuple(changes.values()))
        flags = tuple(Found(flag, stretch) for flag, stretch in found.items())
        return Cleaned(record, tuple(changes.values()), flags, self._reason(found))

    def _with_chosen_turns(self, record: Record, changes: dict[str, Changed]) -> Record:
        options, messages = self._options, record.messages
        fewer = keep_turns(messages, options.first_turns, options.last_turns)
        if fewer is not messages:
            kept = set(map(id, fewer))
            dropped = next(message for message in messages if id(message) not in kept)
            changes["dialogue"] = self._told("dialogue", dropped.content, "")
        chosen = with_system_turn(fewer, options.system_turn, self._system)
        if chosen is not fewer:
            changes["system_turn"] = self._told("system_turn", _system(fewer), _system(chosen))
        return record if chosen is messages else replace(record, messages=chosen)

    def _with_clean_messages(self, record: Record, changes: dict[str, Changed]) -> Record:
        after: list[Message] | None = None
        for place, message in enumerate(record.messages):
            steps = self._steps_of_tools if message.role == "tool" else self._steps
            text = self._clean(message.content, steps, changes)
            if text is not message.content:
                after = after or list(record.messages)
                after[place] = replace(message, content=text)
        return record if after is None else replace(record, messages=tuple(after))

    def _clean(self, text: str, steps: Mapping[str, _Step], changes: dict[str, Changed]) -> str:
        for name, step in steps.items():
            after = step(text)
            if after != text:
                if name not in changes:
                    changes[name] = self._told(name, text, after)
                text = after
        return text

    def _told(self, step: str, before: str, after: str) -> Changed:
        if step == "private":
            first = find_private(before, self._kinds)[0]
            start = max(first.start - _BEFORE_CHANGE, 0)
            hidden = before[start : first.start] + veil(before[first.start : first.end])
            return Changed(step, hidden[:SHOWN], after[start : start + SHOWN])
        before, after = _around(before, after)
        if self._options.private != "ignore":
            before, after = mask(before, self._kinds), mask(after, self._kinds)
        return Changed(step, before[:SHOWN], after[:SHOWN])

    def _reason(self, found: Mapping[str, str]) -> Reason | None:
        if self._options.private == "reject":
            for flag, stretch in found.items():
                if flag.startswith("private_"):
                    return Reason(flag, {"text": stretch})
        for wanted in self._options.reject_flags:
            if wanted in found:
                return Reason(f"flag_{wanted}", {"text": found[wanted]})
        return None


def _steps(options: CleanOptions) -> dict[str, _Step]:
    """Return the steps that change texts, in their order."""
    steps: dict[str, _Step] = {}
    if options.mojibake:
        steps["mojibake"] = repair
    if options.normalise:
        steps["normalise"] = normalise
    if options.width == "convert":
        steps["width"] = half_width
    if options.script != "keep":
        steps["script"] = partial(to_script, script=options.script)
    if options.private == "mask":
        steps["private"] = partial(mask, kinds=frozenset(options.private_kinds))
    return steps


def _system(messages: Sequence[Message]) -> str:
    return next((m.content for m in messages if m.role == "system"), "")


def _around(before: str, after: str) -> tuple[str, str]:
    """Return what stands around the first difference, at most 120 characters of each."""
    low, high = 0, min(len(before), len(after))
    while low < high:  # the longest common beginning, by halving
        middle = (low + high + 1) // 2
        low, high = (middle, high) if before[:middle] == after[:middle] else (low, middle - 1)
    start = max(low - _BEFORE_CHANGE, 0)
    return before[start : start + SHOWN], after[start : start + SHOWN]

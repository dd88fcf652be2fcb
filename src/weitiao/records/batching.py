"""Thousands of records to samples at once, the same samples that one by one would give.

Records of the same roles are put together from a skeleton, without the template, and all
their texts are encoded in one call. Whatever a skeleton might get wrong goes the plain way;
and the first rows of each kind, and one in a thousand after them, go both ways: if the two
ever differ, that kind of row goes the plain way for good.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Literal

import numpy as np
import numpy.typing as npt

from weitiao.records.opaque import Questions
from weitiao.records.options import Reasoning
from weitiao.records.record import Message, Reason, Record, Role
from weitiao.records.skeleton import Skeleton, derive
from weitiao.records.tokenizing import Encoder, Sample, TokenSearch
from weitiao.records.turns import Turn, left_open, scored_turns, without_reasoning

Outcome = list[Sample] | Reason
Plainly = Callable[[Record, int], Outcome]
"""Renders one record, given its row number."""

_CHUNK = 4096
_WORTH = 6
"""So many rows of a kind are worth a skeleton, which costs as much as about six rows."""
_KINDS = 4096
_LOOK_AGAIN = 1000


@dataclass(slots=True)
class _Kind:
    """Records of the same roles: their skeleton, how many came, how many were made by it."""

    skeleton: Skeleton | None = None
    tried: bool = False
    came: int = 0
    made: int = 0


@dataclass(frozen=True, slots=True)
class _Draft:
    """Rows of one kind, with the numbers of their texts (:meth:`Skeleton.number`)."""

    kind: _Kind
    skeleton: Skeleton
    rows: list[int]
    numbers: npt.NDArray[np.int64]


class Batches:
    """The fast way for one chat format; ``turns`` renders messages, of which some are scored.

    ``questions``: what the template asks of texts; None: that is not known, and all records
    go the plain way. ``special``: tokens that no text may hold.
    """

    def __init__(
        self,
        encoder: Encoder,
        questions: Questions | None,
        special: TokenSearch,
        turns: Callable[[Sequence[Message], Sequence[int]], Sequence[Sequence[Turn]]],
    ) -> None:
        self._encoder, self._questions, self._special = encoder, questions, special
        self._turns = turns
        self._kinds: dict[tuple[str, ...], _Kind] = {}

    def samples(
        self,
        records: Sequence[Record],
        first_row: int,
        plainly: Plainly,
        max_tokens: int,
        too_long: Literal["shorten", "reject"],
        score_turns: Literal["all", "last"],
        reasoning: Reasoning,
    ) -> list[Outcome]:
        """Return what ``plainly`` returns for each record, which has the same options."""
        outcomes: list[Outcome] = []
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            made: list[Outcome | None] = [None] * len(chunk)
            self._passages(chunk, made, first_row + start, max_tokens)
            drafts, texts = self._drafts(chunk, score_turns, reasoning)
            ids, starts, lengths = self._encoder.segments(texts)
            for draft in drafts:
                built = draft.skeleton.assemble(ids, starts[draft.numbers], lengths[draft.numbers])
                found = _samples(draft.rows, first_row + start, built, max_tokens, too_long)
                if self._agree(draft, found, chunk, first_row + start, plainly):
                    for row, outcome in zip(draft.rows, found, strict=True):
                        made[row] = outcome
            outcomes += [
                plainly(record, first_row + start + i) if outcome is None else outcome
                for i, (record, outcome) in enumerate(zip(chunk, made, strict=True))
            ]
        return outcomes

    def _passages(
        self,
        records: Sequence[Record],
        made: list[Outcome | None],
        first_row: int,
        max_tokens: int,
    ) -> None:
        rows = [i for i, record in enumerate(records) if record.text is not None]
        found = self._encoder.each([records[i].text or "" for i in rows]) if rows else []
        for row, ids in zip(rows, found, strict=True):
            made[row] = windows(ids, self._encoder.end, first_row + row, max_tokens)

    def _drafts(
        self,
        records: Sequence[Record],
        score_turns: Literal["all", "last"],
        reasoning: Reasoning,
    ) -> tuple[list[_Draft], list[str]]:
        """Return the rows that have a skeleton, and the texts to encode for them."""
        rows_of: dict[tuple[str, ...], list[int]] = {}
        for row, record in enumerate(records):
            roles = _roles(record, reasoning)
            if roles:
                rows_of.setdefault((*roles, score_turns, reasoning), []).append(row)
        drafts: list[_Draft] = []
        numbers: dict[str, int] = {}
        for key, rows in rows_of.items():
            kind = self._kind(key, len(rows), records[rows[0]], score_turns)
            if kind is None or kind.skeleton is None:
                continue
            contents = [_contents(records[row], reasoning) for row in rows]
            fit = self._fit(kind.skeleton, contents)
            rows = list(compress(rows, fit))
            if rows:
                columns = list(zip(*compress(contents, fit), strict=True))
                numbered = kind.skeleton.number(columns, numbers, reasoning == "context")
                drafts.append(_Draft(kind, kind.skeleton, rows, numbered))
        return drafts, list(numbers)

    def _kind(
        self,
        key: tuple[str, ...],
        rows: int,
        example: Record,
        score_turns: Literal["all", "last"],
    ) -> _Kind | None:
        if self._questions is None or (key not in self._kinds and len(self._kinds) >= _KINDS):
            return None
        kind = self._kinds.setdefault(key, _Kind())
        kind.came += rows
        if not kind.tried and kind.came >= _WORTH:
            kind.tried = True
            scored = scored_turns(example.messages, score_turns)
            roles: list[Role] = [m.role for m in example.messages]
            if scored and "tool" not in roles:
                kind.skeleton = derive(
                    lambda texts: self._turns(list(map(Message, roles, texts)), scored),
                    len(roles),
                    self._encoder,
                )
        return kind

    def _fit(self, skeleton: Skeleton, contents: Sequence[Sequence[str]]) -> list[bool]:
        """Tell for each conversation whether the skeleton is certainly right for its texts."""
        if self._fits(skeleton, list(zip(*contents, strict=True))):
            return [True] * len(contents)
        return [self._fits(skeleton, [(text,) for text in texts]) for texts in contents]

    def _fits(self, skeleton: Skeleton, columns: Sequence[Sequence[str]]) -> bool:
        assert self._questions is not None
        together = "\0".join(map("\0".join, columns))
        if self._special.first(together) or self._encoder.separator in together:
            return False
        seen = [columns[number] for number in skeleton.context]
        return not any(map(self._questions.concern, seen)) and (
            skeleton.blanks or all(text == text.strip() for column in seen for text in column)
        )

    def _agree(
        self,
        draft: _Draft,
        found: Sequence[Outcome | None],
        records: Sequence[Record],
        first_row: int,
        plainly: Plainly,
    ) -> bool:
        """Compare some rows with those of the plain way; a kind that differs has no skeleton."""
        kind, made = draft.kind, draft.kind.made
        kind.made += len(found)
        again = range(-made % _LOOK_AGAIN, len(found), _LOOK_AGAIN)
        for i in {*again, *range(max(0, 2 - made))} & set(range(len(found))):
            row, outcome = draft.rows[i], found[i]
            if outcome is None:
                continue
            if not _same(outcome, plainly(records[row], first_row + row)):
                kind.skeleton = None
                return False
        return True


def windows(ids: list[int], end: int | None, row: int, max_tokens: int) -> list[Sample] | Reason:
    """Return a passage's tokens, ended with ``end``, as windows of nearly equal length."""
    if end is not None and (not ids or ids[-1] != end):
        ids = [*ids, end]
    if len(ids) < 2:
        return Reason("no_scored_token")
    parts = np.array_split(np.asarray(ids, dtype=np.int32), -(-len(ids) // max_tokens))
    return [Sample(part, np.arange(len(part)) > 0, row) for part in parts]


def _roles(record: Record, reasoning: Reasoning) -> list[str] | None:
    """Return the roles of the turns, marked where they are not learnt.

    None: the record uses tools, or holds reasoning that never ends and is not to be learnt.
    """
    roles: list[str] = []
    for message in record.messages:
        if message.tool_calls or (reasoning != "learn" and left_open(message.content)):
            return None
        roles.append(message.role if message.loss else f"{message.role} unscored")
    return None if record.tools else roles


def _contents(record: Record, reasoning: Reasoning) -> list[str]:
    """Return what is said in each turn, as it is rendered."""
    messages = record.messages
    return [m.content for m in (without_reasoning(messages) if reasoning == "drop" else messages)]


def _samples(
    rows: Sequence[int],
    first_row: int,
    built: tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], list[list[int]]],
    max_tokens: int,
    too_long: Literal["shorten", "reject"],
) -> list[Outcome | None]:
    """Return the samples of each row; None where they must be shortened."""
    ids, scored, ends_of = built
    outcomes: list[Outcome | None] = []
    begin = 0
    for row, ends in zip(rows, ends_of, strict=True):
        outcome: Outcome | None = []
        for end in ends:
            if isinstance(outcome, list):
                if end - begin <= max_tokens:
                    outcome.append(Sample(ids[begin:end], scored[begin:end], first_row + row))
                elif too_long == "reject":
                    outcome = Reason("too_long", {"tokens": end - begin, "limit": max_tokens})
                else:
                    outcome = None
            begin = end
        outcomes.append(outcome)
    return outcomes


def _same(a: Outcome, b: Outcome) -> bool:
    if isinstance(a, Reason) or isinstance(b, Reason):
        return a == b
    return len(a) == len(b) and all(
        x.row == y.row
        and x.shortened == y.shortened
        and np.array_equal(x.ids, y.ids)
        and np.array_equal(x.scored, y.scored)
        for x, y in zip(a, b, strict=True)
    )

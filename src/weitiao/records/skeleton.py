"""What all conversations with the same roles have in common once they are rendered.

A template puts texts between fixed markers. :func:`derive` renders a conversation of
marks, sees where each mark ends up, and so knows how any other conversation with these
roles is rendered, without the template. What is fixed is encoded once; texts are cut out
at tokens that part them from it (:meth:`Encoder.cuts_at`), so that thousands can be encoded
in one call and put together as arrays.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from weitiao.records.opaque import BLANKS
from weitiao.records.tokenizing import Encoder, common_start
from weitiao.records.turns import RefusedError, Turn, Words, answer_starts

Turns = Callable[[Sequence[str]], Sequence[Sequence[Turn]]]
"""Renders the contents of a conversation: the answers of each of its samples."""

_PLAIN = "weitiaoText{number}Ends"
# Quotes and signs that are escaped somewhere, letters of both cases, blanks, and length.
_ROUGH = "字 <b>&\"'\\/ %s {{{{x}}}} Aa\u0130" + "".join(BLANKS) + _PLAIN + "，" + 300 * "长" + "z"


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where the text of turn ``number`` goes; an answer's goes through ``words``."""

    number: int
    words: Words | None = None

    def texts(self, columns: Sequence[Sequence[str]]) -> Sequence[str]:
        """Return what stands here in each conversation; ``columns``: turn → its texts."""
        column, words = columns[self.number], self.words
        return column if words is None or words.as_they_are else [words(t) for t in column]


_Run = tuple[str | _Slot, ...]
_Piece = tuple[bool, _Run]
"""(scored, what it is made of): a stretch that is encoded by itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Skeleton:
    """Rendered conversations of the same roles: S segments, of which K hold texts.

    ``runs``: the K segments that hold texts, standing at ``places`` [K]; ``answers`` [A]: which
    of the K begin with an answer. The others are ``fixed_ids`` from ``starts`` [S] on,
    ``lengths`` [S] long. ``scored`` [S]; ``last``: the last segment of each sample.
    ``context``: turns that the template gets to see; ``blanks``: it leaves blanks at their
    ends alone.
    """

    runs: tuple[_Run, ...]
    places: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    fixed_ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    scored: npt.NDArray[np.bool_]
    last: npt.NDArray[np.int64]
    context: range
    blanks: bool

    def number(
        self, columns: Sequence[Sequence[str]], numbers: dict[str, int], apart: bool
    ) -> npt.NDArray[np.int64]:
        """Return the numbers of the texts to encode; new ones are added to ``numbers``.

        [N, K], and if ``apart``, with the reasoning alone that each answer begins with,
        [N, K + A].
        """
        texts = [_texts(run, columns) for run in self.runs]
        if apart:
            texts += [_thoughts(self.runs[k], columns) for k in self.answers]
        found = [[numbers.setdefault(text, len(numbers)) for text in column] for column in texts]
        return np.array(found, dtype=np.int64).reshape(len(found), -1).T

    def assemble(
        self,
        ids: npt.NDArray[np.int32],
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], list[list[int]]]:
        """Return (ids, scored, where each sample of each conversation ends) of N conversations.

        Text ``k`` of conversation ``n`` is ``ids`` from ``starts[n, k]`` on, ``lengths[n, k]``
        long, with the numbers that :meth:`number` gave; reasoning that was numbered alone is
        not scored. All samples stand in one array, one after the other.
        """
        shape, texts = (len(starts), len(self.starts)), len(self.places)
        begin = np.broadcast_to(self.starts + len(ids), shape).copy()
        length = np.broadcast_to(self.lengths, shape).copy()
        begin[:, self.places], length[:, self.places] = starts[:, :texts], lengths[:, :texts]
        flat_length = length.ravel()
        ends = np.cumsum(flat_length)
        source = np.repeat(begin.ravel() - (ends - flat_length), flat_length)
        source += np.arange(len(source))
        scored = np.repeat(np.tile(self.scored, shape[0]), flat_length)
        together = np.concatenate((ids, self.fixed_ids)).take(source)
        ends = ends.reshape(shape)
        for n, a in np.argwhere(lengths[:, texts:]):
            place, start = self.places[self.answers[a]], starts[n, texts + a]
            thought = ids[start : start + lengths[n, texts + a]]
            end = ends[n, place]
            at = end - length[n, place]
            scored[at : at + common_start(together[at:end], thought)] = False
        return together, scored, ends[:, self.last].tolist()


def derive(turns: Turns, count: int, encoder: Encoder) -> Skeleton | None:
    """Return the skeleton of conversations of ``count`` turns, or None if they have none.

    None: the template refuses them, or does something to a text beside putting it somewhere.
    """
    try:
        samples = _rendered(turns, count, _PLAIN)
        if samples != _rendered(turns, count, _ROUGH):
            return None
    except RefusedError:
        return None
    try:
        blanks = all(samples == _rendered(turns, count, b + _ROUGH + b) for b in BLANKS)
    except RefusedError:
        blanks = False
    return _skeleton(samples, encoder, blanks)


def _rendered(turns: Turns, count: int, form: str) -> list[list[_Piece]]:
    """Return the pieces of each sample as the reference encodes them, with slots for texts."""
    marks = {form.format(number=number): number for number in range(count)}
    search = re.compile("(" + "|".join(map(re.escape, marks)) + ")")

    def split(text: str) -> Iterator[str | _Slot]:
        for stretch in search.split(text):
            yield _Slot(marks[stretch]) if stretch in marks else stretch

    samples = []
    for sample in turns(list(marks)):
        pieces: list[_Piece] = []
        said = 0
        for turn in sample:
            pieces.append((False, tuple(split(turn.prompt[said:]))))
            pieces.append((True, (_Slot(turn.number, turn.words), *split(turn.end))))
            said = len(turn.prompt) + len(turn.completion)
        samples.append(pieces)
    return samples


def _skeleton(samples: list[list[_Piece]], encoder: Encoder, blanks: bool) -> Skeleton:
    segments: list[tuple[bool, str | _Run]] = []
    last = []
    for pieces in samples:
        for scored, items in pieces:
            segments += [(scored, run) for run in _cut(items, encoder)]
        last.append(len(segments) - 1)
    fixed = [encoder.one(run) if isinstance(run, str) else [] for _, run in segments]
    lengths = np.array([len(ids) for ids in fixed], dtype=np.int64)
    slots = [item for pieces in samples for _, items in pieces for item in items]
    answers = [slot.number for slot in slots if isinstance(slot, _Slot) and slot.words]
    runs = tuple(run for _, run in segments if not isinstance(run, str))
    return Skeleton(
        runs=runs,
        places=np.array([i for i, (_, run) in enumerate(segments) if not isinstance(run, str)]),
        answers=np.array([k for k, run in enumerate(runs) if _answer(run)], dtype=np.int64),
        fixed_ids=np.array([i for ids in fixed for i in ids], dtype=np.int32),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        scored=np.array([scored for scored, _ in segments]),
        last=np.array(last),
        # Whatever was said before the last answer, the template has seen in some prompt.
        context=range(max(answers)),
        blanks=blanks,
    )


def _cut(items: _Run, encoder: Encoder) -> list[str | _Run]:
    """Return a piece as fixed texts and runs that hold texts, cut where nothing is joined."""
    runs: list[list[str | _Slot]] = [[]]
    for item in items:
        cuts = encoder.cutting(item) if isinstance(item, str) else []
        if isinstance(item, str) and cuts:
            first, last = cuts[0][0], cuts[-1][1]
            runs[-1].append(item[:first])
            runs += [[item[first:last]], [item[last:]]]
        else:
            runs[-1].append(item)
    done: list[str | _Run] = []
    for run in runs:
        texts = [item for item in run if isinstance(item, str)]
        if len(texts) < len(run):
            done.append(tuple(item for item in run if item != ""))
        elif done and isinstance(before := done[-1], str):
            done[-1] = before + "".join(texts)
        elif any(texts):
            done.append("".join(texts))
    return done


def _answer(run: _Run) -> _Slot | None:
    """Return the answer that a run begins with, if it does."""
    return run[0] if isinstance(run[0], _Slot) and run[0].words else None


def _thoughts(run: _Run, columns: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return the reasoning that the answer of a run begins with in each conversation."""
    answer = _answer(run)
    assert answer is not None
    return [said[: answer_starts(said)] for said in answer.texts(columns)]


def _texts(run: _Run, columns: Sequence[Sequence[str]]) -> Sequence[str]:
    """Return what a run holds in each conversation."""
    parts = [item if isinstance(item, str) else item.texts(columns) for item in run]
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0]
    rows = len(columns[0])
    return list(
        map("".join, zip(*([p] * rows if isinstance(p, str) else p for p in parts), strict=True))
    )

"""Memorising: how many training answers a model repeats word for word."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weitiao.evaluation.beside import Both, reader, write_measure
from weitiao.evaluation.units import ngrams, units
from weitiao.events import EventLog
from weitiao.records.options import Reasoning
from weitiao.records.record import Record

FEWEST_UNITS = 20
"""Shorter answers, such as labels, say nothing: there is hardly another way to put them."""

RUN_UNITS = 30
"""A passage is repeated where so many characters or words in a row are the same."""

MOST_TOKENS, SLACK = 256, 8
"""How far an answer is followed, and how much longer than the wanted one it may become."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """Of the answers that were asked for: ``whole`` came word for word, ``passages`` in part.

    A passage is ``run_units`` units in a row; an answer that came whole and is long enough has
    one, too.
    """

    whole: int
    passages: int


@dataclass(frozen=True, slots=True)
class Memorising:
    """The content of ``memorising.json``.

    ``training_rows``: all there are; ``suitable``: those whose answer has at least ``units``
    units (Han characters, words). ``asked`` of them were drawn with ``seed`` and answered
    greedily by both models; ``asked_long`` of these have ``run_units`` units or more. Only the
    first ``tokens`` tokens of an answer count. ``test_rows``: test answers with at least ``units``
    units; ``test_found``: those of them that stand word for word among the training answers.
    Blanks and upper case do not count. ``asked`` 0: not applicable, no answer is long enough.
    """

    training_rows: int
    suitable: int
    asked: int
    asked_long: int
    base: Repeated
    tuned: Repeated
    test_rows: int
    test_found: int
    units: int
    run_units: int
    tokens: int
    seed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Row:
    prompt: list[int]
    answer: list[int]
    text: str

    @property
    def new_tokens(self) -> int:
        return min(len(self.answer) + SLACK, MOST_TOKENS)


load_memorising = reader(Memorising)
"""Read ``memorising.json``; RunError where it is missing or is not of this version."""


def measure_memorising(
    both: Both,
    training: Sequence[Record],
    test: Sequence[Record],
    path: Path,
    events: EventLog,
    *,
    count: int,
    seed: int,
    max_tokens: int,
    reasoning: Reasoning = "learn",
) -> Memorising:
    """Ask both models what ``count`` rows of ``training`` ask, and write ``path``.

    ``max_tokens`` and ``reasoning``: as the rows were rendered for training. Emits
    ``memorising.progress``: done, total (answers of both models).

    Raises:
        RunError: the file cannot be written.
    """
    started = time.monotonic()
    suitable = [record for record in training if _long_enough(record)]
    order = random.Random(seed).sample(suitable, len(suitable))
    rows: list[_Row] = []
    for record in order:
        if len(rows) == count:
            break
        if (row := _row(both, record, max_tokens, reasoning)) is not None:
            rows.append(row)
    rows.sort(key=lambda row: len(row.answer))
    answers = _answers(both, rows, events)
    known = {_same(record.answer) for record in suitable}
    asked_of = [record for record in test if _long_enough(record)]
    memorising = Memorising(
        training_rows=len(training),
        suitable=len(suitable),
        asked=len(rows),
        asked_long=sum(len(units(row.text)) >= RUN_UNITS for row in rows),
        base=_repeated(rows, answers[0]),
        tuned=_repeated(rows, answers[1]),
        test_rows=len(asked_of),
        test_found=sum(_same(record.answer) in known for record in asked_of),
        units=FEWEST_UNITS,
        run_units=RUN_UNITS,
        tokens=MOST_TOKENS,
        seed=seed,
        seconds=round(time.monotonic() - started, 1),
    )
    write_measure(path, memorising)
    return memorising


def _long_enough(record: Record) -> bool:
    return len(units(record.answer)) >= FEWEST_UNITS


def _same(text: str) -> str:
    """Return what is compared: blanks and upper case do not count."""
    return "".join(text.casefold().split())


def _row(both: Both, record: Record, max_tokens: int, reasoning: Reasoning) -> _Row | None:
    """Return the row as training rendered it, up to the tokens that count; None if it cannot be."""
    samples: Any = both.chat.samples(
        record,
        max_tokens=max_tokens,
        score_turns="last",
        reasoning="drop" if reasoning == "drop" else "learn",
    )
    if not isinstance(samples, list):
        return None
    last = samples[-1]
    begin = int(last.scored.argmax())
    said = [i for i in last.ids[begin:].tolist() if i not in both.chat.stop_ids][:MOST_TOKENS]
    return _Row(last.ids[:begin].tolist(), said, both.decode(said))


def _answers(both: Both, rows: Sequence[_Row], events: EventLog) -> list[list[str]]:
    """Return base's and tuned's answers, a batch only as long as its longest wanted one."""
    found: list[list[str]] = [[], []]
    for which, voice in enumerate((both.base, both.tuned)):
        for start in range(0, len(rows), both.batch_size):
            batch = rows[start : start + both.batch_size]
            done = which * len(rows) + start
            events.emit("memorising.progress", done=done, total=2 * len(rows))
            prompts = [row.prompt for row in batch]
            given = both.greedy(voice, prompts, max(row.new_tokens for row in batch))
            found[which] += [
                both.decode(answer.ids[: row.new_tokens])
                for answer, row in zip(given, batch, strict=True)
            ]
    return found


def _repeated(rows: Sequence[_Row], answers: Sequence[str]) -> Repeated:
    pairs = [(row.text, answer) for row, answer in zip(rows, answers, strict=True)]
    whole = sum(_same(wanted) == _same(given) for wanted, given in pairs)
    return Repeated(whole, sum(_shares_a_passage(wanted, given) for wanted, given in pairs))


def _shares_a_passage(wanted: str, given: str) -> bool:
    runs = [set(ngrams(units(text), RUN_UNITS)) for text in (wanted, given)]
    return not runs[0].isdisjoint(runs[1])

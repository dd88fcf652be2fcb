"""One reviewer at work: which row is on the table, and what becomes of it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from weitiao.records.options import ReviewOptions
from weitiao.records.record import Record
from weitiao.records.review.edits import Edit, edit_of
from weitiao.records.review.queue import DOUBLE, need, queue
from weitiao.records.review.votes import Verdict, Vote, Votes


@dataclass(frozen=True, slots=True)
class Progress:
    """How many rows this reviewer has judged, of how many; and how many of them today."""

    done: int
    total: int
    today: int


class Session:
    """Shows a reviewer the rows that need him, one after another, and writes down what he says.

    Each decision is on the disk when its method returns; a new session goes on where the
    last one ended. He sees no other's votes. ``records`` are the rows as they were read,
    in any sequence (it may read them from the disk one by one); ``flags``: the number of a
    record, from 0 → the names of its flags; ``double``: the share of rows for two people.
    """

    def __init__(
        self,
        records: Sequence[Record],
        votes: Votes,
        reviewer: str,
        options: ReviewOptions | None = None,
        *,
        flags: Mapping[int, Sequence[str]] | None = None,
        double: float = DOUBLE,
    ) -> None:
        self.reviewer = reviewer
        self._records, self._votes = records, votes
        self._flags = flags or {}
        self._double = double
        self._agreement = (options or ReviewOptions()).agreement
        self._queue = queue(
            records,
            votes,
            reviewer,
            flagged=self._flags,
            double=double,
            agreement=self._agreement,
        )
        self._before = sum(votes.of(row, reviewer) is not None for row in votes)
        self._place = 0
        # Places in the queue: judged by now, and settled by others before their turn came.
        self._judged: set[int] = set()
        self._passed: set[int] = set()

    def current(self) -> Record | None:
        """Return the row on the table; None when nothing is left to do."""
        return self._records[self.index] if self._place < len(self._queue) else None

    @property
    def index(self) -> int:
        """The number of the row on the table, from 0."""
        return self._queue[self._place]

    @property
    def flags(self) -> Sequence[str]:
        """The names of the flags of the row on the table."""
        return self._flags.get(self.index, ())

    @property
    def own_vote(self) -> Vote | None:
        """What this reviewer said of the row on the table before."""
        record = self.current()
        return None if record is None else self._votes.of(record.id, self.reviewer)

    def accept(self) -> None:
        """The row is good as it is."""
        self._vote("accept")

    def edit(self, text: str) -> bool:
        """The row is good with ``text`` as its answer (or passage).

        Returns whether it was taken: not if the text is blank or what stands there.
        """
        record = self.current()
        edited = None if record is None else edit_of(record, text)
        if edited is not None:
            self._vote("edit", edited)
        return edited is not None

    def reject(self, comment: str = "") -> None:
        """The row is not to be used."""
        self._vote("reject", comment=comment)

    def skip(self) -> None:
        """Leave the row for the next session."""
        self._votes.refresh()
        self._go_on()

    def back(self) -> bool:
        """Lay the row before on the table again; return whether there was one."""
        if self._place == 0:
            return False
        self._place -= 1
        return True

    def progress(self) -> Progress:
        """Return how far the reviewer has come."""
        own = [vote for row in self._votes if (vote := self._votes.of(row, self.reviewer))]
        today = date.today()
        return Progress(
            done=len(own),
            total=self._before + len(self._queue) - len(self._passed),
            today=sum(date.fromtimestamp(vote.time) == today for vote in own),
        )

    def _vote(self, verdict: Verdict, edited: Edit | None = None, comment: str = "") -> None:
        record = self.current()
        if record is None:
            return
        self._votes.add(Vote(record.id, self.reviewer, verdict, time.time(), edited, comment))
        self._judged.add(self._place)
        self._passed.discard(self._place)
        self._go_on()

    def _go_on(self) -> None:
        """Go to the next row that still needs this reviewer: others may be at work as well."""
        self._place = min(self._place + 1, len(self._queue))
        while (record := self.current()) is not None and not self._needed(record):
            if self._place not in self._judged:
                self._passed.add(self._place)
            self._place += 1

    def _needed(self, record: Record) -> bool:
        votes = self._votes.get(record.id, ())
        return bool(
            need(
                record,
                votes,
                self.reviewer,
                flagged=bool(self.flags),
                double=self._double,
                agreement=self._agreement,
            )
        )

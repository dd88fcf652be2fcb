"""What the lines of a poem rhyme in."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from weitiao.evaluation.poems.pingshui import Reading, Readings, Tone


@dataclass(frozen=True, slots=True)
class Rhyme:
    """The readings that lines end in; those of several groups are neighbours (通押)."""

    readings: frozenset[Reading]

    @property
    def tone(self) -> Tone | None:
        """The tone of the rhyme; None where no two lines rhyme."""
        return next((reading.tone for reading in self.readings), None)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that the lines rhyme in."""
        return tuple(sorted(reading.group for reading in self.readings))

    def holds(self, end: Readings) -> bool:
        """Say whether a line that ends in a character so read is in the rhyme."""
        return not self.readings.isdisjoint(end)

    def akin(self, end: Readings, neighbours: Callable[[str], list[str]]) -> bool:
        """Say whether such a line is in a neighbouring group, as a first line may be (邻韵)."""
        return any(
            reading.tone == mine.tone
            and set(neighbours(reading.group)) & set(neighbours(mine.group))
            for reading in end
            for mine in self.readings
        )


def find(ends: Sequence[Readings], neighbours: Callable[[str], list[str]]) -> Rhyme:
    """Return what most of ``ends`` rhyme in: one group, or neighbours if more lines rhyme so.

    Of equals the level one is taken, for that is the rule; a rhyme takes two lines.
    """
    exact, count = _most(
        (((reading.tone, reading.group), reading) for reading in end) for end in ends
    )
    near, more = _most(
        (((reading.tone, names), reading) for reading in end for names in neighbours(reading.group))
        for end in ends
    )
    if max(count, more) < 2:
        return Rhyme(frozenset())
    return Rhyme(near if more > count else exact)


def _most(
    ends: Iterable[Iterable[tuple[tuple[Tone, str], Reading]]],
) -> tuple[frozenset[Reading], int]:
    """Return the readings of the sound that most lines share, and how many lines do."""
    lines: Counter[tuple[Tone, str]] = Counter()
    said: dict[tuple[Tone, str], set[Reading]] = {}
    for end in ends:
        found = list(end)
        lines.update(list(dict.fromkeys(sound for sound, _ in found)))
        for sound, reading in found:
            said.setdefault(sound, set()).add(reading)
    if not lines:
        return frozenset(), 0
    best = max(lines, key=lambda sound: (lines[sound], sound[0] == "平"))
    return frozenset(said[best]), lines[best]

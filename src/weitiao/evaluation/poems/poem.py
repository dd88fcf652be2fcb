"""A poem as it was read: plain data that a report can show, and the numbers from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from weitiao.evaluation.poems.metre import FREE, LEVEL, OBLIQUE, UNKNOWN
from weitiao.evaluation.poems.pingshui import Readings
from weitiao.evaluation.poems.xinyun import Modern

Rhymes = Literal["pingshui"] | Modern
"""By which rhyme book: 平水韵, 中华新韵 or 中华通韵."""

Form = Literal["jueju", "lvshi", "pailv", "gujue", "gushi"]
"""绝句, 律诗, 排律; 古绝 and 古诗 have their lines but not their metre."""


@dataclass(frozen=True, slots=True)
class Character:
    """A character and all the ways it may be read here; none where no table has it."""

    text: str
    readings: Readings

    @property
    def mark(self) -> str:
        """○ level, ● oblique, ◐ either, for it has readings of both, ？ unknown."""
        tones = {reading.tone for reading in self.readings}
        if len(tones) != 1:
            return FREE if tones else UNKNOWN
        return LEVEL if "平" in tones else OBLIQUE


@dataclass(frozen=True, slots=True)
class Line:
    """``kind`` and ``wanted`` (marks) are empty where the poem has no metre to compare with."""

    characters: tuple[Character, ...]
    kind: str
    wanted: str
    rhymes: bool

    @property
    def text(self) -> str:
        """The characters."""
        return "".join(character.text for character in self.characters)

    @property
    def marks(self) -> str:
        """The mark of each character."""
        return "".join(character.mark for character in self.characters)


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, or a note that is none; ``line`` and ``place`` count from 1, 0 is the whole.

    What to say of it is the catalogue's sentence ``key`` with ``values``.
    """

    name: str
    line: int
    place: int
    key: str
    values: Mapping[str, str | int]
    fault: bool = True


@dataclass(frozen=True, slots=True)
class Poem:
    """``form`` is None where the lines are not those of one; then nothing is compared.

    ``tones``: the share of decided characters in places of regulated verse that must be level
    or oblique which are. ``links``: the share of 粘 and 对 that hold. ``rhyming``: the share of
    every other line that is in the rhyme, 0 where no two are.
    """

    rhymes: Rhymes
    form: Form | None
    lines: tuple[Line, ...]
    groups: tuple[str, ...]
    tones: float | None
    links: float | None
    rhyming: float | None
    findings: tuple[Finding, ...]

    @property
    def length(self) -> int:
        """Characters to the line, five or seven; 0 where the poem has no form."""
        return len(self.lines[0].characters) if self.form else 0

"""Scores of poems: (answer, reference) → a share, or None where the reference has none.

The reference says what was asked for: how many lines of how many characters, whether in
regulated verse. Rhymes and tones are those of the book ``rhymes``.
"""

from weitiao.evaluation.poems.lines import lines_of, shape_of
from weitiao.evaluation.poems.poem import Rhymes
from weitiao.evaluation.poems.read import read_poem

_REGULATED = ("jueju", "lvshi", "pailv")


def poem_form(answer: str, reference: str, rhymes: Rhymes = "pingshui") -> float | None:
    """Return 1 where the answer has the lines that the reference has, as many and as long.

    None where the reference has no form. An old-style poem is none the worse for that; rhyme and
    tones say nothing here.
    """
    wanted, given = lines_of(reference), lines_of(answer)
    if shape_of(wanted) is None:
        return None
    return float([len(line) for line in given] == [len(line) for line in wanted])


def poem_rhymes(answer: str, reference: str, rhymes: Rhymes = "pingshui") -> float | None:
    """Return the share of every other line that rhymes; None where the reference does not."""
    if not read_poem(reference, rhymes).groups:
        return None
    return read_poem(answer, rhymes).rhyming or 0.0


def poem_tones(answer: str, reference: str, rhymes: Rhymes = "pingshui") -> float | None:
    """Return the share of tones in their place; None where the reference is not regulated."""
    if read_poem(reference, rhymes).form not in _REGULATED:
        return None
    return read_poem(answer, rhymes).tones or 0.0


def poem_links(answer: str, reference: str, rhymes: Rhymes = "pingshui") -> float | None:
    """Return the share of 粘 and 对 that hold; None where the reference is not regulated."""
    if read_poem(reference, rhymes).form not in _REGULATED:
        return None
    return read_poem(answer, rhymes).links or 0.0

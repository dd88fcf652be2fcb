"""From a text to its form, tones and rhyme, with the reason for each fault on its line."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from weitiao.evaluation.poems import findings, metre, pingshui, rhyme, xinyun
from weitiao.evaluation.poems.lines import lines_of, shape_of
from weitiao.evaluation.poems.poem import Character, Finding, Form, Line, Poem, Rhymes


@lru_cache(maxsize=1024)
def read_poem(text: str, rhymes: Rhymes = "pingshui") -> Poem:
    """Read ``text``, simplified or traditional, as a classical poem by the rhyme book ``rhymes``.

    A character with readings of both tones counts as either, and a note says so. A quatrain
    that rhymes in an oblique tone, or breaks the metre in as many places as half its lines,
    is an old-style one (古绝): what it breaks is noted, and no fault.

    Raises:
        DataError: the extra ``poems`` is not installed.
    """
    texts = lines_of(text)
    found = pingshui.readings(texts) if rhymes == "pingshui" else xinyun.readings(texts, rhymes)
    lines = [
        tuple(Character(c, r) for c, r in zip(line, read, strict=True))
        for line, read in zip(texts, found, strict=True)
    ]
    shape = shape_of(texts)
    if shape is None:
        plain = tuple(Line(line, "", "", False) for line in lines)
        note = Finding("form", 0, 0, "poem.finding.form", {"lines": len(lines)})
        return Poem(rhymes, None, plain, (), None, None, None, (note, *findings.of_readings(plain)))
    return _regulated(shape, lines, rhymes)


def _regulated(shape: Form, lines: Sequence[tuple[Character, ...]], rhymes: Rhymes) -> Poem:
    ends = [line[-1].readings for line in lines]
    kin = pingshui.neighbours if rhymes == "pingshui" else _none
    sound = rhyme.find(ends[1::2], kin)
    marks = ["".join(character.mark for character in line) for line in lines]
    kinds = metre.kinds(marks)
    near = not sound.holds(ends[0]) and sound.akin(ends[0], kin)
    rhyming = [near or sound.holds(ends[0]), *(sound.holds(end) for end in ends[1:])]

    oblique = sound.tone == "仄"
    of_metre = [] if oblique else findings.of_metre(marks, kinds, rhyming)
    faults = sum(finding.fault for finding in of_metre)
    # 静夜思, which everyone calls an old-style quatrain, breaks the metre twice.
    old = oblique or faults >= len(lines) / 2
    if old:
        of_metre = [replace(f, fault=False) for f in of_metre]
        of_metre.append(findings.old_style(sound, faults))
    read = tuple(
        Line(line, *(("", "") if oblique else (kind, metre.wanted(kind, len(line)))), rhymed)
        for line, kind, rhymed in zip(lines, kinds, rhyming, strict=True)
    )
    found = [*of_metre, *findings.of_rhyme(read, sound, near=near), *findings.of_readings(read)]
    every_other = rhyming[1::2]
    return Poem(
        rhymes,
        ("gujue" if shape == "jueju" else "gushi") if old else shape,
        read,
        sound.groups,
        metre.tones_share(marks, kinds),
        1 - len(metre.broken_links(kinds)) / (len(lines) - 1),
        sum(every_other) / len(every_other),
        # Those of the whole poem after those of its lines.
        tuple(sorted(found, key=lambda f: (f.line or len(lines) + 1, f.place))),
    )


def _none(group: str) -> list[str]:
    """Today's rhyme books are wide, and know no neighbours."""
    return []

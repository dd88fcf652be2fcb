"""What there is to say of a poem, each on its line and place, as keys of the catalogue."""

from collections.abc import Iterator, Sequence

from weitiao.evaluation.poems import metre
from weitiao.evaluation.poems.metre import FREE, LEVEL, OBLIQUE, UNKNOWN
from weitiao.evaluation.poems.poem import Character, Finding, Line
from weitiao.evaluation.poems.rhyme import Rhyme


def of_metre(lines: Sequence[str], kinds: str, rhyming: Sequence[bool]) -> list[Finding]:
    """Return what is to be said of the tones, and of 粘 and 对; ``lines`` are marks."""
    found = [
        finding
        for index in range(len(lines))
        for finding in (*_of_tones(lines, kinds, index, rhyming), *_of_line(lines, kinds, index))
    ]
    for index in metre.broken_links(kinds):
        if index % 2:
            found.append(Finding("opposition", index + 1, 2, "poem.finding.opposition", {}))
        else:
            found.append(Finding("adhesion", index + 1, 2, "poem.finding.adhesion", {}))
    return found


def _of_tones(
    lines: Sequence[str], kinds: str, index: int, rhyming: Sequence[bool]
) -> Iterator[Finding]:
    """Yield the places of a line with the wrong tone, but those told by another finding."""
    marks = lines[index]
    last = len(marks) - 1
    for place in metre.misfits(kinds[index], marks):
        if metre.saved(lines, kinds, index, place):
            key = "poem.note.saved"
            yield Finding("saved", index + 1, place + 1, key, {"place": place + 1}, fault=False)
        elif place == last and index % 2 and not rhyming[index]:
            continue  # the rhyme is missing, which says more
        elif place >= last - 2 and marks.endswith(LEVEL * 3):
            continue  # three level ones at the end
        elif marks[place] == LEVEL:
            key = "poem.finding.level"
            yield Finding("tone", index + 1, place + 1, key, {"place": place + 1})
        else:
            key = "poem.finding.oblique"
            yield Finding("tone", index + 1, place + 1, key, {"place": place + 1})


def _of_line(lines: Sequence[str], kinds: str, index: int) -> Iterator[Finding]:
    marks, kind = lines[index], kinds[index]
    number, place = index + 1, len(marks) - 2
    if metre.lone_level(kind, marks):
        yield Finding("lone_level", number, place - 1, "poem.finding.lone_level", {})
    if marks.endswith(LEVEL * 3):
        yield Finding("three_level", number, place, "poem.finding.three_level", {})
    if kind in "ab" and marks.endswith(OBLIQUE * 3):
        yield Finding("three_oblique", number, place, "poem.note.three_oblique", {}, fault=False)
    if kind == "s":
        yield Finding("exchanged", number, place, "poem.note.exchanged", {}, fault=False)


def of_rhyme(lines: Sequence[Line], sound: Rhyme, *, near: bool) -> Iterator[Finding]:
    """Yield the lines that should rhyme and do not, and where neighbouring groups are used."""
    place = len(lines[0].characters)
    first = lines[0].characters[-1]
    if near:
        values = {"character": first.text, "groups": _groups(first)}
        yield Finding("neighbours", 1, place, "poem.note.first_neighbour", values, fault=False)
    elif first.mark == LEVEL and sound.tone == "平" and not lines[0].rhymes:
        values = {"character": first.text, "groups": _groups(first)}
        yield Finding("rhyme", 1, place, "poem.finding.first_rhyme", values)
    if len(sound.groups) > 1:
        values = {"groups": "、".join(sound.groups)}
        yield Finding("neighbours", 0, 0, "poem.note.neighbours", values, fault=False)
    against = next((line for line in lines[1::2] if line.rhymes), lines[1])
    for number in range(2, len(lines) + 1, 2):
        line, other = lines[number - 1], against.characters[-1]
        if not line.rhymes and line is not against:
            last = line.characters[-1]
            values = {
                "character": last.text,
                "groups": _groups(last),
                "other": other.text,
                "other_groups": _groups(other),
            }
            yield Finding("rhyme", number, place, "poem.finding.rhyme", values)


def old_style(sound: Rhyme, faults: int) -> Finding:
    """Return why a poem with the lines of regulated verse is an old-style one."""
    if sound.tone == "仄":
        return Finding("old_style", 0, 0, "poem.note.old_rhyme", {}, fault=False)
    return Finding("old_style", 0, 0, "poem.note.old_metre", {"places": faults}, fault=False)


def of_readings(lines: Sequence[Line]) -> Iterator[Finding]:
    """Yield the characters that count as either tone, and those that no table has."""
    everyone = [character for line in lines for character in line.characters]
    if free := _with_mark(everyone, FREE):
        yield Finding("free", 0, 0, "poem.note.free", {"characters": free}, fault=False)
    if unknown := _with_mark(everyone, UNKNOWN):
        yield Finding("unknown", 0, 0, "poem.note.unknown", {"characters": unknown}, fault=False)


def _with_mark(characters: Sequence[Character], mark: str) -> str:
    return "、".join(dict.fromkeys(c.text for c in characters if c.mark == mark))


def _groups(character: Character) -> str:
    return "、".join(reading.group for reading in character.readings) or UNKNOWN

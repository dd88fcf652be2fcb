"""Which characters and words children know in which year of school."""

from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from weitiao.errors import DataError
from weitiao.evaluation.units import has_han, units
from weitiao.records.cleaning.script import to_script

SHOWN = {"story_grade_2": 2, "story_grade_4": 4, "story_grade_6": 6}
"""The scores that go by a list of grades → the last grade that counts."""


@cache
def common_characters() -> frozenset[str]:
    """Return the 3,755 characters of level 1 of GB 2312-80, the common ones: its rows 16 to 55."""
    cells = (bytes((row, cell)) for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF))
    return frozenset("".join(cell.decode("gb2312", "ignore") for cell in cells))


@cache
def shipped_grades() -> dict[str, int]:
    """Return character → grade as Hong Kong's primary schools teach them; see the file's head."""
    text = (resources.files(__package__) / "hong_kong_grades.txt").read_text(encoding="utf-8")
    return _grades(text.splitlines())


def read_grades(path: Path) -> dict[str, int]:
    """Read a list, a grade a line (``1 天地人 cat dog``); ``#`` begins a remark.

    Of Chinese each character counts, of other scripts each word; the lowest grade holds.

    Raises:
        DataError: the file cannot be read as text, a line has no grade, or there is none.
    """
    try:
        found = _grades(path.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError) as error:
        raise DataError("error.grades_unreadable", path=path) from error
    if not found:
        raise DataError("error.grades_unreadable", path=path)
    return found


def _grades(lines: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in lines:
        if said := line.partition("#")[0].strip():
            grade, _, rest = said.partition(" ")
            for unit in read_units(rest):
                found[unit] = min(int(grade), found.get(unit, int(grade)))
    return found


def read_units(text: str) -> list[str]:
    """Return the characters and words of ``text`` in simplified characters, without numbers."""
    return [unit for unit in units(to_script(text, "simplified")) if not unit.isdecimal()]


def share_known(known: Iterable[str]) -> Callable[[str, str], float | None]:
    """Return (answer, reference) → the share of the answer's units that are ``known``.

    What counts is told by the reference: Han characters where it has one, else words. None
    where ``known`` holds nothing of the kind.
    """
    whole = frozenset(known)
    kinds = {has_han(unit) for unit in whole}

    def share(answer: str, reference: str) -> float | None:
        han = has_han(reference)
        if han not in kinds:
            return None
        said = [unit for unit in read_units(answer) if has_han(unit) == han]
        return sum(unit in whole for unit in said) / len(said) if said else 0.0

    return share


def share_by(grade: int, path: str | None) -> Callable[[str, str], float | None]:
    """Return :func:`share_known` for a child at the end of ``grade``; ``path``: the user's list.

    Raises:
        DataError: the list cannot be read.
    """
    grades = read_grades(Path(path)) if path else shipped_grades()
    return share_known(unit for unit, taught in grades.items() if taught <= grade)

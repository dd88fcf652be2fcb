"""The number that an answer to a sum comes to, however it is written.

Read are Arabic digits with thousands commas, decimals, fractions (3/4, 1 1/2, \\frac{3}{4}),
powers of ten, percent, full width, and Chinese numerals (三百二十, 两万五, 3.5亿, 三分之二,
百分之五, 负三). Units behind a number are passed over.
"""

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import partial

_AMOUNT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_DIGITS = "零〇一二三四五六七八九两兩壹贰貳叁參肆伍陆陸柒捌玖"
# 千米 and 千克 are kilometre and kilogram, not thousands.
_UNIT = "(?:[十拾百佰万萬亿億]|[千仟](?![米克瓦卡赫帕伏焦]))"
_NUMBER = rf"(?:{_AMOUNT}|[{_DIGITS}]+(?:[点點][{_DIGITS}]+)?)"
_RUN = re.compile(
    # 一 stands in many words that count nothing, and 第三 is a place.
    rf"(?<![第万萬统統唯单單])(?!一[起样樣些直定般下边邊切旦致共同])(?:{_NUMBER}|[十拾])"
    rf"(?:{_NUMBER}|{_UNIT})*(?:[点點][{_DIGITS}]+)?"
)
_TOKEN = re.compile(rf"{_NUMBER}|.")
_ITEM = re.compile(
    rf"""(?<![A-Za-z_^0-9./第])(?P<minus>(?<![)\]}}%])-[$¥€£]?)?(?:
    (?P<whole>[0-9]{{1,30}})\s+(?P<over>[0-9]{{1,30}})\s*/\s*(?P<under>[0-9]{{1,30}})
    | (?P<amount>{_AMOUNT})(?:
        \s*[×x*]\s*10\^\{{?(?P<power>[+-]?[0-9]{{1,3}})\}}?
        | [eE](?P<exponent>[+-]?[0-9]{{1,3}})(?![0-9])
        | \s*/\s*(?P<divisor>{_AMOUNT})(?!\s*/)
      )?
    )(?P<percent>\s*(?:%|per\ ?cent\b))?""",
    re.VERBOSE,
)
_PARTS = re.compile(rf"(?<![0-9.,])(?:([0-9]{{1,30}})又)?({_AMOUNT})分之({_AMOUNT})")
_MARKER = re.compile(
    r"(?:####|(?:答案|結果|结果|\banswer|\bresult)"
    r"(?:\s*(?:应该|應該|是|为|為|等于|等於|is|was|equals|[:=]))+|(?:^|\n)\s*答\s*:)",
    re.IGNORECASE,
)
_END_OF_CLAUSE = re.compile(r"[\n。;!?]|\.(?![0-9])|,(?![0-9]{3})")
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
_VALUES = {
    c: n
    for n, cs in enumerate(
        ("零〇", "一壹", "二贰貳两兩", "三叁參", "四肆", "五伍", "六陆陸", "七柒", "八捌", "九玖")
    )
    for c in cs
} | {"点": ".", "點": "."}
_SIZES = {
    c: Decimal(10) ** n
    for n, cs in ((1, "十拾"), (2, "百佰"), (3, "千仟"), (4, "万萬"), (8, "亿億"))
    for c in cs
}
_MYRIAD = 10_000
_LONGEST_TEXT, _LONGEST, _LONGEST_RUN = 10_000, 300, 40
"""Characters of a text (its end is read), a number, a numeral: a model may go round in circles."""


def number_match(answer: str, reference: str) -> float | None:
    """Return 1 where the answer comes to the reference's number, else 0.

    They may differ by a millionth of it, as 0.3333333 does from 1/3. None where the
    reference holds no number. 50% is 0.5 and not 50.
    """
    wanted = number_in(reference)
    if wanted is None:
        return None
    given = number_in(answer)
    return float(given is not None and abs(given - wanted) <= abs(wanted) / 1_000_000)


def number_in(text: str) -> Fraction | None:
    """Return what ``text`` comes to; None where it holds no number.

    What stands in the last \\boxed{}, else behind the last "####", "答案是" or "the answer
    is", is the number; else the last one said, in digits before in Chinese numerals.
    """
    text = _plain(text[-_LONGEST_TEXT:])
    for final in (_boxed(text), _marked(text)):
        if final is not None and (found := _numbers(final.rpartition("=")[2])):
            return found[0]
    found = _numbers(text)
    return found[-1] if found else None


def _plain(text: str) -> str:
    # Before the width is folded: that makes 1½ of 11/2 and 10² of 102.
    text = re.sub(r"([¼-¾⅐-⅞])", r" \1", text)
    text = re.sub(r"[²³¹⁰-⁹⁻⁺]+", lambda found: f"^{found[0]}", text)
    text = unicodedata.normalize("NFKC", text)
    text = text.replace("⁄", "/").replace("−", "-")
    text = re.sub(r"\\[,!;]|\*\*|`", "", text.replace("{,}", ",").replace("\\times", "×"))
    text = re.sub(r"\\(?=[%$])|\\(?:text|mathrm|mathbf)\s*(?=\{)", "", text)
    part = r"\s*(?:\{\s*([^{}]{1,40}?)\s*\}|([0-9]))"
    text = re.sub(r"(?<=[0-9])\s*\\[dt]?frac(?![a-z])", r" \\frac", text)
    text = re.sub(rf"\\[dt]?frac{part}{part}", r"\1\2/\3\4", text)
    return re.sub(rf"百分之\s*((?:{_RUN.pattern}))", r"\1%", text)


def _boxed(text: str) -> str | None:
    """Return what stands in the last box."""
    openings = [*_BOX.finditer(text)]
    if not openings:
        return None
    start, depth = openings[-1].end(), 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place]
    return text[start:]


def _marked(text: str) -> str | None:
    """Return the clause behind the last words that announce an answer."""
    found = [*_MARKER.finditer(text)]
    return _END_OF_CLAUSE.split(text[found[-1].end() :].lstrip(), maxsplit=1)[0] if found else None


def _numbers(text: str) -> list[Fraction]:
    """Return the numbers said in digits; only where there are none, those in Chinese numerals."""
    for chinese in (False, True):
        written = _RUN.sub(partial(_in_digits, chinese=chinese), text)
        written = _PARTS.sub(
            lambda f: f"{f[1]} {f[3]}/{f[2]}" if f[1] else f"{f[3]}/{f[2]}", written
        )
        written = re.sub(r"[负負](?=[0-9.])", "-", written)
        values = (_value(item) for item in _ITEM.finditer(written))
        found = [value for value in values if value is not None]
        if found:
            return found
    return []


def _in_digits(match: re.Match[str], *, chinese: bool) -> str:
    """Write a run of numerals in digits; one of Chinese numerals alone only if asked."""
    run = match[0]
    asked = chinese or re.search("[0-9]", run)
    if run.isascii() or not asked or len(run) > _LONGEST_RUN:
        return run
    total = section = largest = scale = Decimal(0)
    number: Decimal | None = None
    # 二十点五 is read as 二十零点五.
    for token in _TOKEN.findall(re.sub(rf"(?<={_UNIT})[点點]", "零点", run)):
        size = _SIZES.get(token)
        if size is None:
            number = _spelled(token)
            # 三百二 is 320, but 三百零二 is 302.
            scale = scale if len(token) == 1 else Decimal(0)
            continue
        section += (number or 0) if size >= _MYRIAD else (1 if number is None else number) * size
        if size > largest and size >= _MYRIAD:  # 三万亿: the 亿 counts all before it
            total, section, largest = (total + section) * size, Decimal(0), size
        elif size >= _MYRIAD:
            total, section = total + section * size, Decimal(0)
        number, scale = None, size
    if number is not None:
        section += number * scale / 10 if scale else number
    return f"{total + section:f}"


def _spelled(digits: str) -> Decimal:
    """Return the value of digits in a row: 2,024 and 二〇二四, 三点五."""
    found = (str(_VALUES.get(c, c)) for c in digits if c != ",")
    return Decimal("".join(found))


def _value(item: re.Match[str]) -> Fraction | None:
    """Return what a number in digits is worth; None where it divides by 0 or never ends."""
    if len(item[0]) > _LONGEST:
        return None
    try:
        if item["amount"]:
            value = _fraction(item["amount"])
            value *= Fraction(10) ** int(item["power"] or item["exponent"] or 0)
            value /= _fraction(item["divisor"] or "1")
        else:
            value = int(item["whole"]) + Fraction(int(item["over"]), int(item["under"]))
    except ZeroDivisionError:
        return None
    return value * (-1 if item["minus"] else 1) / (100 if item["percent"] else 1)


def _fraction(amount: str) -> Fraction:
    return Fraction(amount.replace(",", ""))

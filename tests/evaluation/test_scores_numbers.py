"""Numbers are read however they are written; what is no number is left alone."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.evaluation.scores import number_in, number_match


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Which number is meant.
        ("先算 3+4，得 7。", "7"),
        ("so 3+4=8, no: #### 7", "7"),
        ("答案是5，一起加油，再做 9 道", "5"),
        ("答案：\n5", "5"),
        ("答：一共三百元。", "300"),
        ("答案是3+4=7", "7"),
        ("The answer is: **12** apples out of 15.", "12"),
        ("Answer: 2. Because 1+1 is 2, and 3 is more", "2"),
        ("the result is .5", "1/2"),
        (r"so \boxed{x = 5\text{ cm}} for 9", "5"),
        (r"\boxed{\frac{3}{4}}", "3/4"),
        (r"\boxed{50\%", "1/2"),
        ("一起吃了三个苹果", "3"),
        ("一共是第二题的 4 倍", "4"),
        # How it is written.
        ("1,234,567 yuan", "1234567"),
        ("1{,}234", "1234"),
        ("¥1,000.50", "2001/2"),
        ("１，２３４．５", "2469/2"),
        ("-$5", "-5"),
        ("温度是−5度", "-5"),
        ("5-3", "3"),
        ("1/2", "1/2"),
        ("1½", "3/2"),
        ("1 1/2", "3/2"),
        (r"$-\frac12$", "-1/2"),
        (r"1\frac{1}{2}", "3/2"),
        ("50%", "1/2"),
        ("５０％", "1/2"),
        ("10 percent", "1/10"),
        ("1.2×10^3", "1200"),
        ("3e-2", "3/100"),
        ("5 m²", "5"),
        ("5千米", "5"),
        # Chinese numerals.
        ("〇", "0"),
        ("十二", "12"),
        ("一百二", "120"),
        ("一百零二", "102"),
        ("两千五", "2500"),
        ("三百二十一万四千五百", "3214500"),
        ("一亿零五百万", "105000000"),
        ("三万亿", "3000000000000"),
        ("3.5亿", "350000000"),
        ("3万5千", "35000"),
        ("壹仟零贰拾", "1020"),
        ("二〇二四", "2024"),
        ("三点一四", "157/50"),
        ("二十点五", "41/2"),
        ("三分之二", "2/3"),
        ("3分之2", "2/3"),
        ("二又三分之一", "7/3"),
        ("百分之三点五", "7/200"),
        ("百分之50", "1/2"),
        ("负三分之一", "-1/3"),
    ],
)
def test_a_number_is_read(text, expected):
    assert number_in(text) == Fraction(expected)


@pytest.mark.parametrize("text", ["", "没有", "A", "H2O", "第三题", "万一统一", "1/0", "9" * 5000])
def test_no_number(text):
    assert number_in(text) is None


def chinese(n):
    """Write a number as it is said, by the rules of the school book."""
    digits, units = "零一二三四五六七八九", ["", "十", "百", "千"]
    for size, unit in ((10**8, "亿"), (10**4, "万")):
        if n >= size:
            rest = n % size
            zero = "零" if 0 < rest < size // 10 else ""
            return chinese(n // size) + unit + zero + (chinese(rest) if rest else "")
    said, gap = "", False
    for place in range(3, -1, -1):
        digit = n // 10**place % 10
        if digit:
            said += ("零" if gap and said else "") + digits[digit] + units[place]
        gap = not digit
    return said or digits[0]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**12 - 1))
def test_every_whole_number_as_it_is_said_and_as_it_is_printed(n):
    assert number_in(chinese(n)) == n
    assert number_in(f"{n:,} 元") == n
    assert number_in(f"-{n}") == -n


@settings(max_examples=200, deadline=None)
@given(st.fractions(max_denominator=1000))
def test_every_fraction_is_what_python_reads(value):
    assert number_in(f"答案是 {value}") == value
    sign = "-" if value < 0 else ""
    tex = rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    assert number_in(rf"\boxed{{{tex}}}") == value


def test_numbers_match_by_worth():
    assert number_match("答案是 0.5", "1/2") == 1
    assert number_match("0.33333333", "三分之一") == 1
    assert number_match("0.333", "三分之一") == 0
    assert number_match("50", "50%") == 0
    assert number_match("", "1") == number_match("好", "1") == 0
    assert number_match("1", "好") is None
    assert number_match("0", "0") == 1


@pytest.mark.parametrize(
    "part", ["1,", "1 ", "\\frac{", "\\boxed{", "答案:", "百分之", "1又", "9", "\n "]
)
def test_a_model_that_goes_round_in_circles_holds_nobody_up(part):
    started = time.process_time()
    number_in(part * 20_000)
    assert time.process_time() - started < 5

"""Texts as they are shown: nothing invisible, nothing lost, changes marked."""

import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.records.page import marks
from weitiao.records.page.draw import histogram

TEXT = st.text(st.characters(), max_size=60)


def test_every_control_and_format_character_is_named() -> None:
    for code in range(0x110000):
        sign = chr(code)
        # Signs of other scripts that stand before numbers are of this class and visible.
        if (
            unicodedata.category(sign) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Zs")
            and sign not in " \u3000"
        ):
            named = marks.named(f"a{sign}b")
            if code not in _VISIBLE_FORMATS:
                assert named[1][1], f"U+{code:04X} shows as nothing"


_VISIBLE_FORMATS = {
    *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD,
    *range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B),
}  # fmt: skip
"""Format characters of scripts that few fonts hold, drawn with the letters they enclose."""


def test_plain_text_stays_plain() -> None:
    for text in (
        "",
        "您好，请问 1 + 1？",
        "　　段落",
        "Ça va – naïve “quotes”",
        "👨\u200d👩\u200d👧 ❤\ufe0f",
    ):
        assert marks.plain(text) == text
    assert marks.plain("a\u200db") == "a‹U+200D›b"
    assert marks.plain("a\nb\tc\r") == "a⏎b⇥c‹CR›"
    assert marks.plain("a　b c", blanks=True) == "a‹U+3000›b␣c"


@settings(deadline=None, max_examples=150)
@given(TEXT, TEXT)
def test_differences_lose_nothing(before: str, after: str) -> None:
    old, new = marks.differences(before, after)
    assert "".join(run for run, _ in old) == before
    assert "".join(run for run, _ in new) == after
    if before == after:
        assert not any(mark for _, mark in old + new)
    elif before and after:
        assert any(mark for _, mark in old + new)
    for runs in (old, new):
        kinds = [mark for _, mark in runs]
        assert all(a != b for a, b in pairwise(kinds))


def test_a_single_equal_letter_between_changes_is_changed() -> None:
    old, new = marks.differences("<axb>", "<cxd>")
    assert old == [("<", False), ("axb", True), (">", False)]
    assert new == [("<", False), ("cxd", True), (">", False)]


def test_cut() -> None:
    assert marks.cut("abc", 3) == "abc"
    assert marks.cut("ab c", 3) == "ab…"


def test_no_rows_no_histogram() -> None:
    assert histogram((), 10) is None
    assert histogram(((10, 0), (20, 0)), 10) is None


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(1, 10**5), st.integers(0, 10**8)), min_size=1, max_size=60),
    st.integers(0, 10**5),
)
def test_a_histogram_stays_in_its_frame(bins: list[tuple[int, int]], limit: int) -> None:
    bins = sorted({edge: (edge, count) for edge, count in bins}.values())
    drawn = histogram(bins, limit)
    if drawn is None:
        assert not any(count for _, count in bins)
        return
    numbers = re.findall(r'(?:x|y|width|height)="([-\d.]+)"', drawn.svg)
    assert all(0 <= float(number) <= 100.01 for number in numbers)
    assert drawn.svg.count("<rect") == sum(count > 0 for _, count in bins)
    assert 2 <= len(drawn.up) <= 7
    assert len(drawn.across) <= 8
    assert drawn.far == (limit > bins[-1][0])
    assert (drawn.limit is None) == (limit == 0)
    assert all(0 <= tick.at <= 100.01 for tick in (*drawn.up, *drawn.across))


def test_the_limit_stands_between_its_bins() -> None:
    bins = ((100, 5), (200, 5), (400, 5), (800, 5))
    assert histogram(bins, 300).limit == pytest.approx(100 * 2.5 / 4)
    assert histogram(bins, 800).limit == pytest.approx(100)
    assert histogram(bins, 50).limit == pytest.approx(12.5)
    assert histogram(bins, 801).far

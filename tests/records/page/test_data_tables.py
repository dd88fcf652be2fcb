"""The same findings on a terminal."""

import io

import pytest
from made_report import HOSTILE, bare_report, full_report, place
from rich.console import Console

from weitiao.cli import data_tables
from weitiao.records.report import DataReport, FlagReport
from weitiao.words import LANGUAGES, set_language

TABLES = (
    data_tables.steps,
    data_tables.flags,
    data_tables.similar,
    data_tables.balance,
    data_tables.people,
)


def printed(report: DataReport, language: str = "en", width: int = 120) -> str:
    set_language(language)
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    for make in TABLES:
        console.print(make(report))
    set_language("en")
    return console.file.getvalue()


@pytest.mark.parametrize("make", TABLES)
def test_nothing_found_is_nothing_to_show(make) -> None:
    assert make(bare_report()) is None


def test_what_the_page_tells_the_terminal_tells() -> None:
    said = printed(full_report())
    for part in (
        "1,203", "您好‹U+200B›，", "客服问答.jsonl line 812  鎴戠殑璁㈠崟 → 我的订单",
        "138****78", "305 rows in 112 groups are at least 85% alike", "and 11 more",
        "4 questions have different answers", "退款要七个工作日", "3,210   2,000",
        "after an edit: 31", "0.74   substantial",
    ):  # fmt: skip
        assert part in said
    assert "13812345678" not in said
    assert "resemble training rows" not in said


def test_a_leak_is_told() -> None:
    leaking = full_report().similar.model_copy(update={"leaks": 3, "clusters": 0})
    assert "3 validation or test rows resemble" in printed(full_report(similar=leaking))


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("language", LANGUAGES)
def test_lines_fit(language: str, width: int) -> None:
    from rich.cells import cell_len

    lines = printed(full_report(), language, width).splitlines()
    assert max(cell_len(line) for line in lines) <= width


def test_texts_of_rows_cannot_steer_the_terminal() -> None:
    bad = place(1, "[red]\x1b[31m\u202e" + HOSTILE, "\x1b]0;owned\x07.json")
    flag = FlagReport(name="refusal", rows=1, examples=(bad,))
    said = printed(full_report(flags=(flag,)))
    assert not any(sign in said for sign in "\x1b\x07\u202e")
    assert "[red]‹U+001B›[31m‹U+202E›<script>" in said

"""The data page: whole in both languages, safe with what rows say, loading nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_report import (
    FILE,
    HOSTILE,
    bare_report,
    empty_report,
    full_report,
    place,
    rejected,
    reports_lacking_a_part,
)

from weitiao.errors import RunError
from weitiao.plan.recipe import load_recipe
from weitiao.records.page import page_html, write_page
from weitiao.records.page.advice import advice, strength
from weitiao.records.report import Change, DataReport, FlagReport, Note, StepReport
from weitiao.words import LANGUAGES, set_language

SECTIONS = [
    *("files", "reasons", "steps", "flags", "private", "lengths", "similar"),
    *("kinds", "balance", "grown", "people", "notes", "next"),
]


class Page(HTMLParser):
    """Gathers words, tags, ids and links, and refuses tags that do not match."""

    VOID = frozenset(("meta", "path"))

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        assert not any(name.startswith("on") for name in given), given
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [given[a] or "" for a in ("src", "href", "data", "action") if a in given]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_part_stands_in_order_and_is_linked(language: str) -> None:
    page = Page(page_html(full_report(), FILE, language))
    assert page.ids == SECTIONS
    assert page.links == [f"#{name}" for name in SECTIONS]
    assert page.tags.count("h1") == 1


def test_each_language_is_spoken_alone() -> None:
    made = full_report()
    english = Page(page_html(made.model_copy(update={"files": made.files[:1]}), "t", "en")).text
    chinese = Page(page_html(made, "t", "zh")).text
    assert "9,864 of 10,230 rows can be used; 366 are left out" in english
    assert "10,230 行数据中，可用 9,864 行；没有采用的 366 行" in chinese
    assert "The answer is empty. Fill in the answer or delete the row." in english
    assert "回答是空的。 请补上回答，或删除这一行。" in chinese
    assert "What to do next" not in chinese
    assert "接下来做什么" not in english


def test_by_default_the_language_spoken_now_is_taken(tmp_path: Path) -> None:
    set_language("zh")
    write_page(bare_report(), tmp_path / "new" / "page.html", "a")
    set_language("en")
    assert '<html lang="zh-CN">' in (tmp_path / "new" / "page.html").read_text("utf-8")
    assert '<html lang="en">' in page_html(bare_report(), "a")


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        write_page(bare_report(), tmp_path / "file" / "page.html", "a")


def hostile_report() -> DataReport:
    """Return the full report with a script wherever a user's text can stand."""
    bad = place(1, HOSTILE, HOSTILE)
    made = full_report()
    file = made.files[0].model_copy(
        update={"file": HOSTILE, "encoding": HOSTILE, "columns": {"prompt": HOSTILE}}
    )
    cluster = made.similar.examples[0].model_copy(update={"rows": (bad, bad), "size": 2})
    change = Change(place=bad, before=HOSTILE, after=HOSTILE + HOSTILE)
    return full_report(
        files=(file,),
        reasons={HOSTILE: 1, "missing_column": 365},
        rejections={
            HOSTILE: (rejected(1, HOSTILE, HOSTILE),),
            "missing_column": (rejected(2, HOSTILE, "missing_column", column=HOSTILE),),
        },
        steps=(StepReport(name=HOSTILE, rows=1, examples=(change,)),),
        flags=tuple(
            FlagReport(name=name + HOSTILE, rows=1, examples=(bad,)) for name in ("", "private_")
        ),
        similar=made.similar.model_copy(
            update={"examples": (cluster,), "contradictions": (cluster,)}
        ),
        split={"train": 1, HOSTILE: 2},
        languages={HOSTILE: 3},
        categories={HOSTILE: {HOSTILE: 1}},
        balance=(made.balance[0].model_copy(update={"value": HOSTILE}),),
        grown={HOSTILE: 1},
        people=made.people.model_copy(
            update={"reviewers": {HOSTILE: 1}, "kappa": ((HOSTILE, HOSTILE, 0.1, 3),)}
        ),
        notes=(Note(name="read_as", values={"file": HOSTILE, "kind": HOSTILE}), Note(name=HOSTILE)),
    )


def test_nothing_of_the_users_becomes_part_of_the_page() -> None:
    tags = set(Page(page_html(full_report(), FILE, "en")).tags)
    page = Page(page_html(hostile_report(), HOSTILE, "en"))
    assert not {"script", "img"} & set(page.tags)
    assert set(page.tags) <= tags
    assert page.text.count("<script>alert") > 25
    assert page.links == [link for link in page.links if link.startswith("#")]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    html = page_html(full_report(), FILE, "zh")
    assert not {"script", "link", "img", "iframe", "object"} & set(Page(html).tags)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html)
    assert "default-src 'none'" in html


def test_what_is_invisible_is_named_everywhere() -> None:
    odd = "a\u202eb\x00c\ud800d\u200be"
    report = full_report(categories={odd: {odd: 1}}, grown={odd: 3}, split={odd: 1})
    report = report.model_copy(
        update={
            "files": (report.files[0].model_copy(update={"file": odd}),),
            "rejections": {"empty_answer": (rejected(3, odd, "empty_answer"),)},
        }
    )
    html = page_html(report, odd, "en")
    html.encode("utf-8")
    assert not re.search("[\x00\u202e\u200b]", html)
    assert "a‹U+202E›b‹U+0000›c‹U+D800›d‹U+200B›e" in html
    assert '<q>a<span class="sign">U+202E</span>b' in html


def test_long_texts_are_cut() -> None:
    longest = "长" * 50_000
    report = full_report(
        rejections={"duplicate": (rejected(1, longest, "duplicate", file=longest, line=2),)},
        steps=(
            StepReport(
                name="normalise",
                rows=1,
                examples=(Change(place=place(1, longest), before=longest, after=longest + "。"),),
            ),
        ),
        categories={longest: {longest: 9}},
    )
    html = page_html(report, longest, "zh")
    assert "长" * 60 + "…" in html
    assert len(html) < 60_000


def test_private_data_cannot_be_read_off_the_page() -> None:
    html = page_html(full_report(), FILE, "en")
    assert "138****78" in html
    assert "13812345678" not in html
    assert "zhang.san" not in html


def test_differences_are_marked() -> None:
    html = page_html(full_report(), FILE, "en")
    assert '您好<del><span class="sign">U+200B</span></del>，' in html
    assert '请问<ins><span class="sign">␣</span></ins>怎么退款？' in html
    assert "请问我<mark>前</mark>天下的订单" in html


def test_a_reason_is_an_example_only_where_its_values_vary() -> None:
    text = Page(page_html(full_report(), FILE, "en")).text
    assert f"For example: The row says the same as {FILE} line 12." in text
    assert "For example: The line is not valid JSON" not in text
    assert "The line is not valid JSON: reading fails at column 19." in text


def test_the_histogram_and_its_limit() -> None:
    html = page_html(full_report(), FILE, "en")
    assert html.count("<rect") == 19
    assert "limit 1,024" in html
    assert "out of scale" not in html
    assert "out of scale" in page_html(full_report(limit=4096), FILE, "en")
    assert 'class="at-limit' in html
    assert 'class="at-limit' not in page_html(full_report(limit=0), FILE, "en")


@pytest.mark.parametrize(("name", "report"), list(reports_lacking_a_part()))
@pytest.mark.parametrize("language", LANGUAGES)
def test_any_part_may_be_absent(name: str, report: DataReport, language: str) -> None:
    page = Page(page_html(report, FILE, language))
    section = {"languages": None, "categories": None, "limit": None, "histogram": None}
    gone = section.get(name, {"rejections": None, "flags": "flags"}.get(name, name))
    if gone:
        assert gone not in page.ids
    assert page.links == [f"#{known}" for known in page.ids if known != "quiet"]


@pytest.mark.parametrize("report", [bare_report(), empty_report()], ids=["bare", "empty"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_of_the_first_version_is_a_page(report: DataReport, language: str) -> None:
    page = Page(page_html(report, "a.json", language))
    assert {"lengths", "quiet"} <= set(page.ids)
    assert not {"reasons", "steps", "similar", "people"} & set(page.ids)


def test_names_that_this_version_does_not_know_are_shown_as_they_are() -> None:
    step = StepReport(name="from_tomorrow", rows=2, examples=())
    flag = FlagReport(name="also_new", rows=2, examples=())
    note = Note(name="unheard_of")
    report = full_report(steps=(step,), flags=(flag,), notes=(note,), reasons={"novel": 366})
    text = Page(page_html(report, FILE, "zh")).text
    for name in ("from_tomorrow", "also_new", "unheard_of", "novel"):
        assert name in text


def test_leakage_is_told_either_way() -> None:
    held = full_report()
    assert "No validation or test row has a near duplicate" in page_html(held, FILE, "en")
    leaking = held.similar.model_copy(update={"leaks": 17})
    html = page_html(full_report(similar=leaking), FILE, "en")
    assert "17 validation or test rows have a near duplicate" in html
    assert "weitiao data report DATA leakage=true" in html


def test_every_command_that_is_advised_has_settings_that_exist() -> None:
    leaking = full_report().similar.model_copy(update={"leaks": 17})
    commands = [command for _, command in advice(full_report(similar=leaking), "en") if command]
    settings = [word.strip("'") for command in commands for word in command.split() if "=" in word]
    assert len(settings) == 5
    for setting in settings:
        load_recipe(overrides=[setting])


def test_advice_follows_what_was_found() -> None:
    commands = [command for _, command in advice(bare_report(), "en")]
    assert commands == ["weitiao data show a.json --tokens", "weitiao run a.json"]
    assert advice(empty_report(), "en") == []
    said = " ".join(sentence for sentence, _ in advice(full_report(), "en"))
    assert "366 rows were left out" in said
    assert "184 rows were shortened to 1,024" in said
    reasons = {"near_duplicate": 300, "duplicate": 66}
    assert "near=reject" not in str(advice(full_report(reasons=reasons), "en"))
    awkward = bare_report(files=[{**bare_report().files[0].model_dump(), "file": "it's {0}.csv"}])
    assert advice(awkward, "en")[-1][1] == "weitiao run 'it'\"'\"'s {0}.csv'"


@pytest.mark.parametrize(
    ("kappa", "word"),
    [
        *((-0.1, "poor"), (0.0, "slight"), (0.2, "slight"), (0.21, "fair"), (0.6, "moderate")),
        *((0.8, "substantial"), (0.81, "almost perfect"), (float("nan"), "not defined")),
    ],
)
def test_kappa_in_a_word(kappa: float, word: str) -> None:
    assert strength(kappa, "en") == word

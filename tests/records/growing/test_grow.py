"""Rows made of rows: lineage, the gate, duplicates, order, the files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_service import Reply, last_user, serving
from records.growing.rows import passage, row
from weitiao import endpoint as client
from weitiao.endpoint import Endpoint, EndpointError
from weitiao.errors import DataError
from weitiao.records.growing import (
    GrowReject,
    Thesaurus,
    back_translation,
    grow,
    paraphrase,
    synonyms,
    write_grown,
)
from weitiao.records.growing.grow import Prompts
from weitiao.records.growing.method import question
from weitiao.records.growing.rewording import without_wrapping
from weitiao.records.record import Lineage, Record
from weitiao.words import set_language

GROUPS = {"高兴": ("开心", "快乐"), "怎么": ("如何",), "如何": ("怎么",)}
WORDS = Thesaurus(GROUPS, frozenset(GROUPS) | {"开心", "快乐"}, 2)
ROWS = [
    row("今天我很高兴", "真好。", 1, topic="心情"),
    row("怎么办卡？", "来网点。", 2),
    row("如何办卡？", "到网点来。", 3),
    passage("一段文字", 4),
    row("今天他不高兴吗", "是的。", 5),
]
METHOD = synonyms(WORDS, 1)


def asking(url: str, parallel: int = 3, cache: Path | None = None) -> Endpoint:
    return Endpoint(url, "tiny", "NO_SUCH_KEY", 100, parallel, 5.0, cache)


def made(found: Iterator[Record | GrowReject]) -> tuple[list[Record], dict[str, list[str]]]:
    new: list[Record] = []
    refused: dict[str, list[str]] = {}
    for one in found:
        if isinstance(one, Record):
            new.append(one)
        else:
            refused.setdefault(one.reason.name, []).append(one.text)
    return new, refused


def test_a_new_row_has_its_parents_answer_and_says_where_it_is_from() -> None:
    new, refused = made(grow(lambda: ROWS, METHOD, n=2))
    assert [(question(r), r.origin.line) for r in new] == [
        (text, line) for line in (1, 5) for text in (q for q, n in CHILDREN if n == line)
    ]
    child = new[0]
    assert child.lineage == Lineage(parent=ROWS[0].id, method="synonyms")
    assert child.answer == ROWS[0].answer
    assert child.metadata["topic"] == "心情"
    # 怎么 and 如何 each give the other row's question: known, though one stands later.
    assert refused == {"grow_known": ["如何办卡？", "怎么办卡？"], "grow_no_question": [""]}


CHILDREN = [
    (question(r), r.origin.line) for r in grow(lambda: ROWS, METHOD, n=2) if isinstance(r, Record)
]


def test_the_same_seed_gives_the_same_rows() -> None:
    first, second = (list(grow(lambda: ROWS, METHOD, n=2, seed=7)) for _ in range(2))
    assert first == second


def test_rows_that_are_not_original_have_no_children() -> None:
    grown = ROWS[0].with_lineage(Lineage("p", "paraphrase"))
    waiting = ROWS[4].with_lineage(Lineage("p", "draft", draft=True))
    reviewed = ROWS[4].with_lineage(Lineage("p", "draft", reviewers=("王",)))
    new, refused = made(grow(lambda: [grown, waiting, reviewed], METHOD))
    assert set(refused) == {"grow_grown", "grow_draft"}
    assert [r.lineage.parent for r in new] == [ROWS[4].id]


def test_bounds_can_be_moved() -> None:
    _, refused = made(grow(lambda: [ROWS[0]], METHOD, bounds=(99, 100)))
    assert set(refused) == {"grow_drift"}
    _, refused = made(grow(lambda: [ROWS[0]], METHOD, bounds=(0, 10)))
    assert set(refused) == {"grow_copy"}


def test_nothing_is_read_ahead_without_need() -> None:
    taken: list[Record] = []

    def rows() -> Iterator[Record]:
        for record in ROWS:
            taken.append(record)
            yield record

    found = grow(rows, METHOD)
    next(found)
    assert len(taken) == len(ROWS) + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", " a", "c c", "c  c", "d"]), max_size=8))
def test_prompts_are_taken_once(texts: list[str]) -> None:
    half = len(texts) // 2
    prompts = Prompts(row(text) for text in texts[:half])
    seen = {" ".join(text.split()) for text in texts[:half]}
    for text in texts[half:]:
        key = " ".join(text.split())
        assert prompts.add(row(text)) == (key not in seen)
        seen.add(key)


def asked_text(asked: dict[str, Any]) -> str:
    return last_user(asked).partition("<text>\n")[2].partition("\n</text>")[0]


def test_paraphrase_asks_in_the_rows_language_for_each_variant(tmp_path: Path) -> None:
    rows = [row("怎么办理信用卡？", "来网点。"), row("How do I get a card?", "Come to us.", 2)]

    def script(asked: dict[str, Any]) -> str:
        if "How" in asked_text(asked):
            return "<think>hm</think>“What is the way I get a card?”"
        return ["请问信用卡怎么办理？", "信用卡要怎么去办理？"][asked["seed"] - 5]

    with serving(script) as service:
        for _ in range(2):
            with asking(service.url, cache=tmp_path / "c") as endpoint:
                new, refused = made(grow(lambda: rows, paraphrase(endpoint), n=2, seed=5))
            assert [question(r) for r in new] == [
                "请问信用卡怎么办理？",
                "信用卡要怎么去办理？",
                "What is the way I get a card?",
            ]
            assert [r.lineage.method for r in new] == ["paraphrase"] * 3
            assert refused == {"grow_known": ["What is the way I get a card?"]}
        assert len(service.requests) == 4  # the second run found all in the cache
    said = [last_user(r) for r in service.requests]
    assert sorted(text.startswith("请把") for text in said) == [False, False, True, True]


def test_back_translation_goes_there_and_back() -> None:
    def script(asked: dict[str, Any]) -> str:
        text = asked_text(asked)
        there = {"怎么办理信用卡？": "How to apply?", "How do I get a card?": "怎么拿卡？"}
        back = {"How to apply?": "如何去办理信用卡？", "怎么拿卡？": "How can I get a card?"}
        return {**there, **back}[text]

    rows = [row("怎么办理信用卡？"), row("How do I get a card?", line=2)]
    with serving(script) as service, asking(service.url, parallel=1) as endpoint:
        new, _ = made(grow(lambda: rows, back_translation(endpoint)))
        assert [question(r) for r in new] == ["如何去办理信用卡？", "How can I get a card?"]
        list(grow(lambda: rows[:1], back_translation(endpoint, via="法语")))
    firsts = [last_user(asked).partition("\n")[0] for asked in service.requests]
    assert ["翻译成英语" in firsts[0], "翻译成中文" in firsts[1]] == [True, True]
    assert ["into Chinese" in firsts[2], "into English" in firsts[3]] == [True, True]
    assert "翻译成法语" in firsts[4]


def test_one_refused_request_costs_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    set_language("zh")  # the sentence is made in a thread, in the language spoken here

    def script(asked: dict[str, Any]) -> Reply | str:
        if "坏" in asked_text(asked):
            return Reply(b'{"error": "no"}', 400)
        return asked_text(asked).replace("请问", "我想问问")

    rows = [row(f"请问{text}怎么办理？", line=i) for i, text in enumerate("卡坏车房")]
    with serving(script) as service, asking(service.url) as endpoint:
        found = list(grow(lambda: rows, paraphrase(endpoint)))
    set_language("en")
    assert [isinstance(one, Record) for one in found] == [True, False, True, True]
    assert isinstance(found[1], GrowReject)
    assert "拒绝了这个请求" in found[1].reason.sentence("zh")


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("怎么办？", "怎么办？"),
        ("<think>想\n想</think>\n\n怎么办？\n", "怎么办？"),
        ("好的：<text>\n怎么办？\n</text>", "怎么办？"),
        ("“怎么办？”", "怎么办？"),
        ('"a" and "b"', '"a" and "b"'),
        ("「甲」和「乙」", "「甲」和「乙」"),
        ('"', '"'),
        ("", ""),
    ],
)
def test_what_wraps_a_reply_is_taken_off(reply: str, text: str) -> None:
    assert without_wrapping(reply) == text


def test_the_file_holds_all_rows_each_before_its_children(tmp_path: Path) -> None:
    path = tmp_path / "out" / "grown.jsonl"
    grown = write_grown(lambda: ROWS, METHOD, path, n=2)
    rows = [Record.from_json(json.loads(line)) for line in path.read_bytes().splitlines()]
    assert [r for r in rows if not r.lineage.method] == ROWS
    parent = ""
    for record in rows:
        parent = parent if record.lineage.method else record.id
        assert record.lineage.parent in (None, parent)
    assert (grown.rows, grown.new) == (5, len(rows) - 5)
    assert grown.new == len(CHILDREN) > 0
    assert grown.rejected == {"grow_known": 2, "grow_no_question": 1}
    assert grown.examples["grow_known"].sentence("en") == "The same question is there already."
    assert grown.aside is not None
    lines = [json.loads(line) for line in grown.aside.read_bytes().splitlines()]
    assert [(line["row"], line["line"], line["reason"]) for line in lines] == [
        ("如何办卡？", 2, "grow_known"),
        ("怎么办卡？", 3, "grow_known"),
        ("", 4, "grow_no_question"),
    ]
    assert lines[0]["parent"] == ROWS[1].id


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "grown.jsonl"
    for mine in (path, tmp_path / "grown.rejected.jsonl"):
        mine.write_text("mine")
        with pytest.raises(DataError) as error:
            write_grown(lambda: ROWS, METHOD, path)
        assert error.value.values["path"] == mine
        assert mine.read_text() == "mine"
        mine.unlink()


def test_a_service_that_fails_leaves_no_half_file(tmp_path: Path) -> None:
    rows = [row(f"请问第{i}号卡怎么办理？", line=i) for i in range(12)]
    answered: list[str] = []
    most = 6

    def script(asked: dict[str, Any]) -> Reply | str:
        if len(answered) >= most:
            return Reply(b"", 401)
        answered.append(asked_text(asked))
        return asked_text(asked).replace("请问", "我想问问")

    path = tmp_path / "out" / "grown.jsonl"
    with serving(script) as service:
        with asking(service.url, cache=tmp_path / "c") as endpoint, pytest.raises(EndpointError):
            write_grown(lambda: rows, paraphrase(endpoint), path)
        assert list(path.parent.iterdir()) == []
        most = 12
        with asking(service.url, cache=tmp_path / "c") as endpoint:
            assert write_grown(lambda: rows, paraphrase(endpoint), path).new == 12
        assert endpoint.usage.cached == 6
    assert sorted(answered) == sorted(question(r) for r in rows)

"""Drafts from passages: read leniently, borne out by the passage, waiting for review."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_service import Reply, last_user, serving
from records.growing.rows import passage, row
from weitiao.endpoint import Endpoint
from weitiao.records.growing import GrowReject, draft, write_drafts
from weitiao.records.growing.drafts import GROUNDED, grounded, parsed
from weitiao.records.growing.method import question
from weitiao.records.record import Lineage, Record

TEXT = "龙井茶产于浙江杭州西湖一带，已有1200余年历史。它以色绿、香郁、味甘、形美著称。"
PAIRS = [
    {"question": "龙井茶产自哪里？", "answer": "龙井茶产于浙江杭州西湖一带。"},
    {"question": "龙井茶有多久历史？", "answer": "龙井茶已有1200余年历史。"},
    {"question": "龙井茶有多久历史？", "answer": "已有1300余年历史。"},
    {"question": "绿茶健康吗？", "answer": "研究表明喝咖啡能够提神醒脑并减少疲劳。"},
    {"question": "龙井茶产自哪里？", "answer": "产于浙江杭州西湖一带。"},
]


def asking(url: str) -> Endpoint:
    return Endpoint(url, "tiny", "NO_SUCH_KEY", 100, 2, 5.0)


def test_drafts_are_borne_out_by_their_passage_and_wait_for_review() -> None:
    source = passage(TEXT, 3, page=2)
    with (
        serving(lambda asked: json.dumps(PAIRS, ensure_ascii=False)) as service,
        asking(service.url) as endpoint,
    ):
        found = list(draft([source], endpoint, pairs=5))
        assert len(list(draft([source], endpoint, pairs=2))) == 2
    new = [one for one in found if isinstance(one, Record)]
    assert [question(one) for one in new] == ["龙井茶产自哪里？", "龙井茶有多久历史？"]
    assert new[0].lineage == Lineage(parent=source.id, method="draft", draft=True)
    assert new[0].origin == source.origin
    metadata = {name: v for name, v in new[0].metadata.items() if name != "weitiao"}
    assert metadata == {"page": 2, "passage": TEXT, "source": "book.txt:3"}
    reasons = [one.reason for one in found if isinstance(one, GrowReject)]
    assert [r.name for r in reasons] == ["draft_number", "draft_ungrounded", "grow_known"]
    assert all(r.sentence("zh") and r.hint("en") for r in reasons)
    said = last_user(service.requests[0])
    assert TEXT in said
    assert "5 个问题" in said
    assert '[{"question": "…", "answer": "…"}]' in said


def test_each_passage_is_accounted_for(tmp_path: Path) -> None:
    def script(asked: dict[str, Any]) -> Reply | str:
        text = last_user(asked)
        if "bad" in text:
            return Reply(b"no", 400)
        return "I would rather not." if "Tea" in text else json.dumps(PAIRS[:1])

    rows = [passage(TEXT, 1), passage("Tea is good", 2), passage(" ", 3), row("q"), passage("bad")]
    path = tmp_path / "drafts.jsonl"
    with serving(script) as service, asking(service.url) as endpoint:
        grown = write_drafts(iter(rows), endpoint, path)
    assert (grown.rows, grown.new) == (5, 1)
    assert grown.rejected == {"draft_no_text": 2, "draft_unreadable": 1, "grow_no_answer": 1}
    (line,) = path.read_bytes().splitlines()
    assert Record.from_json(json.loads(line)).lineage.draft
    assert any("in the language of the passage" in last_user(r) for r in service.requests)


@pytest.mark.parametrize(
    "reply",
    [
        '[{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]',
        '```json\n[{"question": "a", "answer": "b"},\n{"question": "c", "answer": "d"},]\n```',
        '{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}',
        '{"pairs": [{"问题": "a", "答案": "b"}, {"Q": "c", "A": "d"}]}',
        'Sure {x}: [{"instruction": "a", "output": "b"}, {"question": "c", "answer": "d"}, {"que',
    ],
)
def test_replies_are_read_leniently(reply: str) -> None:
    assert parsed(reply) == [("a", "b"), ("c", "d")]


def test_a_line_break_in_a_text_is_read() -> None:
    assert parsed('{"question": "a", "answer": "b\nc"}') == [("a", "b\nc")]


@pytest.mark.parametrize("reply", ["", "[]", "{}", '{"question": "a"}', "[" * 9999, "{" * 500])
def test_a_reply_without_pairs_gives_none(reply: str) -> None:
    assert parsed(reply) == []


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), max_size=4), st.text())
def test_pairs_come_back(pairs: list[tuple[str, str]], noise: str) -> None:
    wanted = [(q.strip(), a.strip()) for q, a in pairs if q.strip() and a.strip()]
    reply = json.dumps([{"question": q, "answer": a} for q, a in pairs])
    assert parsed(reply) == wanted
    parsed(noise + reply[: len(reply) // 2])


def test_grounded_tells_the_passage_from_what_is_made_up() -> None:
    assert grounded(TEXT, TEXT) == 1
    assert grounded("", TEXT) == grounded("。。。", TEXT) == 0
    assert grounded("它的特点是色绿、香郁、味甘、形美。", TEXT) > GROUNDED
    assert grounded("武夷岩茶产自福建北部山区，滋味醇厚。", TEXT) < GROUNDED
    english = "Green tea is made from leaves that have not been oxidised."
    assert grounded("It is made from leaves that have not been oxidised.", english) > GROUNDED
    assert grounded("Coffee keeps people awake for many hours at night.", english) < GROUNDED


def test_enumeration_is_no_invented_number() -> None:
    answer = "1. 色绿\n2. 香郁\n3. 味甘、形美"
    reply = json.dumps([{"question": "龙井茶有哪些特点？", "answer": answer}])
    with serving(lambda asked: reply) as service, asking(service.url) as endpoint:
        (one,) = draft([passage(TEXT)], endpoint)
    assert isinstance(one, Record)

"""What follows from votes, and what becomes of the row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from review_rows import row, vote

from weitiao.records.record import Lineage, Origin, Reason, Record
from weitiao.records.review import apply, decide
from weitiao.records.review.edits import answer_of, edit_of

TEA = row("泡几分钟？", "三分钟")


def edit(who: str, text: str):
    return vote(TEA, who, "edit", edited=edit_of(TEA, text))


@pytest.mark.parametrize(
    ("verdicts", "agreement", "verdict", "share", "held"),
    [
        ("a", 0.6, "accept", 1, False),
        ("r", 1, "reject", 1, False),
        ("aa", 1, "accept", 1, False),
        ("ar", 0.6, "accept", 0.5, True),
        ("ar", 0, "accept", 0.5, True),  # nobody can say which of two counts
        ("arr", 0.6, "reject", 2 / 3, False),
        ("arr", 0.7, "reject", 2 / 3, True),
        ("aaarr", 0.6, "accept", 0.6, False),  # exactly the share that is asked
        ("aaar" * 3, 0.75, "accept", 0.75, False),
        ("aarr", 0.5, "accept", 0.5, True),
    ],
)
def test_the_majority_counts(verdicts, agreement, verdict, share, held) -> None:
    names = {"a": "accept", "r": "reject"}
    given = [vote(TEA, f"甲{i}", names[v]) for i, v in enumerate(verdicts)]
    decision = decide(given, agreement)
    assert (decision.verdict, decision.held_back) == (verdict, held)
    assert decision.agreement == pytest.approx(share)


def test_different_edits_are_a_conflict() -> None:
    assert decide([edit("甲", "四分钟"), edit("乙", "五分钟")], 0.5).held_back
    third = decide([edit("甲", "四分钟"), edit("乙", "五分钟"), edit("丙", "四 分钟")], 0.6)
    assert third.held_back, "a blank inside a text is a difference unless there was one before"
    third = decide([edit("甲", "泡  四分钟"), edit("乙", "五分钟"), edit("丙", "泡 四分钟")], 0.6)
    assert not third.held_back
    assert third.agreeing == ("甲", "丙")
    assert third.edited[-1].content == "泡 四分钟", "the latest of equal edits"
    assert decide([edit("甲", "四分钟"), vote(TEA, "乙")], 0.5).held_back


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(("accept", "reject", "四分钟", "五分钟")), min_size=1, max_size=7),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
def test_the_order_of_votes_decides_nothing_but_ties(said, agreement, random) -> None:
    def decided(order):
        made = [
            vote(TEA, str(i), said[i]) if said[i] in ("accept", "reject") else edit(str(i), said[i])
            for i in order
        ]
        return decide(made, agreement)

    order = list(range(len(said)))
    one = decided(order)
    random.shuffle(order)
    other = decided(order)
    assert one.held_back == other.held_back
    assert one.agreement == other.agreement == max(map(said.count, said)) / len(said)
    if not one.held_back:
        assert one.verdict == other.verdict
        assert one.agreement >= agreement


def test_an_accepted_draft_is_a_draft_no_more() -> None:
    draft = TEA.with_lineage(Lineage(parent="茶经 第 3 段", method="draft", draft=True))
    accepted = apply(draft, decide([vote(draft, "甲"), vote(draft, "乙")], 0.6))
    assert accepted.lineage == Lineage("茶经 第 3 段", "draft", False, ("甲", "乙"))
    assert accepted.messages == draft.messages
    edited = apply(draft, decide([edit("甲", "四分钟")], 0.6))
    assert edited.answer == "四分钟"
    assert edited.lineage.reviewers == ("甲",)
    assert not edited.lineage.draft


@pytest.mark.parametrize(
    ("made", "verdicts", "required", "reason", "in_words"),
    [
        ({"draft": True}, [], False, "draft_unreviewed", "nobody has accepted it"),
        ({}, [], True, "review_missing", "review.required"),
        ({}, ["reject", "reject"], False, "review_rejected", "甲0, 甲1"),
        ({}, ["reject", "accept"], False, "review_held_back", "1 of 2 say the same"),
        ({"draft": True}, ["reject", "accept"], True, "review_held_back", "60%"),
    ],
)
def test_why_a_row_is_not_used(made, verdicts, required, reason, in_words) -> None:
    record = TEA.with_lineage(Lineage(**made))
    given = [vote(record, f"甲{i}", verdict) for i, verdict in enumerate(verdicts)]
    found = apply(record, decide(given, 0.6), required=required)
    assert isinstance(found, Reason)
    assert found.name == reason
    assert in_words in found.sentence("en")
    for language in ("en", "zh"):
        assert found.sentence(language)
        assert found.hint(language)


def test_a_row_that_nobody_looked_at_goes_through_untouched() -> None:
    assert apply(TEA, decide([], 0.6)) is TEA
    elsewhere = TEA.with_lineage(Lineage(reviewers=("丙",)))
    assert apply(elsewhere, decide([], 0.6), required=True) is elsewhere
    assert apply(elsewhere, decide([vote(TEA, "甲")], 0.6)).lineage.reviewers == ("丙", "甲")


def test_an_edit_changes_the_last_answer_only() -> None:
    edited = edit_of(TEA, "\n四分钟。\r\n再等一下。\r\n")
    assert [m.content for m in edited] == ["泡几分钟？", "四分钟。\n再等一下。"]
    assert edit_of(TEA, "三分钟\n") is None
    assert edit_of(TEA, " \n") is None
    passage = Record(Origin("a.txt", 1), text="茶")
    assert edit_of(passage, "好茶") == "好茶"
    assert answer_of(passage) == "茶"
    asked = Record(Origin("a", 1), TEA.messages[:1])
    assert [m.role for m in edit_of(asked, "四分钟")] == ["user", "assistant"]

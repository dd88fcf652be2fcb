"""Who is asked what, in which order, and that nothing is asked twice."""

import time

import pytest
from review_rows import row, vote

from weitiao.records.options import ReviewOptions
from weitiao.records.record import Lineage
from weitiao.records.review import Session, Votes
from weitiao.records.review.queue import queue

DRAFT = Lineage(method="draft", draft=True)


def test_the_most_urgent_first(votes: Votes) -> None:
    plain, alone, conflict, flagged, draft, agreed, own, _elsewhere, draft2 = rows = [
        row("一"), row("二"), row("三"), row("四"), row("五", lineage=DRAFT), row("六"), row("七"),
        row("八", lineage=Lineage(reviewers=("丁",))), row("九", lineage=DRAFT),
    ]  # fmt: skip
    votes.add(
        vote(alone, "乙"),
        vote(conflict, "乙"), vote(conflict, "丙", "reject"),
        vote(agreed, "乙"), vote(agreed, "丙"),
        vote(own, "甲"), vote(own, "乙", "reject"),
    )  # fmt: skip
    asked = [rows[i] for i in queue(rows, votes, "甲", flagged={3, 4}, double=1)]
    assert asked == [draft, draft2, flagged, alone, conflict, plain]
    assert [rows[i] for i in queue(rows, votes, "甲", flagged={3}, double=0)] == [
        draft, draft2, flagged, conflict, plain,
    ]  # fmt: skip
    # A reviewed draft is a conflict like any other, or done.
    votes.add(vote(draft, "丙"))
    assert draft not in [rows[i] for i in queue(rows, votes, "甲", double=0)]


def test_the_share_for_two_people_is_the_same_for_everybody(votes: Votes) -> None:
    rows = [row(f"问题{i}") for i in range(1000)]
    votes.add(*(vote(record, "甲") for record in rows))
    second = set(queue(rows, votes, "乙", double=0.2))
    assert 150 < len(second) < 250
    assert second == set(queue(rows, votes, "丙", double=0.2))
    assert second < set(queue(rows, votes, "乙", double=0.5))
    assert len(queue(rows, votes, "乙", double=1)) == 1000


def test_a_day_of_work(votes: Votes) -> None:
    rows = [row(f"问{i}", line=i + 1) for i in range(5)]
    work = Session(rows, votes, "甲", double=0)
    work.accept()
    assert work.current() is rows[1]
    assert work.edit("更好的答案")
    assert not work.edit("  ")
    assert not work.edit("答\n")
    work.skip()
    work.reject("不通")
    assert (work.current(), work.index) == (rows[4], 4)
    assert [v.verdict for r in rows for v in votes.get(r.id, ())] == ["accept", "edit", "reject"]
    assert votes[rows[1].id][0].edited[-1].content == "更好的答案"
    assert votes[rows[3].id][0].comment == "不通"
    progress = work.progress()
    assert (progress.done, progress.total, progress.today) == (3, 5, 3)


def test_a_new_session_goes_on(votes: Votes) -> None:
    rows = [row(f"问{i}") for i in range(4)]
    work = Session(rows, votes, "甲", double=0)
    work.accept()
    work.skip()
    again = Session(rows, Votes(votes.path), "甲", double=0)
    assert again.current() is rows[1], "the row that was skipped comes again"
    assert (again.progress().done, again.progress().total) == (1, 4)
    for _ in range(3):
        again.accept()
    assert again.current() is None
    assert again.progress().done == again.progress().total == 4
    assert Session(rows, Votes(votes.path), "甲").current() is None


def test_back_and_forth(votes: Votes) -> None:
    rows = [row(f"问{i}") for i in range(4)]
    work = Session(rows, votes, "甲", double=0)
    assert not work.back()
    assert work.own_vote is None
    work.accept()
    work.accept()
    assert work.back()
    assert work.back()
    assert work.current() is rows[0]
    assert work.own_vote.verdict == "accept"
    work.reject()
    assert work.current() is rows[2], "what was decided already is not shown again"
    assert votes[rows[0].id][0].verdict == "reject"
    work.accept()
    work.accept()
    assert work.current() is None
    assert work.own_vote is None
    assert (work.progress().done, work.progress().total) == (4, 4)
    work.accept()
    work.skip()
    assert work.back()
    assert work.current() is rows[3], "even after the end one can go back"


def test_two_at_work_do_not_do_the_same_rows(votes: Votes) -> None:
    rows = [row(f"问{i}") for i in range(6)]
    one = Session(rows, votes, "甲", double=0)
    other = Session(rows, Votes(votes.path), "乙", double=0)
    for _ in range(3):
        one.accept()
    other.accept()
    assert other.current() is rows[3]
    one.accept()
    while other.current() is not None:
        other.accept()
    assert other.progress().done == other.progress().total
    # Row 0 they both had on the table when they began; row 3 was already on the other's.
    assert [len(votes[r.id]) for r in rows if votes.refresh() is None] == [2, 1, 1, 2, 1, 1]


def test_a_row_that_another_took_may_still_be_judged(votes: Votes) -> None:
    rows = [row(f"问{i}") for i in range(3)]
    work = Session(rows, votes, "甲", double=0)
    Votes(votes.path).add(vote(rows[1], "乙"))
    work.skip()
    assert work.current() is rows[2], "what others did meanwhile is seen"
    assert work.progress().total == 2
    work.back()
    work.reject()
    assert (work.progress().done, work.progress().total) == (1, 3)


def test_a_conflict_goes_to_a_third(votes: Votes) -> None:
    rows = [row("一")]
    for who, judge in (("甲", Session.accept), ("乙", Session.reject), ("丙", Session.accept)):
        work = Session(rows, votes, who, ReviewOptions(agreement=0.6), double=1)
        assert work.current() is rows[0]
        judge(work)
    assert Session(rows, votes, "丁", double=1).current() is None
    asked = Session(rows, votes, "丁", ReviewOptions(agreement=0.7), double=1)
    assert asked.current() is rows[0], "two of three are less than was asked"


def test_rows_that_say_the_same_are_asked_once(votes: Votes) -> None:
    rows = [row("一"), row("二"), row("一 ")]
    work = Session(rows, votes, "甲", flags={1: ("refusal",)}, double=0)
    assert (work.current(), work.flags) == (rows[1], ("refusal",))
    work.accept()
    work.accept()
    assert work.current() is None
    assert (work.progress().done, work.progress().total) == (2, 2)


def test_today(votes: Votes, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("一"), row("二")]
    votes.add(vote(rows[0], "甲", when=time.time() - 2 * 86400))
    assert (Session(rows, votes, "甲").progress().done) == 1
    assert Session(rows, votes, "甲").progress().today == 0


def test_rows_may_be_read_one_by_one(votes: Votes) -> None:
    """Of a large file the session keeps no row."""

    class Rows:
        asked = 0

        def __len__(self) -> int:
            return 100

        def __getitem__(self, i: int):
            if i >= 100:
                raise IndexError
            Rows.asked += 1
            return row(f"问{i}")

    work = Session(Rows(), votes, "甲")
    Rows.asked = 0
    work.accept()
    assert Rows.asked < 5

"""The file of decisions: whatever happens to it, no decision that was taken is lost."""

import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError, RunError
from weitiao.records.options import ReviewOptions
from weitiao.records.record import Message
from weitiao.records.review import Vote, Votes, find_votes, load_votes, votes_path

TEXT = st.text(alphabet=st.characters(codec=None), max_size=8)  # halves of surrogate pairs too
EDITS = st.one_of(
    TEXT.filter(bool),
    st.lists(
        st.builds(Message, st.sampled_from(("user", "assistant")), TEXT, st.booleans()),
        min_size=1,
        max_size=3,
    ).map(tuple),
)
TIMES = st.integers(0, 2**33).map(lambda n: n / 8)
VOTES = st.one_of(
    st.builds(Vote, TEXT, TEXT, st.sampled_from(("accept", "reject")), TIMES, st.none(), TEXT),
    st.builds(Vote, TEXT, TEXT, st.just("edit"), TIMES, EDITS, TEXT),
)


@settings(max_examples=60, deadline=None)
@given(votes=st.lists(VOTES, max_size=6))
def test_what_is_written_is_read(votes: list[Vote], tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("votes") / "x.review.jsonl"
    Votes(path).add(*votes)
    last = {(vote.row, vote.reviewer): vote for vote in votes}
    read = load_votes(path)
    assert {(v.row, v.reviewer): v for row in read.values() for v in row} == last
    assert read.broken == 0


def test_half_a_character_is_written_too(votes: Votes) -> None:
    votes.add(Vote("1", "甲", "edit", 1, "茶\ud800"), Vote("2", "甲", "accept", 1))
    assert load_votes(votes.path)["1"][0].edited == "茶\ud800"
    assert "甲" in votes.path.read_text("utf-8"), "other lines can be read by people"


def test_the_last_vote_of_a_reviewer_counts(votes: Votes) -> None:
    votes.add(Vote("1", "甲", "accept", 1), Vote("1", "乙", "accept", 2))
    votes.add(Vote("1", "甲", "reject", 3))
    for seen in (votes, load_votes(votes.path)):
        assert [(v.reviewer, v.verdict) for v in seen["1"]] == [("乙", "accept"), ("甲", "reject")]
        assert seen.of("1", "甲").verdict == "reject"
    assert votes.path.read_bytes().count(b"\n") == 3, "nothing is ever taken out"


@pytest.mark.parametrize("lost", [1, 5, 40])
def test_half_a_line_is_passed_over_and_kept(votes: Votes, lost: int) -> None:
    votes.add(Vote("1", "甲", "accept", 1))
    whole = votes.path.stat().st_size
    votes.add(Vote("2", "甲", "reject", 2, comment="答非所问"))
    with votes.path.open("r+b") as file:
        file.truncate(votes.path.stat().st_size - lost)
    half = votes.path.read_bytes()[whole:]
    again = load_votes(votes.path)
    # A line that lacks only its line break is whole.
    assert set(again) == ({"1", "2"} if lost == 1 else {"1"})
    again.add(Vote("3", "乙", "accept", 3))
    assert {"1", "3"} <= set(again)
    assert set(load_votes(votes.path)) == set(again)
    assert half in votes.path.read_bytes()
    assert load_votes(votes.path).broken == again.broken == (lost != 1)


@pytest.mark.parametrize(
    "line",
    [
        "[]", "null", "{}", "不是 JSON", "[" * 5000,
        '{"row": "1", "reviewer": "a", "verdict": "maybe", "time": 1}',
        '{"row": "1", "reviewer": "a", "verdict": "edit", "time": 1}',
        '{"row": "1", "reviewer": "a", "verdict": "accept", "edited": "x", "time": 1}',
        '{"row": "1", "reviewer": "a", "verdict": "accept", "time": NaN}',
        '{"row": "1", "reviewer": "a", "verdict": "accept", "time": 1e99}',
        '{"row": 1, "reviewer": "a", "verdict": "accept", "time": 1}',
        '{"row": "1", "reviewer": "a", "verdict": "edit", "edited": [{"role": "user"}], "time": 1}',
        '{"row": "1", "reviewer": "a", "verdict": "edit", "edited": {"a": 1}, "time": 1}',
        '{"row": "1", "reviewer": "a", "verdict": "edit", "edited":'
        ' [{"role": "user", "content": 5}], "time": 1}',
    ],
)  # fmt: skip
def test_a_line_that_is_no_vote_is_counted(votes: Votes, line: str) -> None:
    votes.add(Vote("2", "甲", "accept", 1))
    with votes.path.open("a", encoding="utf-8") as file:
        file.write(line + "\n\n")
    again = load_votes(votes.path)
    assert (set(again), again.broken) == ({"2"}, 1)
    votes.path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds no review decisions"):
        load_votes(votes.path)


def _add_many(path: Path, reviewer: str) -> None:
    votes = Votes(path)
    for i in range(50):
        votes.add(Vote(str(i), reviewer, "accept", i, comment="话" * 500))


def test_several_processes_add_to_one_file(votes: Votes) -> None:
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_add_many, args=(votes.path, name)) for name in "甲乙丙"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    votes.refresh()
    assert votes.broken == 0
    assert {len(votes[str(i)]) for i in range(50)} == {3}


def test_votes_that_say_something_new(votes: Votes) -> None:
    known = Vote("1", "甲", "accept", 10.0004)
    votes.add(known)
    later, other = Vote("1", "甲", "reject", 11), Vote("1", "乙", "accept", 1)
    assert votes.newer([known, Vote("1", "甲", "reject", 9), later, other]) == [later, other]


def test_where_the_votes_are(tmp_path: Path) -> None:
    data = tmp_path / "tea.jsonl"
    assert votes_path(data) == tmp_path / "tea.review.jsonl"
    (tmp_path / "my.data").mkdir()
    assert votes_path(tmp_path / "my.data") == tmp_path / "my.data.review.jsonl"
    assert not find_votes(data, ReviewOptions())
    Votes(votes_path(data)).add(Vote("1", "甲", "accept", 1))
    assert list(find_votes(data, ReviewOptions())) == ["1"]
    named = tmp_path / "other.jsonl"
    with pytest.raises(DataError, match=r"other\.jsonl"):
        find_votes(data, ReviewOptions(file=str(named)))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    votes = Votes(tmp_path / "votes")
    votes.path = tmp_path / "file" / "votes"
    with pytest.raises(RunError, match="cannot be written"):
        votes.add(Vote("1", "甲", "accept", 1))


def test_a_full_disk() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    votes = Votes(Path("/nowhere"))
    votes.path = full
    with pytest.raises(RunError, match="disk is full"):
        votes.add(Vote("1", "甲", "accept", 1))


def _fill_up(path: Path) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))
    try:
        Votes(path).add(Vote("1", "甲", "accept", 1))
    except RunError:
        os._exit(7)


def test_a_disk_that_is_full_in_the_middle_of_a_line(votes: Votes) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_fill_up, args=(votes.path,))
    worker.start()
    worker.join()
    assert worker.exitcode == 7
    assert votes.path.stat().st_size == 30
    votes.add(Vote("2", "甲", "accept", 1))
    assert set(load_votes(votes.path)) == {"2"}

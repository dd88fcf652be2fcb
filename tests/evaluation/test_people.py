"""Answers matched, votes kept, counted and written out; nothing of it in a browser."""

import json
import sqlite3

import pytest
from scipy.stats import binomtest

from people_runs import people_run, write_answers
from weitiao import api
from weitiao.api import people
from weitiao.errors import DataError, RunError
from weitiao.evaluation.people import Review, Store, Vote, count_votes, load_people
from weitiao.evaluation.people.agreement import krippendorff_alpha
from weitiao.evaluation.people.present import facts, headline
from weitiao.evaluation.people.review import Asked
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.runs import Run

OPTIONS = EvaluateOptions(resamples=200)
YES, NO = (True, True, True), (False, None, None)
PAGE, OTHER = "1" * 32, "2" * 32


@pytest.fixture
def run(tmp_path):
    return people_run(tmp_path / "tea")


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "review.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def matched(run):
    return people.match([run])


def put(store, matched, reviewer, verdicts, **more):
    for row, better in zip(matched.rows, verdicts, strict=False):
        store.put(Vote(row.id, reviewer, better, **more))


def test_answers_are_matched_by_what_was_asked_not_by_their_place(tmp_path):
    one, other = people_run(tmp_path / "one"), people_run(tmp_path / "other", tuned="焖")
    tuned = [
        ("第2杯茶要泡几分钟", "三分钟。"),
        ("别的问题", "不知道。"),
        ("第1杯茶要泡几分钟", "泡2分钟。 "),
    ]
    write_answers(other.evaluation / "tuned.jsonl", tuned)
    found = people.match([one, other])
    assert (found.one, found.other) == ("one", "other")
    assert [row.answers for row in found.rows] == [("泡3分钟。", "三分钟。")]
    assert (found.identical, found.unmatched) == (1, 4 + 1)


def test_a_shorter_review_is_the_beginning_of_a_longer_one(run, matched):
    assert people.match([run], 2).rows == matched.rows[:2]
    assert len(matched.rows) == 6


def test_a_new_answer_is_another_row(tmp_path, matched):
    again = people.match([people_run(tmp_path / "again", tuned="焖")])
    assert not {row.id for row in again.rows} & {row.id for row in matched.rows}


def test_what_cannot_be_compared_is_said_in_a_sentence(tmp_path, run):
    strange, same = people_run(tmp_path / "strange"), people_run(tmp_path / "same")
    write_answers(strange.evaluation / "tuned.jsonl", [("别的问题", "不知道。")])
    whole = people_run(tmp_path / "whole")
    text = whole.evaluation / "tuned.jsonl"
    rows = [json.loads(line) for line in text.read_text(encoding="utf-8").splitlines()]
    text.write_text("\n".join(json.dumps({**row, "prompt": []}) for row in rows))
    empty = people_run(tmp_path / "empty")
    (empty.evaluation / "tuned.jsonl").write_text('{"row": 1, "of": "another version"}\n')
    gone = people_run(tmp_path / "gone")
    (gone.evaluation / "base.jsonl").unlink()
    cases = {
        "no_common": [run, strange], "all_same": [run, same],
        "no_answers": [empty], "passages": [whole],
    }  # fmt: skip
    for key, runs in cases.items():
        with pytest.raises(RunError, match=runs[-1].path.name) as caught:
            people.match(runs)
        assert caught.value.key == f"error.people_{key}"
    with pytest.raises(RunError, match=r"base\.jsonl is missing"):
        people.match([gone])


def test_votes_stay_and_a_second_thought_takes_the_first_ones_place(tmp_path, store):
    store.put(Vote("r", "Li", "one", YES, NO, "太长"))
    store.put(Vote("r", "Li", "other", NO, YES, "😀"))
    store.put(Vote("r", "Wang", "tie"))
    again = Store(tmp_path / "review.sqlite")
    assert [(v.reviewer, v.better) for v in again.votes()] == [("Li", "other"), ("Wang", "tie")]
    assert (again.votes()[0].one, again.votes()[0].comment) == (NO, "😀")
    assert again.seed == store.seed
    again.close()


def test_a_row_is_settled_by_the_last_who_settles_it(store):
    store.put(Vote("r", "Li", "one"))
    store.put(Vote("r", "Li", "other", final=True))
    store.put(Vote("r", "Zhao", "tie", final=True))
    assert [(v.reviewer, v.final) for v in store.votes()] == [("Li", False), ("Zhao", True)]


@pytest.mark.parametrize("what", ["version", "no database", "folder"])
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path, what):
    path = tmp_path / "review.sqlite"
    if what == "version":
        base = sqlite3.connect(path)
        base.execute("PRAGMA user_version = 9")
        base.execute("CREATE TABLE votes (row)")
        base.commit()
        base.close()
    elif what == "no database":
        path.write_text("no database " * 99)
    else:
        path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(RunError):
        Store(path)
    assert before is None or path.read_bytes() == before


def test_a_name_is_for_one_page_at_a_time(store, monkeypatch):
    assert store.enter("Li", PAGE)
    assert store.enter("Li", PAGE), "a page that is loaded again goes on"
    assert not store.enter("Li", OTHER)
    assert store.enter("Li", OTHER, take_over=True)
    assert store.reviewer_of(PAGE) is None
    assert store.enter("Wang", PAGE)
    monkeypatch.setattr("weitiao.evaluation.people.store.time.time", lambda: 4e9)
    assert store.enter("Wang", OTHER), "a page not heard of for long has no name any more"
    assert store.reviewer_of(PAGE) is None


def test_alpha_is_krippendorffs():
    """His own example of nominal data with four observers (2011, section C): 0.743."""
    columns = "11.1 2232 3333 3333 2222 1234 4444 1121 2222 .555 ..11 .3.."
    units = [[v for v in column if v != "."] for column in columns.split()]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha([["one"], []]) is None
    assert krippendorff_alpha([["one", "one"]]) == 1


def test_results_count_rows_and_a_tie_counts_half(matched, store):
    put(store, matched, "Li", ["other", "other", "other", "tie", "one"], one=NO, other=YES)
    found = count_votes(matched, store.votes(), OPTIONS)
    assert (found.one_better, found.ties, found.other_better) == (1, 1, 3)
    assert (found.rows, found.rows_to_judge, found.votes) == (5, 6, 5)
    assert found.win_rate.value == pytest.approx(0.7)
    assert found.win_rate.low < 0.7 < found.win_rate.high
    assert found.p_value == pytest.approx(binomtest(3, 4).pvalue)
    assert (found.outcome, found.agreement) == ("same", None)
    (correct,) = found.levels
    assert (correct.level, correct.rows) == ("correct", 5)
    assert (correct.one.value, correct.other.value, correct.difference.value) == (0, 1, 1)


def test_a_clear_preference_is_called_one(tmp_path):
    matched = people.match([people_run(tmp_path / "long", 12)])
    for better, said in (("other", "tuned better than base"), ("one", "base better than tuned")):
        votes = [Vote(row.id, "Li", better) for row in matched.rows]
        found = count_votes(matched, votes, OPTIONS)
        assert found.outcome == better
        assert said in headline(found, "en")
        assert "12" in headline(found, "zh")
        assert len(facts(found, "en")) == len(facts(found, "zh"))


def test_several_reviewers_agree_so_far_and_what_is_settled_counts(matched, store):
    put(store, matched, "Li", ["other", "other", "one", "tie"])
    put(store, matched, "Wang", ["other", "one", "one", "one"])
    found = count_votes(matched, store.votes(), OPTIONS)
    assert (found.other_better, found.ties, found.one_better) == (1, 2, 1), "even is a tie"
    assert found.agreement.rows == 4
    assert found.agreement.alike == 0.5
    # By hand: p_o = 1/2, p_e = (2·1 + 1·3) / 16.
    assert found.agreement.kappa == pytest.approx((1 / 2 - 5 / 16) / (11 / 16))
    assert (found.disputed, found.settled) == (2, 0)
    store.put(Vote(matched.rows[1].id, "Zhao", "other", final=True))
    found = count_votes(matched, store.votes(), OPTIONS)
    assert (found.other_better, found.ties, found.one_better) == (2, 1, 1)
    assert (found.settled, found.adjudicators, found.votes) == (1, ("Zhao",), 8)
    put(store, matched, "Zhao", ["other", "other"])
    found = count_votes(matched, store.votes(), OPTIONS)
    assert found.agreement.kappa is None
    assert found.reviewers == {"Li": 4, "Wang": 4, "Zhao": 2}


def test_results_are_written_and_another_version_is_refused(run, matched, tmp_path):
    assert people.results([run], matched) is None
    opened = Store(run.evaluation / "review.sqlite")
    put(opened, matched, "Li", ["other", "one"], comment="好 <b>")
    opened.close()
    found = people.results([run], matched)
    path = run.evaluation / "people.json"
    assert load_people(path) == found
    assert found.comments[0].text == "好 <b>"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(RunError, match=r"people\.json"):
        load_people(path)
    with pytest.raises(RunError):
        load_people(tmp_path / "none.json")


def review(matched, store):
    return Review(matched, store, OPTIONS)


def test_left_and_right_are_drawn_for_each_reviewer_and_row(tmp_path, store):
    matched = people.match([people_run(tmp_path / "long", 60)])
    asking, first = review(matched, store), {}
    for name, page in (("Li", PAGE), ("Wang", OTHER)):
        asking.join(Asked(page, name))
        shown = [asking.row(Asked(page, row=row.id))["answers"] for row in matched.rows]
        first[name] = [
            answers[0] == row.answers[0] for row, answers in zip(matched.rows, shown, strict=True)
        ]
        assert 15 < sum(first[name]) < 45
    assert first["Li"] != first["Wang"]


def test_a_vote_is_for_the_answer_that_was_shown_there(matched, store):
    asking = review(matched, store)
    asking.join(Asked(PAGE, " Li  Lei "))
    for row in matched.rows:
        a = asking.row(Asked(PAGE, row=row.id))["answers"][0]
        asking.vote(Asked(PAGE, row=row.id, better="a", a=YES, b=NO, comment=" 好 "))
        seen = asking.row(Asked(PAGE, row=row.id))["own"]
        assert (seen["better"], seen["a"], seen["b"], seen["comment"]) == ("a", YES, NO, "好")
        (vote,) = [vote for vote in store.votes() if vote.row == row.id]
        side = row.answers.index(a)
        assert vote.reviewer == "Li Lei"
        assert vote.better == ("one", "other")[side]
        assert (vote.one, vote.other)[side] == YES


def test_the_result_waits_until_nothing_is_left(matched, store):
    asking = review(matched, store)
    asking.join(Asked(PAGE, "Li"))
    for row in matched.rows:
        with pytest.raises(RunError, match="every row is judged"):
            asking.results(Asked(PAGE))
        asking.vote(Asked(PAGE, row=row.id, better="a"))
    assert "tuned" in asking.results(Asked(PAGE))["en"]["headline"]


def test_only_disagreements_are_settled_and_by_one_who_is_named(matched, store):
    put(store, matched, "Wang", ["one"] * 6)
    put(store, matched, "Li", ["one", "other", "tie"], comment="短")
    asking = review(matched, store)
    with pytest.raises(RunError, match="another page"):
        asking.list(Asked(PAGE, final=True))
    asking.join(Asked(PAGE, "Zhao"))
    rows = asking.list(Asked(PAGE, final=True))["rows"]
    assert [row["id"] for row in rows] == [row.id for row in matched.rows[1:3]]
    for left, row in enumerate(rows):
        said = asking.row(Asked(PAGE, row=row["id"], final=True))["said"]
        assert {vote["reviewer"] for vote in said} == {"Li", "Wang"}
        assert asking.row(Asked(PAGE, row=row["id"]))["said"] == []
        asking.vote(Asked(PAGE, row=row["id"], final=True, better="tie"))
        assert sum(r["done"] for r in asking.list(Asked(PAGE, final=True))["rows"]) == left + 1
    assert asking.results(Asked(PAGE))["open"] == 0


def test_names_that_are_none_and_rows_that_are_none_are_refused(matched, store):
    asking = review(matched, store)
    for name in ("", "  ", "Li\x00", "\u202eLi"):
        with pytest.raises(RunError, match="name"):
            asking.join(Asked(PAGE, name))
    asking.join(Asked(PAGE, "Li"))
    with pytest.raises(RunError, match="two names"):
        asking.join(Asked(OTHER, "Li"))
    with pytest.raises(RunError, match="part of the review"):
        asking.vote(Asked(PAGE, row="../../etc/passwd"))


@pytest.fixture
def voted(run, matched):
    """Six rows: three have a winner, of which one is wrong; two are ties; one nobody judged."""
    opened = Store(run.evaluation / "review.sqlite")
    put(opened, matched, "Li", ["other", "one", "other", "tie", "tie"])
    opened.put(Vote(matched.rows[0].id, "Li", "other", YES, NO))
    opened.close()
    return run


def test_accepted_answers_are_rows_that_the_records_stage_keeps(voted, matched, tmp_path):
    path = tmp_path / "best.jsonl"
    done = people.export([voted], matched, "answers", str(path))
    assert (done.rows, done.ties, done.wrong) == (2, 2, 1)
    checked = api.check(api.recipe_for(str(path)), tokens=False)
    assert (checked.report.rows, checked.report.kept) == (2, 2)
    wanted = [
        (row.question, row.answers[side])
        for row, side in zip(matched.rows[1:], (0, 1), strict=False)
    ]
    assert [(record.asked, record.answer) for record in checked.records] == wanted
    with pytest.raises(DataError, match=r"best\.jsonl"):
        people.export([voted], matched, "answers", str(path))


def test_preferences_are_rows_that_the_records_stage_knows_as_such(voted, matched, tmp_path):
    path = tmp_path / "pairs.jsonl"
    assert people.export([voted], matched, "preferences", str(path)).rows == 2
    first = json.loads(path.read_text().splitlines()[0])
    row = matched.rows[1]
    assert first == {
        "prompt": [{"role": "user", "content": row.question}],
        "chosen": [{"role": "assistant", "content": row.answers[0]}],
        "rejected": [{"role": "assistant", "content": row.answers[1]}],
    }
    with pytest.raises(DataError) as caught:
        api.check(api.recipe_for(str(path)), tokens=False)
    assert caught.value.key == "error.preference_data"


def test_without_a_winner_nothing_is_written(run, matched, tmp_path):
    assert people.export([run], matched, "answers", str(tmp_path / "none.jsonl")).rows == 0
    assert not (tmp_path / "none.jsonl").exists()


def test_two_runs_meet_the_same_votes_in_either_order(tmp_path):
    one, other = people_run(tmp_path / "one"), people_run(tmp_path / "other", tuned="焖")
    there, back = [one, other], [other, one]
    matched = people.match(back)
    assert (matched.one, matched.other) == ("one", "other")
    assert matched == people.match(there)
    with people.reviewing(back, matched, 0):
        opened = Store(one.evaluation / "review.sqlite")
    put(opened, matched, "Li", ["other"] * 6)
    opened.close()
    found = [people.results(runs, people.match(runs)) for runs in (there, back)]
    assert found[0] == found[1]
    assert (found[0].other, found[0].other_better) == ("other", 6)
    assert "other better than one" in headline(found[0], "en")
    written = [path.name for path in tmp_path.glob("*/evaluation/people-*.json")]
    assert written == ["people-other.json"]
    best = tmp_path / "best.jsonl"
    assert people.export(back, people.match(back), "answers", str(best)).rows == 6
    assert "焖1分钟" in best.read_text(encoding="utf-8")


def test_votes_from_before_a_run_had_its_name_are_met_again(tmp_path):
    """They stand with the run that was the first by name then."""
    late, early = people_run(tmp_path / "z"), people_run(tmp_path / "m", tuned="焖")
    matched = people.match([early, late])
    assert matched.one == "m"
    opened = Store(early.evaluation / "review.sqlite")
    put(opened, matched, "Li", ["one"] * 4)
    opened.close()
    late.path.rename(tmp_path / "a")
    runs = [Run(tmp_path / "a"), early]
    for order in (runs, runs[::-1]):
        found = people.results(order, people.match(order))
        assert (found.one, found.other, found.one_better) == ("m", "a", 4)

"""The judge, against a service on this machine that speaks the protocol."""

import json
import re
import time
from collections import Counter
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
from scipy.stats import binomtest
from test_compare import answered

from chat_service import Reply, serving
from weitiao import endpoint as client
from weitiao.endpoint import Endpoint, EndpointError
from weitiao.errors import DataError, RecipeError, RunError
from weitiao.evaluation.judge import (
    judge_answers,
    judge_sentences,
    load_judged,
    require_affordable,
    settings_of,
)
from weitiao.evaluation.judge.prompts import LEVELS, STORY_LEVELS, read_vote, request
from weitiao.evaluation.proportions import sign_test, win_rate
from weitiao.evaluation.suite import load_suite
from weitiao.events import EventLog
from weitiao.plan.recipe import load_recipe
from weitiao.words import LANGUAGES

SUITE = load_suite()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)


def rows(tuned, base="不好"):
    """One row for each answer in ``tuned``, all of them against ``base``."""
    wanted = [answered(i, text, "参考") for i, text in enumerate(tuned)]
    return [replace(row, answer=base) for row in wanted], wanted


def shown(asked):
    """The answers A and B in a request."""
    text = asked["messages"][0]["content"]
    return [re.search(f"<answer_{x}>\n(.*?)\n</answer_{x}>", text, re.DOTALL)[1] for x in "ab"]


def said(winner, a=3, b=3, levels=LEVELS):
    given = {side: dict.fromkeys(levels, n) for side, n in (("A", a), ("B", b))}
    return json.dumps({**given, "why": "因为", "winner": winner}, ensure_ascii=False)


def fair(asked):
    """A judge that looks for 好 and for nothing else."""
    a, b = (5 if "好" in text and "不" not in text else 2 for text in shown(asked))
    return said("tie" if a == b else "A" if a > b else "B", a, b)


def recipe(*settings):
    return load_recipe(None, ["evaluate.resamples=200", *settings])


def judged(service, folder, pairs, *settings, suite=SUITE, events=None, max_requests=100):
    asked = recipe("evaluate.judge.enabled=true", "endpoint.model=m", *settings)
    cache = folder / "cache.sqlite"
    with Endpoint(service.url, "m", "NO_SUCH_KEY", max_requests, 3, 30.0, cache) as endpoint:
        return judge_answers(
            *pairs, endpoint, asked, suite, folder / "judge.json", events or EventLog()
        )


def test_a_row_is_won_only_where_both_orders_say_so(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    with serving(fair) as service:
        found = judged(service, tmp_path, rows(["好"] * 12 + ["不行"] * 4), events=log)
    assert (found.rows, found.wins, found.ties, found.losses) == (16, 12, 4, 0)
    assert len(service.requests) == found.requests == 32
    assert Counter(tuple(shown(r)) for r in service.requests)["好", "不好"] == 12
    assert all(r["temperature"] == 0 for r in service.requests)
    assert found.win_rate.value == 14 / 16
    assert found.p_value == pytest.approx(2 / 2**12)
    assert (found.disagreed, found.left_out) == (0, {})
    assert (found.prompt_tokens, found.completion_tokens) == (32 * 7, 32 * 3)
    assert [line.name for line in found.rubric] == list(LEVELS)
    assert found.rubric[0].tuned.value == pytest.approx((12 * 5 + 4 * 2) / 16)
    assert found.rubric[0].base.value == 2
    assert not found.rubric[0].difference.contains(0)
    assert found.verdicts[0].why == "因为"
    assert load_judged(tmp_path / "judge.json") == found
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[0]["kind"] == "judge.estimate"
    assert (events[0]["requests"], events[0]["cost"]) == (32, None)
    assert [e["done"] for e in events if e["kind"] == "judge.progress"] == list(range(1, 17))
    for language in LANGUAGES:
        assert "12" in judge_sentences(found, language)[0]


def test_a_judge_that_always_takes_the_first_decides_nothing(tmp_path):
    with serving(lambda asked: said("A", 5, 1)) as service:
        found = judged(service, tmp_path, rows(["好"] * 6))
    assert (found.wins, found.ties, found.losses, found.disagreed) == (0, 6, 0, 1)
    assert found.p_value is None
    assert found.rubric[0].difference.value == 0
    assert "100%" in judge_sentences(found, "en")[1]


def test_the_same_is_never_asked_twice(tmp_path):
    with serving(fair) as service:
        first = judged(service, tmp_path, rows(["好", "坏", "很好"]))
        again = judged(service, tmp_path, rows(["好", "坏", "很好"]))
        assert len(service.requests) == 6
        judged(service, tmp_path, rows(["好", "坏", "很好"]), "evaluate.judge.instructions=要短")
        assert len(service.requests) == 12
        assert "要短" in service.requests[-1]["messages"][0]["content"]
    assert replace(again, cached=0) == first
    assert again.cached == 6


def test_a_judge_that_stops_in_the_middle_loses_nothing(tmp_path):
    numbers = count()

    def tired(asked):
        return fair(asked) if next(numbers) < 8 else Reply(b"{}", 400)

    pairs = rows([f"好{i}" for i in range(10)])
    with serving(tired) as service:
        with pytest.raises(EndpointError, match="400"):
            judged(service, tmp_path, pairs)
        assert not (tmp_path / "judge.json").exists()
        assert len(service.requests) < 20
        numbers = count(-100)
        found = judged(service, tmp_path, pairs)
    assert found.wins == 10
    assert 0 < found.cached <= 8


def test_nonsense_is_asked_about_once_more_and_then_put_aside(tmp_path):
    def odd(asked):
        again = len(asked["messages"]) == 3
        a, b = shown(asked)
        if "谜" in a + b or ("晚" in a + b and not again):
            return "我不知道"
        return fair(asked)

    with serving(odd) as service:
        found = judged(service, tmp_path, rows(["好", "谜", "好，晚", "好"]))
    assert (found.rows, found.wins, found.left_out) == (3, 3, {"nonsense": 1})
    assert found.requests == 2 + 2 + 4 + 2
    assert any("1" in line for line in judge_sentences(found, "zh")[1:])


def test_nothing_but_nonsense_is_one_sentence_and_few_requests(tmp_path):
    polite = serving(lambda asked: "很高兴为您服务")
    with polite as service, pytest.raises(EndpointError, match="很高兴") as told:
        judged(service, tmp_path, rows([f"好{i}" for i in range(30)]))
    assert told.value.key == "error.judge_nonsense"
    assert len(service.requests) <= 2 * (5 + 6)


def test_one_silent_row_is_left_out(tmp_path):
    def broken(asked):
        return Reply(b"no", 400) if "坏" in "".join(shown(asked)) else fair(asked)

    with serving(broken) as service:
        found = judged(service, tmp_path, rows(["好", "坏", "好"]))
    assert (found.rows, found.left_out) == (2, {"no_answer": 1})


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["max_tokens_total=500"], "error.judge_tokens"),
        (["max_cost=0.001", "price_in=2", "price_out=8"], "error.judge_cost"),
    ],
)
def test_what_costs_too_much_is_refused_before_it_begins(tmp_path, settings, key):
    with serving(fair) as service, pytest.raises(RecipeError) as told:
        judged(service, tmp_path, rows(["好"] * 9), *(f"evaluate.judge.{s}" for s in settings))
    assert told.value.key == key
    limit = settings[0].partition("=")[2]
    for language in LANGUAGES:
        sentence = told.value.sentence(language)
        assert limit in sentence
        assert str(told.value.values["needed"]) in sentence
    assert service.requests == []


def counting(used, pause=0.0):
    """A judge that counts as ``used`` says: request → (tokens sent, tokens answered)."""

    def script(asked):
        time.sleep(pause)
        choice = {"message": {"content": fair(asked)}, "finish_reason": "stop"}
        counts = dict(zip(("prompt_tokens", "completion_tokens"), used(asked), strict=True))
        return Reply(json.dumps({"choices": [choice], "usage": counts}).encode())

    return script


def size_of(asked):
    return len(asked["messages"][0]["content"].encode())


@pytest.mark.parametrize(
    ("used", "settings", "key"),
    [
        # Each reply is as long as was allowed.
        (lambda r: (size_of(r), r["max_tokens"]), ["max_tokens_total=50000"], "tokens"),
        (
            lambda r: (size_of(r), r["max_tokens"]),
            ["max_cost=0.5", "price_in=4", "price_out=30"],
            "cost",
        ),
        (lambda r: (size_of(r), 150), ["max_cost=0.1", "price_in=4"], "cost"),
        # A service that counts far more than was sent; the first goes alone and shows it.
        (lambda r: (25 * size_of(r), 5), ["max_tokens_total=60000"], "tokens"),
    ],
    ids=["tokens", "cost", "cost sent", "dear"],
)
def test_requests_under_way_do_not_pass_the_cap(tmp_path, used, settings, key):
    spent = []

    def counted(asked):
        spent.append(used(asked))
        return spent[-1]

    named = [f"evaluate.judge.{setting}" for setting in settings]
    with serving(counting(counted, 0.02)) as service, pytest.raises(RecipeError) as told:
        judged(service, tmp_path, rows([f"好{i}" for i in range(25)]), *named)
    assert told.value.key == f"error.judge_{key}_spent"
    sent, answered_ = (sum(side) for side in zip(*spent, strict=True))
    bill = (
        sent + answered_
        if key == "tokens"
        else (4 * sent + 30 * answered_ * (len(settings) == 3)) / 1e6
    )
    limit = float(settings[0].partition("=")[2])
    assert 0.6 * limit < bill <= limit
    assert told.value.values["limit"] in told.value.sentence("zh")


def test_what_fits_within_the_cap_is_judged_and_together(tmp_path):
    pairs = rows([f"好{i}" for i in range(8)])
    with serving(counting(lambda r: (400, 100), 0.02)) as service:
        found = judged(service, tmp_path, pairs, "evaluate.judge.max_tokens_total=100000")
        assert (found.rows, service.most_at_once) == (8, 3)
        assert {r["max_tokens"] for r in service.requests} == {4096}
        again = judged(service, tmp_path, pairs, "evaluate.judge.max_tokens_total=90000")
        assert (again.cached, len(service.requests)) == (16, 16)
    # The last replies may be no longer than what is left.
    with serving(counting(lambda r: (400, 100))) as service:
        tight = judged(service, tmp_path / "t", pairs, "evaluate.judge.max_tokens_total=11000")
    assert tight.rows == 8
    assert 240 <= service.requests[-1]["max_tokens"] < 4096


def test_a_service_that_counts_nothing_is_counted_by_the_bytes(tmp_path):
    pairs = rows([f"好{i}" for i in range(25)])
    with serving(counting(lambda r: (0, 0))) as service, pytest.raises(RecipeError) as told:
        judged(service, tmp_path, pairs, "evaluate.judge.max_tokens_total=50000")
    assert told.value.key == "error.judge_tokens_spent"
    assert sum(map(size_of, service.requests)) < 50000


def test_a_service_that_wants_another_name_for_the_limit_gets_it(tmp_path):
    def newer(asked):
        if "max_tokens" in asked:
            said = "Unsupported parameter: use 'max_completion_tokens' instead."
            return Reply(json.dumps({"error": {"message": said}}).encode(), 400)
        return fair(asked)

    pairs = rows(["好"] * 6)
    with serving(newer) as service:
        found = judged(service, tmp_path, pairs, "evaluate.judge.max_tokens_total=50000")
    assert found.wins == 6
    assert sum("max_tokens" in r for r in service.requests) == 1
    with serving(fair) as service:
        judged(service, tmp_path / "free", pairs)
    assert not any("max_tokens" in r for r in service.requests)


def test_the_cost_is_told(tmp_path):
    log = EventLog(tmp_path / "e")
    with serving(fair) as service:
        prices = ("evaluate.judge.price_in=1000000", "evaluate.judge.price_out=0")
        found = judged(service, tmp_path, rows(["好"] * 4), *prices, events=log)
    assert found.cost == 8 * 7
    assert json.loads((tmp_path / "e").read_text().splitlines()[0])["cost"] > 0


def test_settings_that_cannot_hold_are_refused_at_the_start():
    for settings, key in (
        (["endpoint.max_requests=10"], "error.judge_requests"),
        (["evaluate.judge.max_cost=1"], "error.judge_no_price"),
    ):
        with pytest.raises(RecipeError) as told:
            require_affordable(recipe(*settings))
        assert told.value.key == key
    require_affordable(recipe("evaluate.rows=5", "endpoint.max_requests=10"))


def test_at_most_as_many_rows_as_asked_for(tmp_path):
    with serving(fair) as service:
        found = judged(service, tmp_path, rows(["好"] * 9), "evaluate.judge.rows=4")
        assert (found.rows, len(service.requests)) == (4, 8)
        nothing = [replace(row, prompt=()) for row in rows(["好"])[0]]
        with pytest.raises(DataError):
            judged(service, tmp_path, (nothing, nothing))


def test_stories_are_asked_for_their_plot_and_values(tmp_path):
    with serving(lambda asked: said("tie", levels=STORY_LEVELS)) as service:
        found = judged(service, tmp_path, rows(["好"] * 3), suite=load_suite("story"))
    assert [line.name for line in found.rubric] == [*LEVELS, "plot", "values"]
    assert "转折" in service.requests[0]["messages"][0]["content"]


def test_the_judge_is_asked_in_the_rows_language():
    row = answered(0, "x", "参考")
    (chinese,) = request(row, "甲", "乙", LEVELS, None)
    assert "请比较" in chinese["content"]
    assert "参考" in chinese["content"]
    english = replace(row, reference="", prompt=(("user", "Why {x}?"),))
    (asked,) = request(english, "a {b}", "c", LEVELS, "be brief")
    assert "Why {x}?" in asked["content"]
    assert "a {b}" in asked["content"]
    assert "<reference>" not in asked["content"]
    assert "be brief" in asked["content"]
    talk = replace(english, prompt=(("system", "S"), ("user", "Q1"), ("assistant", "A1")))
    assert "[assistant]\nA1" in request(talk, "a", "b", LEVELS, None)[0]["content"]


@pytest.mark.parametrize(
    ("reply", "winner"),
    [
        (said("A"), "A"),
        ("```json\n" + said("b") + "\n```", "B"),
        ('<think>{"winner": "A"}</think>好的：' + said(" Tie "), "tie"),
        (said("平局").replace("3", '"4/5"'), "tie"),
        (said("A").replace('"correct"', '"Correct"'), "A"),
        (said("C"), None),
        (said("A", a=6), None),
        (said("A", a=0), None),
        (said("A").replace('"readers": 3, ', "").replace(', "readers": 3', ""), None),
        ('{"winner": "A"}', None),
        (said("A")[:40], None),
        ("[1, 2]", None),
        ("", None),
        ("{" * 5000, None),
    ],
)
def test_replies_are_read_tolerantly(reply, winner):
    vote = read_vote(reply, LEVELS)
    assert (vote and vote.winner) == winner


def test_shares_and_signs_agree_with_scipy():
    for wins, losses in ((0, 1), (7, 3), (12, 12), (30, 11), (400, 350), (1000, 900)):
        both = binomtest(wins, wins + losses)
        assert sign_test(wins, losses) == pytest.approx(both.pvalue)
        interval = both.proportion_ci(0.95, "wilson")
        found = win_rate(wins, 0, losses, 0.95)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert sign_test(0, 0) is None
    assert win_rate(1, 2, 1, 0.95).value == 0.5


def test_a_verdict_of_another_version_is_a_sentence(tmp_path):
    (tmp_path / "judge.json").write_text("{}")
    for name in ("judge.json", "none.json"):
        with pytest.raises(RunError, match="weitiao eval"):
            load_judged(tmp_path / name)


def test_other_settings_and_other_answers_are_another_verdict():
    def settings(*overrides, suite=SUITE, said="yes"):
        answer = SimpleNamespace(key="k", answer=said)
        return settings_of(recipe(*overrides), suite, [answer], [answer])

    one = settings("endpoint.model=a")
    assert one == settings("endpoint.model=a", "endpoint.timeout=7")
    assert one != settings("endpoint.model=b")
    assert one != settings("endpoint.model=a", "evaluate.judge.rows=3")
    assert one != settings("endpoint.model=a", suite=load_suite("story"))
    assert one != settings("endpoint.model=a", said="no")

"""Parts of the page: differences between answers, and the plot of all changes."""

from dataclasses import replace
from math import inf
from types import SimpleNamespace

import pytest
from test_compare import OBJECTS, OPTIONS, POEMS, both

from weitiao.evaluation.compare import ScoreResult, compare
from weitiao.evaluation.examples import Example, examples, turned
from weitiao.evaluation.report.differences import GAP, marked_answers
from weitiao.evaluation.report.forest import forest
from weitiao.evaluation.resample import Estimate
from weitiao.evaluation.suite import SCORES
from weitiao.evaluation.units import pieces


def example(reference: str, base: str, tuned: str) -> Example:
    return Example("loss", 0, "q", reference, base, tuned, 1.0, 0.0)


def marked(kind: str, reference: str, base: str, tuned: str):
    return marked_answers(SimpleNamespace(kind=kind), example(reference, base, tuned))


@pytest.mark.parametrize("text", ["", "  ", "  你好, world!\n再见 ", '{"a": "b_c"}', "🙂e\u0301"])
def test_pieces_are_the_text_again(text):
    assert "".join(pieces(text)) == text


def test_json_is_compared_with_the_reference():
    wanted = '{"intent": "查余额", "n": "2801"}'
    base, tuned = marked("json", wanted, wanted, '{"intent": "none", "n": "2801"}')
    assert base == [("", wanted)]
    assert ("mark", "none") in tuned
    assert "".join(text for _, text in tuned) == '{"intent": "none", "n": "2801"}'


def test_what_is_missing_leaves_a_gap():
    _, tuned = marked("short", "一二三四五", "", "一二四五")
    assert tuned == [("", "一二"), ("mark", GAP), ("", "四五")]


def test_text_is_compared_with_the_other_answer():
    base, tuned = marked("text", "", "The cat sat on a mat.", "The cat lay on a mat.")
    assert base == [("", "The cat "), ("del", "sat "), ("", "on a mat.")]
    assert tuned == [("", "The cat "), ("ins", "lay "), ("", "on a mat.")]


def test_one_character_in_common_is_no_sameness():
    base, _ = marked("text", "", "春天来了我们去看海吧真好", "春天来了他俩想看书呢真好")
    assert base == [("", "春天来了"), ("del", "我们去看海吧"), ("", "真好")]


def test_texts_with_little_in_common_are_not_marked():
    assert marked("text", "", "天气真好", "abc") == ([("", "天气真好")], [("", "abc")])
    assert marked("text", "", "", "") == ([("", "")], [("", "")])


def test_the_worst_losses_are_those_that_were_right():
    references = OBJECTS[:4]
    half = '{"intent": "i0", "slots": {"n": "x"}}'
    # Row 0: half of it right before, nothing now; row 1: right before, half of it now.
    base, tuned = [half, references[1], "", ""], ["", references[1].replace('"1"', '"9"'), "", ""]
    score = SCORES["json_fields"]
    pairs = list(zip(*both(base, tuned, references), strict=True))
    found = [e for e in examples(pairs, score, 1, 0) if e.why == "loss"]
    assert [(e.row, e.base_score, e.tuned_score) for e in found] == [(1, 1, 0.5), (0, 0.5, 0)]
    counted = turned(pairs, score)
    assert (counted.rows, counted.wrong, counted.right) == (4, 1, 0)
    assert turned(pairs, SCORES["rouge_l"]) is None
    # Whoever wants no examples still learns what got worse.
    assert list(examples(pairs, score, 0, 0)) == found


def plot(*lines: ScoreResult):
    results = compare(*both(POEMS, POEMS, POEMS), OPTIONS)
    return forest(replace(results, scores=lines))


def scored(name: str, change: Estimate, effect: float | None) -> ScoreResult:
    return ScoreResult(
        name, 100, Estimate(0.0), Estimate(0.0), change, 0.01, "better", None, 0.01, effect
    )


def test_better_is_to_the_right_whichever_way_a_score_goes():
    loss = scored("answer_loss", Estimate(-1.0, -1.2, -0.8), -0.5)
    match = scored("exact_match", Estimate(0.2, 0.1, 0.3), 0.5)
    toxic = scored("toxicity", Estimate(0.2, 0.1, 0.3), 0.5)
    drawn = plot(loss, match, toxic, scored("length", Estimate(9.0, 8.0, 10.0), 2.0))
    assert [(line.name, effect) for line, effect, _ in drawn.rows] == [
        ("answer_loss", 0.5),
        ("exact_match", 0.5),
        ("toxicity", -0.5),
    ]
    places = {tick.label: tick.at for tick in drawn.ticks}
    assert places["−0.5"] < places["0"] < places["+0.5"]
    assert f"M{places['+0.5']:.2f} 50h0" in drawn.rows[1][2]


def test_no_change_and_the_same_change_everywhere_have_their_places():
    none = scored("rouge_l", Estimate(0.0, -0.1, 0.1), 0.0)
    alike = scored("json_valid", Estimate(1.0, 1.0, 1.0), None)
    still = scored("stop_rate", Estimate(0.0, 0.0, 0.0), None)
    drawn = plot(none, alike, still)
    assert [effect for _, effect, _ in drawn.rows] == [0, inf, 0]
    assert "M100.00 50h0" in drawn.rows[1][2]
    # ±0.1 is 1.96 errors of the mean of 100 rows: ±0.196 of a row's.
    assert "nan" not in "".join(svg for *_, svg in drawn.rows)
    low = drawn.rows[0][2].split('class="better" d="M')[1]
    assert 20 < float(low.split()[0]) < 50


def test_a_set_without_intervals_has_no_plot():
    assert plot(ScoreResult("distinct_2", 9, *[Estimate(0.1)] * 3, None, None)) is None

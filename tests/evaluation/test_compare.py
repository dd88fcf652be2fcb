"""The verdict and its reasons: found where there is an effect, and only there."""

import json

import pytest

from weitiao.errors import DataError
from weitiao.evaluation.answers import Answered
from weitiao.evaluation.compare import compare
from weitiao.evaluation.present import caution_sentence, score_how, score_name, verdict_sentence
from weitiao.evaluation.suite import DISTINCT, SCORES, kind_of, load_suite
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.words import LANGUAGES

OPTIONS = EvaluateOptions(resamples=300)


def answered(row, answer, reference, *, loss=20.0, tokens=10, stopped=True):
    return Answered(
        row=row,
        key="k",
        file="f.jsonl",
        line=row + 1,
        prompt=(("system", "s"), ("user", f"问题{row}")),
        reference=reference,
        text=answer,
        answer=answer,
        stopped=stopped,
        tokens=len(answer),
        loss_sum=loss,
        loss_tokens=tokens,
        seconds=0.1,
    )


def both(base, tuned, references, **tuned_values):
    return (
        [answered(i, a, r) for i, (a, r) in enumerate(zip(base, references, strict=True))],
        [
            answered(i, a, r, **tuned_values)
            for i, (a, r) in enumerate(zip(tuned, references, strict=True))
        ],
    )


POEMS = [f"第{i}首：床前明月光，疑是地上霜，举头望明月，低头思故乡。" for i in range(40)]
OBJECTS = [json.dumps({"intent": f"i{i % 4}", "slots": {"n": str(i)}}) for i in range(40)]


def test_the_kind_is_told_by_the_references():
    assert kind_of(OBJECTS) == "json"
    assert kind_of([*OBJECTS[:9], "好"]) == "json"
    assert kind_of([*OBJECTS[:8], "好", "坏"]) != "json"
    assert kind_of(["好评", "差评"] * 10) == "short"
    assert kind_of(["这段话说得很正面", "这段话说得很负面"] * 10) == "short"
    assert kind_of(POEMS[:2] * 20) == "text"
    assert kind_of(POEMS) == "text"
    assert kind_of(["", ""]) == "passage"


def test_json_is_judged_by_its_fields():
    results = compare(*both(["不知道"] * 40, OBJECTS, OBJECTS), OPTIONS)
    assert (results.verdict.outcome, results.verdict.score) == ("better", "json_fields")
    line = results.score("json_fields")
    assert (line.base.value, line.tuned.value) == (0, 1)
    assert [f.name for f in results.fields] == ["field:intent", "field:slots.n"]
    assert results.score("json_valid").change == "better"


def test_a_field_that_few_rows_have_counts_only_there():
    references = [r if i < 30 else '{"intent": "x"}' for i, r in enumerate(OBJECTS)]
    results = compare(*both([""] * 40, references, references), OPTIONS)
    assert results.score("field:slots.n").rows == 30
    assert results.score("field:intent").rows == 40


def test_text_is_judged_by_the_answer_loss():
    base, tuned = both(POEMS, POEMS, POEMS, loss=12.0)
    results = compare(base, tuned, OPTIONS)
    assert (results.verdict.outcome, results.verdict.score) == ("better", "answer_loss")
    assert results.score("answer_loss").difference.value == pytest.approx(-0.8)
    assert results.score("perplexity").tuned.value == pytest.approx(2.718281828**1.2)
    assert compare(tuned, base, OPTIONS).verdict.outcome == "worse"


def test_the_loss_is_weighted_by_tokens():
    base = [answered(i, "", POEMS[i], loss=1.0, tokens=1) for i in range(5)]
    base += [answered(i, "", POEMS[i], loss=30.0, tokens=10) for i in range(5, 10)]
    found = compare(base, base, OPTIONS).score("answer_loss")
    assert found.base.value == pytest.approx(155 / 55)
    assert found.base.low < 155 / 55 < found.base.high


def test_a_model_against_itself_shows_no_difference():
    base, tuned = both(POEMS, POEMS, POEMS)
    results = compare(base, tuned, OPTIONS)
    assert results.verdict.outcome == "same"
    assert {line.change for line in results.scores if line.change} == {"same"}
    assert all(line.p_value == 1 for line in results.scores if line.p_value is not None)


@pytest.mark.parametrize("rows", [1, 4])
def test_few_rows_cannot_tell(rows):
    base, tuned = both([""] * rows, POEMS[:rows], POEMS[:rows], loss=1.0)
    results = compare(base, tuned, OPTIONS)
    assert results.verdict.outcome == "cannot_tell"
    assert str(rows) in verdict_sentence(results, "en")


def test_five_rows_the_same_way_may_still_be_chance():
    base, tuned = both([""] * 5, POEMS[:5], POEMS[:5], loss=1.0)
    results = compare(base, tuned, OPTIONS)
    assert results.score("answer_loss").difference.high < 0
    assert results.verdict.outcome == "same"
    assert (
        compare(*both([""] * 9, POEMS[:9], POEMS[:9], loss=1.0), OPTIONS).verdict.outcome
        == "better"
    )


def test_nothing_to_compare_is_a_sentence():
    with pytest.raises(DataError, match="test"):
        compare([], [], OPTIONS)


def test_short_answers_are_judged_by_exact_match_and_have_no_bleu():
    references = ["好评", "差评"] * 20
    results = compare(*both(["好评"] * 40, references, references), OPTIONS)
    assert (results.verdict.outcome, results.verdict.score) == ("better", "exact_match")
    assert "bleu" not in [line.name for line in results.scores]


def test_what_got_worse_is_said_beside_the_verdict():
    base, tuned = both(POEMS, [p * 3 for p in POEMS], POEMS, loss=12.0, stopped=False)
    results = compare(base, tuned, OPTIONS)
    assert results.verdict.outcome == "better"
    assert {"stop_rate", "repetition", "rouge_l"} <= set(results.verdict.cautions)
    assert "stops by itself" in caution_sentence(results, "stop_rate", "en")


def test_a_loss_that_is_no_number_leaves_the_words():
    base, tuned = both(POEMS, [""] * 40, POEMS, loss=None)
    results = compare(base, tuned, OPTIONS)
    assert (results.verdict.outcome, results.verdict.score) == ("worse", "rouge_l")


def test_passages_have_a_loss_and_nothing_else():
    results = compare(*both([""] * 20, [""] * 20, [""] * 20, loss=12.0), OPTIONS)
    assert [line.name for line in results.scores] == ["answer_loss", "perplexity"]
    assert results.verdict.outcome == "better"
    assert results.examples == ()


def test_examples_show_gains_losses_and_a_lot():
    tuned = [p if i < 30 else "" for i, p in enumerate(POEMS)]
    base = ["" if i < 20 else p for i, p in enumerate(POEMS)]
    results = compare(*both(base, tuned, POEMS), OPTIONS)
    why = [e.why for e in results.examples]
    assert why == ["loss"] * 10 + ["gain"] * 3 + ["random"] * 3
    assert len({e.row for e in results.examples if e.why != "random"}) == 13
    for example in results.examples:
        assert example.question == f"问题{example.row}"
        if example.why == "gain":
            assert example.tuned_score == 1 > example.base_score
        if example.why == "loss":
            assert example.base_score == 1 > example.tuned_score


def test_the_suite_names_scores_that_exist():
    suite = load_suite()
    assert set(suite.scores) == {*SCORES, DISTINCT}
    assert suite.version >= 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_score_has_words(language):
    for name in (*load_suite().scores, "field:intent"):
        assert score_name(name, language)
        assert score_how(name, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_verdict_is_said_with_its_numbers(language):
    base, tuned = both([""] * 40, OBJECTS, OBJECTS)
    for pair in ((base, tuned), (tuned, base), (base, base)):
        results = compare(*pair, OPTIONS)
        line = results.score("json_fields")
        sentence = verdict_sentence(results, language)
        assert f"{line.base.value:.1%}" in sentence
        assert f"{line.tuned.value:.1%}" in sentence
        assert "40" in sentence

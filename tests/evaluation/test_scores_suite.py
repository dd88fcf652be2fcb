"""Suites are read whole or refused in a sentence, and every score has its words."""

import json

import pytest
from test_compare import answered

from weitiao.errors import DataError, RecipeError
from weitiao.evaluation.compare import compare
from weitiao.evaluation.evaluate import load_results
from weitiao.evaluation.present import score_how, score_name
from weitiao.evaluation.suite import (
    NAMES,
    WHOLE_SET,
    form_of,
    load_suite,
    score_for,
    suite_names,
    tokenisation_of,
)
from weitiao.evaluation.suite_rows import suite_records
from weitiao.plan.evaluate_options import EvaluateOptions
from weitiao.records.options import DataOptions
from weitiao.words import LANGUAGES

OURS = ("general", "intents", "maths", "poetry", "question_answering", "story")
SAID = {
    "tokens": ("token", "词元"),
    "units": ("each Han character, each word of other scripts", "每个汉字、其他文字的每个单词"),
    "units_marks": ("each Han character, each word of other scripts, each mark", "每个标点"),
    "characters": ("characters", "字符"),
    "sacrebleu": ("tokenizer zh", "zh 分词"),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_score_says_what_it_counts(name):
    for language, said in zip(LANGUAGES, zip(*SAID.values(), strict=True), strict=True):
        assert score_name(name, language)
        wanted = dict(zip(SAID, said, strict=True)).get(tokenisation_of(name))
        # Perplexity is said by the answer loss.
        if wanted and name != "perplexity":
            assert wanted in score_how(name, language), name


@pytest.mark.parametrize("name", [n for n in NAMES if n not in WHOLE_SET])
@pytest.mark.parametrize(
    "reference", ["好", "a", "好评", "1/2", '{"a": 1}', "今天天气很好，我们去公园吧。"]
)
@pytest.mark.parametrize("answer", ["", "好", "a", "7"])
def test_every_score_of_empty_and_short_answers_is_a_number(name, answer, reference):
    score = score_for(name, [reference] * 4)
    found = score.statistics(answered(0, answer, reference))
    if found is not None:
        import numpy as np

        assert np.isfinite(score.total(np.array([found, found], float))).all()
        assert form_of(name) == score.form


def test_the_suites_that_ship():
    assert set(OURS) <= set(suite_names())
    for name in OURS:
        suite = load_suite(name)
        assert suite.name == name
        assert set(suite.scores) == set(suite.tokenisation)
        assert suite.verdict is None or suite.verdict in suite.scores
        assert len(suite.digest) == 16


def write(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


def test_a_suite_of_ones_own(tmp_path):
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"instruction": "1+1?", "output": "2"}) + "\n", "utf-8"
    )
    (tmp_path / "bad.txt").write_text("坏\n", "utf-8")
    path = write(
        tmp_path,
        "version: 3\nscores: [number_match, toxicity, number_match]\n"
        "rows: rows.jsonl\ntoxic_words: bad.txt\n",
    )
    suite = load_suite(path)
    assert (suite.name, suite.version, suite.scores) == ("mine", 3, ("number_match", "toxicity"))
    assert [r.answer for r in suite_records(tmp_path / "rows.jsonl", DataOptions())] == ["2"]
    assert suite.rows == str(tmp_path / "rows.jsonl")
    toxicity = score_for("toxicity", ["2"], suite)
    assert toxicity.statistics(answered(0, "太坏了", "2")) == (1, 1)
    # What its files hold makes a suite another, though its version is the same.
    (tmp_path / "bad.txt").write_text("坏\n蛋\n", "utf-8")
    assert load_suite(path) != suite
    other = load_suite(path)
    (tmp_path / "rows.jsonl").write_text('{"instruction": "1+2?", "output": "3"}\n', "utf-8")
    assert load_suite(path).digest != other.digest


def test_the_score_that_decides_is_counted_too(tmp_path):
    suite = load_suite(write(tmp_path, "scores: [length]\nverdict: chrf\n"))
    assert (suite.scores, suite.verdict) == (("length", "chrf"), "chrf")
    assert suite.tokenisation["chrf"] == "characters"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scores: [exact_match, rogue_l]", ["mine.yaml:1:23", "rogue_l", "rouge_l"]),
        ("scores: [rogue_l]\nscore: x", ["mine.yaml:1:10", "rogue_l", "score"]),
        ("scores: [exact_match]\nverdict: f1", ["mine.yaml:2:10", "f1", "token_f1"]),
        ("scores: exact_match", ["mine.yaml:1:9"]),
        ("scores: [7]", ["mine.yaml:1:10", "7"]),
        ("scores: []", ["mine.yaml", "exact_match"]),
        ("scores: [length, distinct_2]", ["mine.yaml", "length, distinct_2", "verdict"]),
        ("scores: [chrf]\nverdict: length", ["mine.yaml", "length", "answer_loss"]),
        ("", ["mine.yaml", "exact_match"]),
        ("scores: [exact_match]\nversion: 0", ["mine.yaml:2:10", "version"]),
    ],
)
def test_a_suite_that_cannot_be_used_is_a_sentence(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as told:
        load_suite(path)
    for language in LANGUAGES:
        assert all(part in told.value.sentence(language) for part in said)


def test_a_suite_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(RecipeError, match="question_answering"):
        load_suite("question-answering")
    with pytest.raises(RecipeError, match=r"none\.yaml"):
        load_suite(str(tmp_path / "none.yaml"))
    for line in ("rows: none.jsonl", "toxic_words: none.txt"):
        with pytest.raises(DataError, match="none"):
            load_suite(write(tmp_path, f"scores: [toxicity]\n{line}\n"))


def test_rows_without_a_reference_are_named(tmp_path):
    rows = [{"instruction": f"q{i}", "output": "a" if i != 2 else " "} for i in range(4)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    with pytest.raises(DataError) as told:
        suite_records(path, DataOptions())
    assert "rows.jsonl line 3" in told.value.sentence("en")
    assert "1" in told.value.sentence("zh")
    path.write_text(json.dumps(rows[0]) + "\n{broken\n", "utf-8")
    with pytest.raises(DataError) as told:
        suite_records(path, DataOptions())
    assert "rows.jsonl line 2" in told.value.sentence("en")


def test_results_name_what_was_counted_and_older_ones_still_load(tmp_path):
    rows = [answered(i, "今天天气好", "今天天气很好，我们去公园吧。") for i in range(6)]
    results = compare(rows, rows, EvaluateOptions(resamples=100))
    assert results.suite.tokenisation["chrf"] == "characters"
    from dataclasses import asdict

    import orjson

    data = asdict(results)
    path = tmp_path / "results.json"
    path.write_bytes(orjson.dumps(data))
    assert load_results(path) == results
    data["suite"] = {"name": "default", "version": 1, "scores": ["exact_match"]}
    path.write_bytes(orjson.dumps(data))
    assert load_results(path).suite != results.suite


def test_a_suite_file_that_is_missing_is_called_a_suite_file(tmp_path):
    path = tmp_path / "tale.yaml"
    for language, said, other in (("en", "suite file", "recipe"), ("zh", "评测套件", "配方")):
        for name in ("none.yaml", "tael.yaml"):
            with pytest.raises(RecipeError) as told:
                load_suite(str(tmp_path / name))
            sentence = told.value.sentence(language)
            assert said in sentence
            assert other not in sentence
            assert str(tmp_path / name) in sentence
        path.touch()
    assert "tale.yaml" in sentence, "the one that was probably meant"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="A suite is"):
        load_suite(str(path))

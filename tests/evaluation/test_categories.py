"""Categories: found where the data has them, each compared by itself, the worst first."""

import pytest
from test_compare import OBJECTS, OPTIONS, answered, both

from weitiao.evaluation.categories import Groups, group
from weitiao.evaluation.compare import compare
from weitiao.evaluation.present import turned_sentence, worst_category_sentence
from weitiao.evaluation.suite import load_suite
from weitiao.records.record import Message, Origin, Record
from weitiao.words import LANGUAGES


def record(answer: str = "", **metadata: object) -> Record:
    return Record(Origin("f", 1), (Message("assistant", answer),), metadata=metadata)


def test_the_first_column_that_divides_the_rows_is_taken():
    records = [record(type="all", 类别="甲" if i < 6 else "乙", source=f"s{i}") for i in range(12)]
    found = group(records, range(12))
    assert found.column == "类别"
    assert found.of_row[0] == "甲"
    assert group(records, range(10, 12)) is None
    assert group([record(Category=f"c{i % 2}") for i in range(12)], range(12)).column == "category"


def test_rare_values_are_in_no_category_and_many_values_are_none():
    records = [record(category="a" if i < 6 else "b" if i < 11 else f"x{i}") for i in range(13)]
    found = group(records, range(13))
    assert set(found.of_row) == set(range(11))
    many = [record(category=f"c{i % 31}") for i in range(310)]
    assert group(many, range(310)) is None
    mostly_other = [
        record(category="a" if i < 5 else "b" if i < 10 else f"x{i}") for i in range(30)
    ]
    assert group(mostly_other, range(30)) is None
    assert group([record(category=i % 2) for i in range(12)], range(12)) is None


def test_answers_that_are_labels_are_categories():
    found = group([record("好评" if i % 2 else "差评") for i in range(12)], range(12))
    assert (found.column, found.of_row[1]) == ("", "好评")
    assert group([record(f"答案{i}") for i in range(12)], range(12)) is None


def made(rows_of_worse: int = 10, categories: int = 4):
    """Every category gets better but the last, which was right and is wrong now."""
    references = OBJECTS * 2
    of_row = {i: f"c{i * categories // 80}" for i in range(80)}
    worse = {i for i, name in of_row.items() if name == f"c{categories - 1}"}
    worse = set(sorted(worse)[:rows_of_worse])
    base = [r if i in worse else "" for i, r in enumerate(references)]
    tuned = ["" if i in worse else r for i, r in enumerate(references)]
    return compare(*both(base, tuned, references), OPTIONS, groups=Groups("intent", of_row))


def test_the_worst_category_comes_first_whatever_the_verdict_is():
    results = made(20)
    assert results.verdict.outcome == "better"
    assert results.categories[0].name == "c3"
    assert [c.line.change for c in results.categories] == ["worse", "better", "better", "better"]
    assert all(c.line.rows == 20 and c.line.name == "json_fields" for c in results.categories)
    for language in LANGUAGES:
        assert "c3" in worst_category_sentence(results, language)
    assert "80" in turned_sentence(results, "zh")
    assert "20 of 80 rows; the other way round: 60" in turned_sentence(results, "en")


def test_a_category_that_cannot_be_told_is_not_called_worse():
    results = made(11)
    first = results.categories[0]
    assert (first.name, first.line.change) == ("c3", "same")
    assert first.line.difference.value < 0
    assert worst_category_sentence(results) == ""


def test_several_categories_are_several_chances():
    lines = [c.line for c in made(20).categories]
    assert all(line.p_adjusted == pytest.approx(4 * line.p_value) for line in lines[:1])
    assert all(line.p_adjusted > line.p_value for line in lines)


def test_at_most_twelve_are_shown_and_the_rest_together():
    results = made(5, categories=16)
    names = [c.name for c in results.categories]
    assert len(names) == 13
    assert (names[0], names[-1]) == ("c15", None)
    assert sum(c.line.rows for c in results.categories) == 80


def test_rows_of_no_category_are_the_rest():
    references = OBJECTS
    of_row = {i: f"c{i % 2}" for i in range(30)}
    results = compare(
        *both([""] * 40, references, references), OPTIONS, groups=Groups("intent", of_row)
    )
    assert [(c.name, c.line.rows) for c in results.categories][-1] == (None, 10)


def test_a_loss_that_falls_is_a_gain():
    base = [answered(i, "", f"第{i}首：床前明月光，疑是地上霜", loss=20.0) for i in range(40)]
    tuned = [answered(b.row, "", b.reference, loss=25.0 if b.row < 20 else 5.0) for b in base]
    groups = Groups("kind", {i: "up" if i < 20 else "down" for i in range(40)})
    results = compare(base, tuned, OPTIONS, groups=groups)
    assert [(c.name, c.line.change) for c in results.categories] == [
        ("up", "worse"),
        ("down", "better"),
    ]


def test_labels_are_compared_by_their_accuracy():
    references = ["好评", "差评"] * 20
    groups = Groups("", dict(enumerate(references)))
    results = compare(
        *both(["好评"] * 40, references, references), OPTIONS, load_suite("intents"), groups=groups
    )
    assert results.verdict.score == "macro_f1"
    assert [(c.name, c.line.name) for c in results.categories] == [
        ("好评", "label_accuracy"),
        ("差评", "label_accuracy"),
    ]
    assert (results.turned.wrong, results.turned.right) == (0, 20)
    assert results.example_score == "label_accuracy"

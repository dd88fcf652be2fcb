"""Stories for children: every number worked out by hand."""

import pytest
from test_compare import answered

from weitiao.errors import DataError
from weitiao.evaluation.stories.grades import (
    common_characters,
    read_grades,
    share_by,
    share_known,
    shipped_grades,
)
from weitiao.evaluation.stories.scores import (
    common_share,
    dialogue_share,
    sentence_length,
    word_length,
)
from weitiao.evaluation.suite import load_suite, score_for


def test_the_common_characters_are_those_of_the_standard():
    found = common_characters()
    assert len(found) == 3755
    assert {"啊", "座", "的", "龙"} <= found
    assert not {"亍", "龘", "、", "A"} & found


def test_the_grades_that_ship():
    found = shipped_grades()
    assert set(found.values()) == set(range(1, 7))
    assert len(found) > 2500
    assert (found["一"], found["丈"], found["侵"]) == (1, 2, 5)
    assert len(common_characters() & found.keys()) > 0.95 * len(found)


@pytest.mark.parametrize(
    ("answer", "length"),
    [
        ("小兔子跑了。它很快乐！", 4.5),
        ("He ran. He ran 3.5 miles.", 3.5),
        ("“你好！”小明说。", 2.5),
        ("没有标点", 4),
        ("One\nTwo three", 1.5),
        ("……", 0),
        ("", 0),
    ],
)
def test_sentences(answer, length):
    assert sentence_length(answer, "") == length


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("“你好”他说", 2 / 4),
        ("「早『安』吧」她笑", 4 / 6),
        ('"Hello there," said Tom', 2 / 4),
        ("‘I don’t know,’ he said", 3 / 5),
        ("It's Tom's dog, isn't it", 0),
        ("“没有结束", 0),
        ("没有对话", 0),
        ("", 0),
    ],
)
def test_dialogue(answer, share):
    # don’t and isn't are two units each.
    assert dialogue_share(answer, "") == pytest.approx(share, abs=0.08)


def test_common_characters_of_an_answer():
    assert common_share("小兔子", "故事") == 1
    assert common_share("小龘", "故事") == 0.5
    assert common_share("馬兒", "故事") == 1, "traditional characters count as well"
    assert common_share("", "故事") == 0
    assert common_share("a cat", "故事") == 0
    assert common_share("小兔子", "a story") is None


def test_words_of_an_answer():
    assert word_length("a cat", "story") == 2
    assert word_length("", "story") == 0
    assert word_length("猫", "故事") is None


def test_a_list_of_ones_own(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("# mine\n1 天地 cat\n3 龍 dog  # a remark\n2 天\n", "utf-8")
    grades = read_grades(path)
    assert grades == {"天": 1, "地": 1, "cat": 1, "龙": 3, "dog": 3}
    second, third = (share_by(n, str(path)) for n in (2, 3))
    assert second("天地龙。人", "故事") == 0.5
    assert third("天地龍，人！", "故事") == 0.75
    assert second("The cat, the DOG", "story") == 0.25
    assert third("A dog 3", "story") == 0.5
    assert share_known({"天"})("the cat", "story") is None


@pytest.mark.parametrize("text", ["天地人", "", "# nothing", "one 天"])
def test_a_list_that_cannot_be_read_is_a_sentence(tmp_path, text):
    path = tmp_path / "words.txt"
    path.write_text(text, "utf-8")
    suite = tmp_path / "mine.yaml"
    suite.write_text("scores: [story_grade_2]\nstory_words: words.txt\n", "utf-8")
    with pytest.raises(DataError, match=r"words\.txt"):
        load_suite(str(suite))
    suite.write_text("scores: [story_grade_2]\nstory_words: none.txt\n", "utf-8")
    with pytest.raises(DataError, match=r"none\.txt"):
        load_suite(str(suite))


def test_a_suite_takes_its_own_list(tmp_path):
    (tmp_path / "words.txt").write_text("1 龘\n", "utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text("scores: [story_grade_2]\nstory_words: words.txt\n", "utf-8")
    suite = load_suite(str(path))
    row = answered(0, "龘天", "故事")
    assert score_for("story_grade_2", ["故事"], suite).statistics(row) == (0.5, 1)
    assert score_for("story_grade_2", ["故事"]).statistics(row) == (0, 1)
    assert score_for("story_grade_6", ["故事"]).statistics(answered(0, "天地", "故事")) == (1, 1)
    (tmp_path / "words.txt").write_text("1 天\n", "utf-8")
    assert load_suite(str(path)).digest != suite.digest

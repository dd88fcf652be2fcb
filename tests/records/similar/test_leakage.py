import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import near_pairs, planted

from weitiao.records.similar import (
    Cluster,
    Groups,
    Leak,
    NearIndex,
    contradictions,
    is_label,
    leaking_rows,
    leaks,
    survivor,
)
from weitiao.records.split import order_key, split

TEXT = "床前明月光疑是地上霜举头望明月低头思故乡白日依山尽黄河入海流欲穷千里目更上一层楼"


@pytest.mark.parametrize("ratios", [(8, 1, 1), (1, 1, 1), (5, 0, 5)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_near_duplicate_of_a_training_row_is_held_out(seed, ratios):
    """By prompt and by answer: joined groups hold it by construction."""
    prompts, answers = planted(120, seed), planted(120, seed + 1)
    groups = Groups(120)
    for texts in (prompts, answers):
        index = NearIndex()
        index.add(texts)
        for cluster in index.clusters(lambda rows, texts=texts: [texts[row] for row in rows]):
            for row in cluster.rows[1:].tolist():
                groups.join(int(cluster.rows[0]), row)
    order = np.array([order_key(seed, prompt) for prompt in prompts], dtype=np.uint64)
    parts = split(groups.labels(), order, ratios)
    pairs = near_pairs(prompts) + near_pairs(answers)
    assert pairs
    assert [pair for pair in pairs if parts[pair[0]] != parts[pair[1]]] == []


def test_leaks_name_the_nearest_training_row():
    train = ["问一", TEXT[:-1] + "台", TEXT, "", "问二"]
    test = ["新的问题", "", TEXT + "。", "问二！", TEXT[:-2] + "高台"]
    found = leaks(train, test, "prompt")
    assert [(leak.test_row, leak.train_row) for leak in found] == [(2, 2), (3, 4), (4, 1)]
    assert [leak.by for leak in found] == ["prompt"] * 3
    assert found[0].similarity == 1
    assert found[2].similarity == pytest.approx(37 / 41)
    assert leaks(train, [], "prompt") == leaks([], test, "prompt") == []


def test_test_rows_that_are_near_each_other_only_are_no_leak():
    assert leaks(["别的话"], [TEXT, TEXT + "呀"], "prompt") == []


def test_a_row_at_the_far_end_of_a_chain_is_no_leak():
    text = list(TEXT)
    chain = []
    for place in (0, 8, 16, 24, 32):
        text[place] = "变"
        chain.append("".join(text))
    found = leaks(chain[:1], chain[1:], "prompt")
    assert [leak.test_row for leak in found] == [0]


def test_answers_that_are_labels_or_json_leak_nothing():
    label, slots = "心血管内科", '{"intent": "' + "transfer" * 10 + '", "slots": []}'
    assert is_label(label)
    assert is_label(slots)
    assert is_label(" [1" + ", 2" * 30 + "]\n")
    assert is_label("")
    assert not is_label(TEXT + TEXT)
    assert not is_label("{{" + TEXT + TEXT)
    answers = [label, slots, TEXT + TEXT]
    assert leaks(answers, answers, "answer") == [Leak(2, 2, "answer", 1.0)]


def test_many_training_rows_that_say_the_same_hide_no_nearer_one():
    train = [TEXT[:-1] + "台"] * 500 + [TEXT]
    (leak,) = leaks(train, [TEXT], "prompt")
    assert (leak.train_row, leak.similarity) == (500, 1.0)


def test_leaking_rows_are_the_held_out_ones_of_mixed_clusters():
    clusters = [Cluster(np.array(rows), 0.9) for rows in ([0, 3], [1, 2], [4, 5, 6])]
    training = np.array([True, True, True, False, False, False, False])
    assert leaking_rows(clusters, training).tolist() == [3]
    training[5] = True
    assert leaking_rows(clusters, training).tolist() == [3, 4, 6]
    assert leaking_rows([], training).tolist() == []


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-1, 1)), max_size=15))
def test_contradictions_are_prompts_with_different_answers(rows):
    prompts = np.array([prompt for prompt, _ in rows], dtype=np.int64)
    answers = np.array([answer for _, answer in rows], dtype=np.int64)
    expected = []
    for prompt in dict.fromkeys(prompts.tolist()):
        members = [i for i, (asked, _) in enumerate(rows) if asked == prompt]
        if prompt != 0 and len({rows[i][1] for i in members}) > 1:
            expected.append(members)
    assert [cluster.rows.tolist() for cluster in contradictions(prompts, answers)] == expected


@pytest.mark.parametrize(
    ("rule", "kept"), [("first", 2), ("longest", 5), ("newest", 5), ("best_reviewed", 7)]
)
def test_the_rule_says_which_row_is_kept(rule, kept):
    times = ["2024-01-01", "2025-03-01", "", "2025-02-28"]
    found = survivor([2, 5, 7, 9], rule, lengths=[3, 8, 8, 1], times=times, votes=[0, 1, 2, 2])
    assert found == kept


def test_of_equals_the_first_is_kept_and_the_last_is_the_newest():
    same = {"lengths": [4, 4], "times": ["", ""], "votes": [1, 1]}
    rules = ("first", "longest", "best_reviewed", "newest")
    assert [survivor([3, 8], rule, **same) for rule in rules] == [3, 3, 3, 8]

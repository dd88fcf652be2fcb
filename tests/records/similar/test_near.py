import json

import numpy as np
import pytest
from planted import near_pairs, planted

from weitiao.records.similar import NearIndex
from weitiao.records.similar.near import _bands


def rows_of(clusters):
    return [cluster.rows.tolist() for cluster in clusters]


def verses(shared, count):
    lines = (shared / "data/tang_quatrains.jsonl").read_text("utf-8").splitlines()[:count]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("threshold", [0.6, 0.85])
def test_recall_and_precision_against_the_exact_join(shared, benchmarks, clusters_of, threshold):
    import records_near

    texts = [row["output"] for row in verses(shared, 10_500)]
    exact = list(records_near.exact_join(texts, threshold))
    clusters = clusters_of(texts, threshold)
    links = [(c.rows[0], row) for c in clusters for row in c.rows[1:]]
    assert len(exact) > 300
    assert records_near.together(exact, records_near.labels(len(texts), links)) >= 0.98
    assert records_near.together(links, records_near.labels(len(texts), exact)) == 1


def test_the_exact_join_is_that_of_all_pairs(benchmarks):
    import records_near

    texts = planted(150, seed=3)
    near = near_pairs(texts)
    assert sorted(records_near.exact_join(texts)) == near
    assert near


def test_similarity_is_the_lowest_of_the_links(clusters_of):
    text = "床前明月光疑是地上霜举头望明月低头思故乡白日依山尽黄河入海流"
    (cluster,) = clusters_of([text, "另一首", text, text[:-1] + "去"])
    # 29 different pairs of characters and the last one; the changed end costs two of them.
    assert cluster.rows.tolist() == [0, 2, 3]
    assert cluster.similarity == pytest.approx(27 / 31)


def test_a_chain_of_near_rows_is_one_cluster(clusters_of):
    text = [chr(0x4E00 + 7 * i) for i in range(40)]
    chain = []
    for place in range(0, 40, 4):
        text[place] = "变"
        chain.append("".join(text))
    assert rows_of(clusters_of(chain)) == [list(range(10))]


def test_case_width_blanks_and_punctuation_make_no_difference(clusters_of):
    texts = ["Ｈello， 世界！", "hello世界", "hello  世界。", "hello 世間"]
    (cluster,) = clusters_of(texts)
    assert (cluster.rows.tolist(), cluster.similarity) == ([0, 1, 2], 1.0)


def test_short_texts_are_compared_exactly(clusters_of):
    texts = ["是", "否", "是。", "yes", "yet", "Yes!", "3", "5", "心内科", "心外科"]
    assert rows_of(clusters_of(texts)) == [[0, 2], [3, 5]]


def test_rows_without_a_word_take_no_part(clusters_of):
    assert clusters_of(["", "", " ", "。。。", "。。。", "\0", "\n"]) == []
    assert clusters_of([]) == []
    assert rows_of(clusters_of(["", "好", "", "好"])) == [[1, 3]]


def test_broken_characters_are_compared_too(clusters_of):
    assert rows_of(clusters_of(["坏\ud800字\0一", "好", "坏\ud800字\0一"])) == [[0, 2]]


@pytest.mark.parametrize("batch", [1, 7, 100_000])
def test_how_the_rows_come_makes_no_difference(clusters_of, batch):
    texts = planted(600, seed=1)
    assert rows_of(clusters_of(texts, batch=batch)) == rows_of(clusters_of(texts, batch=50))


def test_one_text_a_hundred_thousand_times_is_not_compared_with_itself():
    texts = ["同样的话说了十万遍"] * 100_000

    def never(rows):
        raise AssertionError("equal texts need no look")

    index = NearIndex()
    index.add(texts)
    (cluster,) = index.clusters(never)
    assert len(cluster.rows) == 100_000
    assert cluster.similarity == 1


def test_an_instruction_that_all_share_does_not_make_them_near(shared, clusters_of):
    order = (
        "请根据下面的题目和诗人的风格写作一首完整的唐诗，要求押韵并且合乎平仄，语言古雅，意境深远。"
    )
    rows = verses(shared, 3000)
    bare = clusters_of([row["input"] for row in rows])
    ordered = clusters_of([order + row["input"] for row in rows])
    assert rows_of(ordered) == rows_of(bare)
    assert max(len(cluster.rows) for cluster in ordered) < 20
    # A row that is nothing but the instruction is equal to its like, and to no other.
    texts = [order + row["input"] for row in rows[:300]]
    assert [300, 301] in rows_of(clusters_of([*texts, order, order]))


def test_unlike_texts_that_fall_together_are_not_all_compared(clusters_of):
    """Half of them share an instruction, too few to call it the data's template."""
    rng = np.random.default_rng(5)
    other = ["".join(map(chr, rng.integers(0x4E00, 0x9000, 40))) for _ in range(1001)]
    order = "".join(map(chr, rng.integers(0x4E00, 0x9000, 80)))
    texts = other + [order + text[:12] for text in other[:1000]]
    asked = 0

    def texts_of(rows):
        nonlocal asked
        asked += len(rows)
        return [texts[row] for row in rows]

    index = NearIndex()
    index.add(texts)
    index.clusters(texts_of)
    bands, _ = _bands(0.85)
    assert 1000 < asked < 1000 * bands * 10


def test_a_few_numbers_a_row():
    index = NearIndex(0.51)
    index.add(planted(3000, seed=2))
    index._sketch_waiting()
    kept = [*index._whole, *index._sizes, *index._columns]
    assert sum(array.nbytes for array in kept) <= 200 * 3000
    assert not index._waiting


@pytest.mark.parametrize("threshold", [0.501, 0.6, 0.7, 0.8, 0.85, 0.95, 1.0])
def test_the_bands_miss_one_in_a_hundred_at_the_threshold_and_fewer_above(threshold):
    bands, rows = _bands(threshold)
    assert (1 - threshold**rows) ** bands <= 0.01
    assert 4 * bands + 12 <= 200


def test_the_made_rows_are_the_duplicates_they_are_said_to_be(
    shared, benchmarks, clusters_of, tmp_path
):
    import made_rows
    import records_near

    path = tmp_path / "rows.jsonl"
    truth = made_rows.write(path, 4000, folder=shared / "data")
    again = made_rows.write(tmp_path / "again.jsonl", 4000, folder=shared / "data")
    assert truth.read_bytes() == again.read_bytes()
    texts = records_near.texts_of(path, 4000)
    known = [json.loads(line) for line in truth.read_text().splitlines()]
    for one in known:
        a, b = records_near.gram_set(texts[one["row"]]), records_near.gram_set(texts[one["of"]])
        assert len(a & b) >= 0.85 * len(a | b)
        assert (texts[one["row"]] == texts[one["of"]]) == (one["changed"] == 0)
    assert 150 < sum(one["changed"] == 0 for one in known) < 250
    assert 150 < sum(one["changed"] > 0 for one in known) < 250
    links = [(c.rows[0], row) for c in clusters_of(texts) for row in c.rows[1:]]
    label = records_near.labels(len(texts), links)
    assert records_near.together(records_near.known_pairs(path, 4000), label) >= 0.98

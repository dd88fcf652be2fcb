import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.records.similar import Groups

ROWS = 20
PAIRS = st.lists(st.tuples(st.integers(0, ROWS - 1), st.integers(0, ROWS - 1)), max_size=25)
KEYS = st.lists(st.sampled_from([0, 0, 1, 2, 3, 2**64 - 1]), min_size=ROWS, max_size=ROWS)


@settings(max_examples=150, deadline=None)
@given(PAIRS, KEYS)
def test_labels_are_the_lowest_row_of_what_is_connected(pairs, keys):
    groups = Groups(ROWS)
    for a, b in pairs:
        groups.join(a, b)
    groups.join_equal(np.array(keys, dtype=np.uint64))
    label = list(range(ROWS))
    joined = pairs + [(a, b) for a in range(ROWS) for b in range(a) if keys[a] == keys[b] != 0]
    for _ in range(ROWS):
        for a, b in joined:
            label[a] = label[b] = min(label[a], label[b])
    assert groups.labels().tolist() == label


def test_no_rows():
    groups = Groups(0)
    groups.join_equal(np.zeros(0, np.uint64))
    assert groups.labels().tolist() == []


def test_a_long_chain_is_one_group():
    groups = Groups(50_000)
    for row in range(49_999, 0, -1):
        groups.join(row, row - 1)
    assert not groups.labels().any()

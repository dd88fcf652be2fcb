from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.records.packing import pack


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=60), st.integers(1, 50))
def test_every_row_once_within_the_budget_the_longest_first(lengths, budget):
    packed = pack(lengths, budget)
    assert sorted(i for batch in packed for i in batch) == list(range(len(lengths)))
    for batch in packed:
        assert sum(lengths[i] for i in batch) <= budget or len(batch) == 1
    if lengths:
        assert lengths[packed[0][0]] == max(lengths)
    # First fit: a row stands in a later batch only because it did not fit into an earlier one.
    assert sum(sum(lengths[i] for i in batch) * 2 <= budget for batch in packed) <= 1


def test_first_fit_decreasing_by_hand():
    assert pack([2, 5, 4, 7, 1, 3, 8], 10) == [[6, 0], [3, 5], [1, 2, 4]]
    assert pack([12, 3], 10) == [[0], [1]]
    assert pack([], 10) == []

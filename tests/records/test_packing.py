import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.records.packing import computed, pack, pack_sharing
from weitiao.records.prefixes import lay_out


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


def rows_of(specs: list[tuple[int, int, int]]) -> list[np.ndarray]:
    """Rows that begin with one of three beginnings and go on by themselves."""
    draw = np.random.default_rng(1)
    beginnings = [draw.integers(0, 50, n) for n in (0, 20, 45)]
    beginnings[2][:20] = beginnings[1]
    return [
        np.concatenate([beginnings[kind], draw.integers(0, 50, 1 + own)]) for kind, own, _ in specs
    ]


SPECS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=24
)


@settings(max_examples=100, deadline=None)
@given(SPECS, st.integers(20, 300))
def test_sharing_keeps_the_budget_and_every_row(specs, budget):
    rows = rows_of(specs)
    packed = pack_sharing(rows, budget)
    assert sorted(i for group in packed for i in group) == list(range(len(rows)))
    sizes = [computed(rows, group) for group in packed]
    for size, group in zip(sizes, packed, strict=True):
        assert size <= budget or len(group) == 1
    assert sizes == sorted(sizes, reverse=True)
    by_length = pack([len(ids) for ids in rows], budget)
    assert sum(sizes) <= sum(computed(rows, group) for group in by_length)


def test_rows_that_begin_alike_are_put_together():
    draw = np.random.default_rng(0)
    beginnings = [draw.integers(0, 50, 60) for _ in range(2)]
    rows = [np.concatenate([beginnings[i % 2], draw.integers(0, 50, 20)]) for i in range(8)]
    packed = pack_sharing(rows, 140)
    assert sorted(sorted(group) for group in packed) == [[0, 2, 4, 6], [1, 3, 5, 7]]


@settings(max_examples=100, deadline=None)
@given(SPECS, st.booleans())
def test_a_layout_holds_every_row_where_it_says(specs, share):
    rows = rows_of(specs)
    rows += rows[:2]
    layout = lay_out(rows, share=share)
    for ids, place in zip(rows, layout.places, strict=True):
        assert (layout.ids[place] == ids).all()
        assert (layout.positions[place] == np.arange(len(ids))).all()
    assert [s.start for s in layout.segments] == [0, *(s.stop for s in layout.segments[:-1])]
    for number, segment in enumerate(layout.segments):
        below = [i for i, s in enumerate(layout.segments) if number in s.above]
        assert below == [
            i for i, s in enumerate(layout.segments) if segment.stop <= s.start < segment.last
        ]
    if not share:
        assert len(layout.ids) == sum(map(len, rows))

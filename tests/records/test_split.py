from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.records.record import Message, Origin, Record
from weitiao.records.split import split

RATIOS = st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(0, 3))
PROMPTS = st.lists(st.integers(0, 25), min_size=1, max_size=80)


def records(prompts: list[int], **metadata: list[str]) -> list[Record]:
    return [
        Record(
            Origin("file", i + 1),
            (Message("user", f"问题 {prompt}"), Message("assistant", f"回答 {i}")),
            metadata={name: values[i] for name, values in metadata.items()},
        )
        for i, prompt in enumerate(prompts)
    ]


@settings(max_examples=150, deadline=None)
@given(PROMPTS, RATIOS, st.integers(0, 5))
def test_every_row_once_equal_prompts_together_and_no_part_empty(prompts, ratios, seed):
    parts = split(records(prompts), ratios, seed)
    assert sorted(i for part in parts.values() for i in part) == list(range(len(prompts)))
    sides = [{prompts[i] for i in part} for part in parts.values()]
    assert sum(len(side) for side in sides) == len(set(prompts))
    asked = [part for part, ratio in zip(parts.values(), ratios, strict=True) if ratio]
    if len(set(prompts)) >= len(asked):
        assert all(asked)
    for part, ratio in zip(parts.values(), ratios, strict=True):
        assert ratio or not part
    # The ratios are missed by less than the largest group, or by the one row a part must have.
    largest = max(prompts.count(p) for p in prompts)
    for part, ratio in zip(parts.values(), ratios, strict=True):
        assert abs(len(part) - len(prompts) * ratio / sum(ratios)) <= largest + 1


def test_distinct_prompts_meet_the_ratios():
    parts = split(records(list(range(1000))))
    assert [len(part) for part in parts.values()] == [800, 100, 100]


def test_the_seed_decides_and_nothing_else():
    rows = records(list(range(100)))
    assert split(rows, seed=1) == split(rows, seed=1)
    assert split(rows, seed=1) != split(rows, seed=2)


def test_prompts_that_differ_by_blanks_case_or_width_are_equal():
    asked = ["Hello  World?", "hello world？", " HELLO world? "]
    same = [Record(Origin("f", 1), (Message("user", a), Message("assistant", "b"))) for a in asked]
    assert sorted(map(len, split(same, (1, 1, 1)).values())) == [0, 0, 3]


def test_the_last_question_decides_in_a_conversation():
    turns = (Message("user", "一"), Message("assistant", "甲"))
    rows = [
        Record(Origin("f", i), (*turns, Message("user", f"{i % 20}"), Message("assistant", f"{i}")))
        for i in range(200)
    ]
    parts = split(rows)
    assert sorted({i % 20 for i in parts["train"]} & {i % 20 for i in parts["test"]}) == []
    assert len(parts["test"]) == 20


def test_rows_of_one_group_stay_together():
    people = [f"人{i % 10}" for i in range(100)]
    parts = split(records(list(range(100)), person=people), group_by="person")
    assert [len(part) for part in parts.values()] == [80, 10, 10]
    sides = [{people[i] for i in part} for part in parts.values()]
    assert sum(len(side) for side in sides) == 10


def test_passages_are_split_by_what_they_say():
    rows = [Record(Origin("f", i), text=f"诗 {i % 50}") for i in range(100)]
    parts = split(rows)
    assert [len(part) for part in parts.values()] == [80, 10, 10]


def test_each_part_gets_large_and_small_groups_alike():
    """Dealt by size, the small parts would hold the groups of one row alone."""
    prompts = [f"large {i // 4}" for i in range(800)] + [f"small {i}" for i in range(200)]
    asked = [
        Record(Origin("f", i), (Message("user", p), Message("assistant", f"{i}")))
        for i, p in enumerate(prompts)
    ]
    for part in split(asked).values():
        share = sum(prompts[i].startswith("small") for i in part) / len(part)
        assert 0.1 < share < 0.35

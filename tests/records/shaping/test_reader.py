"""The quick reader of a shape reads what ``to_record`` reads, whatever stands in a row."""

from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.shaping import Shape, detect_shape, reader_of, to_record
from weitiao.records.shaping.columns import KNOWN

ORIGIN = Origin("file", 1)
turn_fields = ("role", "from", "content", "value", "loss", "tool_calls", "user", "metadata", "type")
words = st.sampled_from(
    ["", " ", "a", "user", "assistant", "tool_call", "{}", "[]", "text", "accept"]
)
names = st.sampled_from(
    [*sorted(KNOWN), "x.responses", "x.responses.users", "_task_hash", "result"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | words,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(turn_fields) | names, inner, max_size=3)
    ),
    max_leaves=8,
)
rows = st.dictionaries(names, anything, max_size=5)


@given(st.lists(rows, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_row_becomes_a_record_or_a_reason(found):
    try:
        shape = detect_shape(found)
    except DataError:
        return
    assert shape.describe("en")
    read = reader_of(shape)
    for row in [*found, *found]:
        record = read(row, ORIGIN)
        assert isinstance(record, Record | Reason)
        assert record == to_record(row, shape, ORIGIN)
        if isinstance(record, Reason):
            assert record.sentence("zh")
            assert record.hint("en")


@given(rows, st.sampled_from(["given", "alpaca", "exchange", "instruction", "text", "weitiao"]))
@settings(max_examples=100, deadline=None)
def test_any_row_in_a_shape_that_is_not_its_own(row, name):
    shape = Shape(
        name, {"text": "text"} if name == "text" else {"prompt": "ask", "response": "input"}
    )
    assert reader_of(shape)(row, ORIGIN) == to_record(row, shape, ORIGIN)


def test_rows_with_other_columns_than_the_first():
    read = reader_of(detect_shape([{"ask": "a", "answer": "b"}]))
    assert read({"ask": "a", "answer": None, "n": 1}, ORIGIN) == Record(
        ORIGIN, (Message("user", "a"), Message("assistant", "")), metadata={"n": 1}
    )
    assert read({"ask": "a"}, ORIGIN) == Reason("missing_column", {"column": "answer"})


def test_many_sets_of_columns_are_not_remembered():
    read = reader_of(detect_shape([{"ask": "a", "answer": "b"}]))
    for i in range(1000):
        found = read({"ask": "a", "answer": "b", f"c{i}": i}, ORIGIN)
        assert isinstance(found, Record)
        assert found.metadata == {f"c{i}": i}

"""Records written in another tool's format and read again are the same records, or refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError
from weitiao.records.reading import read_file
from weitiao.records.record import Lineage, Message, Origin, Reason, Record
from weitiao.records.shaping import Format, detect_shape, reader_of, registry_entry, write
from weitiao.records.shaping.columns import KNOWN

HERE = Origin("here", 1)
FORMATS = get_args(Format)
WHOLE = ("openai", "ms-swift", "llamafactory", "weitiao")
ODD = (
    *("", " ", "\n", "\n a\r\n", '"', "'", "\u2028", "\x85", "\x00", "\ufeff", "null", "NaN", "7"),
    *("[]", "{}", '{"a": 1}', "[1", "<think>\nx\n</think>\n\ny", "<think>\n\n</think>\n\n", "床前"),
)


def read_back(path: Path) -> list[Record | Reason]:
    rows = list(read_file(path).rows)
    assert all(row.data is not None for row in rows), rows
    first = [row.data for row in rows[:200] if row.data is not None]
    read = reader_of(detect_shape(first, None, path.name, registry_entry(path)))
    return [read(row.data, row.origin) for row in rows if row.data is not None]


def at_home(found: Record | Reason) -> Record:
    assert isinstance(found, Record), found
    return replace(found, origin=HERE)


texts = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.sampled_from(sorted(KNOWN)) | st.sampled_from(["name", "a.responses", "话题"]) | texts
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=3,
)
metadata = st.dictionaries(names, values, max_size=2)
arguments = st.dictionaries(texts, values, max_size=2) | st.sampled_from(["", "x", "[1", "7"])
functions = st.fixed_dictionaries({"name": texts, "arguments": arguments})
calls = st.fixed_dictionaries({"type": st.just("function"), "function": functions}) | (
    st.fixed_dictionaries({"id": texts, "type": st.just("function"), "function": functions})
)
tools = st.fixed_dictionaries(
    {"type": st.just("function"), "function": st.dictionaries(texts, values, max_size=2)}
)
turns = st.builds(
    Message,
    st.sampled_from(["system", "user", "tool"]),
    texts,
    st.sampled_from([True, True, True, False]),
    st.just(()),
    st.just({}) | metadata,
) | st.builds(
    Message,
    st.just("assistant"),
    texts,
    st.booleans(),
    st.just(()) | st.lists(calls, max_size=2).map(tuple),
    st.just({}) | st.fixed_dictionaries({"loss_scale": st.sampled_from([0, 0.5, 1])}) | metadata,
)
ordinary = st.builds(
    lambda asked, system: (*((Message("system", "S"),) if system else ()), *asked),
    st.lists(
        st.tuples(
            st.builds(Message, st.just("user"), texts),
            st.builds(Message, st.just("assistant"), texts),
        ),
        min_size=1,
        max_size=2,
    ).map(lambda pairs: [turn for pair in pairs for turn in pair]),
    st.booleans(),
)
lineages = st.sampled_from([{}, {"weitiao": Lineage("p", "draft", True, ("甲",)).to_json()}])
records = st.builds(
    lambda said, text, extra, lineage, offered: Record(
        Origin("f", 1),
        said if text is None else (),
        text,
        {**extra, **lineage},
        offered if text is None else (),
    ),
    ordinary | st.lists(turns, max_size=4).map(tuple),
    st.none() | st.none() | texts,
    metadata,
    lineages,
    st.just(()) | st.lists(tools, max_size=2).map(tuple),
)
quick = settings(
    max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
@pytest.mark.parametrize("form", FORMATS)
@given(wanted=st.lists(records, min_size=1, max_size=4))
@quick
def test_what_is_written_reads_the_same(tmp_path_factory, form, ending, wanted):
    path = tmp_path_factory.mktemp("out") / f"rows{ending}"
    written = write(wanted, path, form)
    assert written.rows + len(written.refused) == len(wanted)
    if form in WHOLE:
        assert written.refused == ()
    assert all(reason.name == "not_in_format" for _, reason in written.refused)
    if written.rows == 0:
        assert not path.exists()
        return
    found = read_back(path)
    assert len(found) == written.rows
    waiting = iter(map(at_home, wanted))
    for record in found:
        assert at_home(record) in waiting  # in order, some of them left out


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
@given(wanted=st.lists(records, min_size=1, max_size=4))
@quick
def test_tables_hold_flat_rows(tmp_path_factory, ending, wanted):
    path = tmp_path_factory.mktemp("out") / f"rows{ending}"
    written = write(wanted, path, "alpaca")
    assert written.rows + len(written.refused) == len(wanted)
    if written.rows:
        waiting = iter(map(at_home, wanted))
        assert all(at_home(record) in waiting for record in read_back(path))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "name",
    [
        *("alpaca_zh.json", "identity.json", "glaive_toolcall_zh_demo.json", "v1_sft_demo.jsonl"),
        *("tang_quatrains.jsonl", "medical_qa_gbk.csv"),
    ],
)
def test_real_files_lose_nothing(shared, tmp_path, name, form):
    before = [r for r in read_back(shared / "data" / name)[:400] if isinstance(r, Record)]
    assert len(before) > 80
    written = write(before, tmp_path / "out.jsonl", form)
    refused = {record.origin for record, _ in written.refused}
    if (name, form) == ("glaive_toolcall_zh_demo.json", "alpaca"):
        # Alpaca has no calls of tools, and its turns alternate.
        alternate = {
            r.origin for r in before if {m.role for m in r.messages} == {"user", "assistant"}
        }
        assert refused >= {r.origin for r in before if any(m.tool_calls for m in r.messages)}
        assert len(refused & alternate) < 5
    else:
        assert not refused
    kept = [at_home(r) for r in before if r.origin not in refused]
    assert list(map(at_home, read_back(tmp_path / "out.jsonl"))) == kept


RECORD = Record(HERE, (Message("user", "a"), Message("assistant", "b")))


def test_nothing_is_overwritten(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("mine")
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        write([RECORD], path, "openai")
    assert path.read_text() == "mine"
    for name, form, shown in (("x.txt", "openai", r"\.jsonl"), ("x.csv", "openai", "table")):
        with pytest.raises(DataError, match=shown):
            write([RECORD], tmp_path / name, form)


@pytest.mark.parametrize(
    ("record", "form", "what"),
    [
        (Record(HERE, text="x"), "alpaca", "text"),
        (Record(HERE, (Message("user", "a"),)), "alpaca", "messages[0]"),
        (Record(HERE, (Message("system", " "), *RECORD.messages)), "alpaca", "messages[0]"),
        (replace(RECORD, metadata={"n": float("nan")}), "weitiao", "metadata"),
        (replace(RECORD, metadata={"n": (1, 2)}), "openai", "metadata.n"),
        (Record(HERE, (Message("user", "\ud800"),)), "openai", "messages"),
        (Record(HERE, (Message("assistant", "a", False),)), "conversation", "messages[0].loss"),
        (replace(RECORD, metadata={"n": 3}), "csv", "metadata.n"),
        (Record(HERE, (Message("user", "\ufeff"), RECORD.messages[1])), "csv", "messages"),
    ],
)
def test_what_a_format_cannot_hold_is_named(tmp_path, record, form, what):
    path = tmp_path / ("rows.csv" if form == "csv" else "rows.json")
    form = "alpaca" if form == "csv" else form
    written = write([record, RECORD], path, form)
    assert written.rows == 2 - len(written.refused)
    (left, reason), *_ = written.refused
    assert left is record
    assert reason == Reason("not_in_format", {"format": form, "what": what})
    for language in ("en", "zh"):
        assert what in reason.sentence(language)
        assert reason.hint(language)


def test_a_long_cell(tmp_path):
    long = replace(RECORD, messages=(Message("user", "长" * 200_000), RECORD.messages[1]))
    assert write([long], tmp_path / "rows.csv", "alpaca").rows == 1


def test_a_refusal_leaves_no_file(tmp_path):
    assert write([Record(HERE, text="x")], tmp_path / "rows.jsonl", "alpaca").rows == 0
    assert write([], tmp_path / "rows.csv", "alpaca").rows == 0
    assert list(tmp_path.iterdir()) == []


def test_rows_as_other_tools_want_them(tmp_path):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    record = Record(
        HERE,
        (
            Message("user", "问", metadata={"name": "li"}),
            Message("assistant", "看", tool_calls=(call,)),
            Message("tool", "r"),
            Message("assistant", "<think>\n想\n</think>\n\n答", False),
        ),
        metadata={"topic": "t", "answer": "x"},
        tools=({"type": "function", "function": {"name": "f"}},),
    )
    rows = {}
    for form in WHOLE:
        write([record], tmp_path / f"{form}.json", form)
        (rows[form],) = json.loads((tmp_path / f"{form}.json").read_text("utf-8"))
    openai, swift, factory = rows["openai"], rows["ms-swift"], rows["llamafactory"]
    assert openai["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"x": 1}'
    assert openai["messages"][3]["weight"] == 0
    assert openai["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert [t["role"] for t in swift["messages"]] == [
        "user",
        "assistant",
        "tool_call",
        "tool",
        "assistant",
    ]
    assert swift["messages"][4]["loss"] is False
    assert json.loads(swift["tools"]) == openai["tools"]
    assert factory["messages"][3] == {
        "role": "assistant",
        "content": [{"type": "reasoning", "value": "想"}, {"type": "text", "value": "答"}],
        "loss_weight": 0.0,
    }
    for row in (openai, swift, factory):
        assert (row["topic"], row["metadata"], row["messages"][0]["name"]) == (
            "t",
            {"answer": "x"},
            "li",
        )

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weitiao.errors import DataError, RunError
from weitiao.events import EventLog, read_events
from weitiao.records import files
from weitiao.records.options import CleanOptions, DataOptions
from weitiao.records.prepare import Checked, check, load_records, load_samples, prepare
from weitiao.records.record import Message, Origin, Reason, Record
from weitiao.records.render import ChatFormat
from weitiao.records.report import load_report

SILENT = EventLog()


def write(folder: Path, name: str, *rows: Any) -> Path:
    path = folder / name
    lines = [
        r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in rows
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def good(i: int) -> dict[str, str]:
    return {"prompt": f"问题 {i}", "response": f"回答 {i}"}


def reasons(checked: Checked) -> list[tuple[str, int]]:
    return [(row.reason.name, row.origin.line) for row in checked.rejected]


def test_spoilt_rows_are_rejected_each_by_its_name(tmp_path, letters):
    turns = [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"},
    ]
    path = write(
        tmp_path,
        "bank.jsonl",
        *(good(i) for i in range(30)),
        {"prompt": "q", "response": ""},
        {"prompt": "q", "response": " \n\u3000"},
        {"prompt": "", "response": "a"},
        {"prompt": " 问题 3", "response": "回答  3 "},
        b'{"prompt": "q", "resp',
        b'{"prompt": "q", "response": "a"',
        '{"prompt": "银行卡丢了", "response": "请挂失"}'.encode("gbk"),
        {"prompt": "q"},
        {"prompt": "q", "response": "a<|im_end|>b"},
        {"prompt": "q", "response": "<think>\n想\n</think>\n\n"},
        {"prompt": "q", "response": "<think>\n想\n</think>\n\n好"},
    )
    checked = check(path, DataOptions(), letters, SILENT)
    assert reasons(checked) == [
        ("empty_answer", 31),
        ("empty_answer", 32),
        ("empty_prompt", 33),
        ("duplicate", 34),
        ("broken_json", 35),
        ("broken_json", 36),
        ("broken_encoding", 37),
        ("missing_column", 38),
        ("special_token", 39),
        ("empty_answer", 40),
    ]
    report = checked.report
    assert (report.rows, report.kept, report.rejected) == (41, 31, 10)
    assert report.reasons["empty_answer"] == 3
    assert checked.rejected[3].reason.values == {"file": "bank.jsonl", "line": 4}
    assert "bank.jsonl line 4" in checked.rejected[3].reason.sentence("en")
    path = write(tmp_path, "turns.jsonl", {"messages": turns}, {"messages": turns[1:]})
    assert reasons(check(path, DataOptions(), letters, SILENT)) == [("bad_turn_order", 1)]


LINES = st.lists(
    st.one_of(
        st.integers(0, 5).map(lambda i: json.dumps(good(i), ensure_ascii=False).encode()),
        st.sampled_from(
            [
                b'{"prompt": "q"}',
                b'{"prompt": "q", "response": ""}',
                b'{"prompt": "\xd2\xf8", "response": "a"}',
                b"[1, 2]",
                b"null",
                b'{"prompt": {}, "response": "a"}',
                b'{"prompt": "q", "response": "\\ud800"}',
                '{"prompt": "长", "response": "'.encode() + b"x" * 300 + b'"}',
            ]
        ),
        st.binary(min_size=1, max_size=12)
        .map(lambda b: b.replace(b"\n", b"").replace(b"\0", b""))
        .filter(lambda b: b.strip(b" \t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85")),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(LINES)
def test_kept_and_rejected_are_all_rows(tmp_path_factory, letters, rows):
    folder = tmp_path_factory.mktemp("spoilt")
    first = [json.dumps(good(100 + i), ensure_ascii=False).encode() for i in range(14)]
    path = folder / "a.jsonl"
    path.write_bytes(b"\n".join(first + rows) + b"\n")
    options = DataOptions(max_tokens=200, too_long="reject")
    report = prepare(path, folder / "out", options, letters, SILENT)
    kept = (folder / "out/kept.jsonl").read_bytes().splitlines()
    rejected = [json.loads(line) for line in (folder / "out/rejected.jsonl").open("rb")]
    assert len(kept) == report.kept
    assert len(rejected) == report.rejected
    assert len(kept) + len(rejected) == 14 + len(rows)
    where = [json.loads(line)["origin"]["line"] for line in kept] + [r["line"] for r in rejected]
    assert sorted(where) == list(range(1, 15 + len(rows)))


CELLS = st.text(alphabet='ab,"\n；问 ', max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
def test_csv_rows_are_those_that_were_written(tmp_path_factory, letters, rows):
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "response"), ("一定", "保留"), *rows])
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(out.getvalue().encode())
    options = DataOptions(duplicates="keep", clean=CleanOptions(normalise=False))
    checked = check(path, options, letters, SILENT)
    found = [(r.messages[0].content, r.answer) for r in checked.records]
    assert found == [("一定", "保留")] + [r for r in rows if all(c.strip() for c in r)]
    assert checked.report.rows == len(rows) + 1


def test_what_is_written(tmp_path, letters):
    path = write(
        tmp_path, "d.jsonl", *(good(i) for i in range(50)), b"{", {"prompt": "a", "response": ""}
    )
    log = EventLog(tmp_path / "events.jsonl")
    out = tmp_path / "records"
    report = prepare(path, out, DataOptions(system="你是助手"), letters, log)
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["kept.jsonl", "rejected.jsonl", "train.jsonl", "val.jsonl", "test.jsonl", "report.json"]
    )
    assert load_report(out / "report.json") == report
    assert report.split == {"train": 40, "val": 5, "test": 5}
    kept = load_records(out / "kept.jsonl")
    assert kept[3] == Record(
        Origin("d.jsonl", 4),
        (Message("system", "你是助手"), Message("user", "问题 3"), Message("assistant", "回答 3")),
    )
    parts = {name: load_records(out / f"{name}.jsonl") for name in report.split}
    assert {name: len(rows) for name, rows in parts.items()} == report.split
    assert sorted(r.origin.line for rows in parts.values() for r in rows) == list(range(1, 51))
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").open(encoding="utf-8")]
    assert rejected[0]["row"] == "{"
    assert (rejected[0]["file"], rejected[0]["line"]) == ("d.jsonl", 51)
    assert (rejected[0]["reason"], rejected[0]["values"]) == ("broken_json", {"column": 2})
    assert rejected[0]["hint"].startswith("Look there")
    assert rejected[1]["row"] == {"prompt": "a", "response": ""}
    events = list(read_events(tmp_path / "events.jsonl"))
    assert events[0].kind == "records.file"
    assert events[0].data["shape"] == "exchange"
    assert events[-1].kind == "records.done"
    assert events[-1].data["kept"] == 50
    # What is trained on is what was counted.
    samples = load_samples(kept, letters, DataOptions())
    assert report.tokens == sum(len(s.ids) for s in samples)
    assert report.scored_tokens == sum(int(s.scored.sum()) for s in samples)
    assert [s.row for s in samples] == list(range(50))
    assert report.files[0].sentence("en").endswith("prompt → user; response → assistant")


def test_the_same_command_writes_the_same_bytes(tmp_path, letters):
    path = write(tmp_path, "d.jsonl", *(good(i % 30) for i in range(50)))
    for name in ("one", "two"):
        prepare(path, tmp_path / name, DataOptions(), letters, SILENT)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_turns_that_nobody_answers_are_left_out_and_told(tmp_path, letters):
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    path = write(tmp_path, "d.jsonl", {"messages": turns}, {"messages": turns[:1]})
    checked = check(path, DataOptions(), letters, SILENT)
    assert [m.content for m in checked.records[0].messages] == ["a", "b"]
    assert reasons(checked) == [("no_answer", 2)]
    assert "In 1 rows" in checked.report.notes[0].sentence("en")


def test_options_are_heard(tmp_path, letters):
    path = write(tmp_path, "d.jsonl", *(good(i % 5) for i in range(10)))
    assert check(path, DataOptions(duplicates="keep"), letters, SILENT).report.kept == 10
    assert check(path, DataOptions(), letters, SILENT).report.kept == 5
    assert check(path, DataOptions(limit=3), letters, SILENT).report.rows == 3
    long = write(tmp_path, "long.jsonl", good(1), {"prompt": "问" * 300, "response": "答"})
    shortened = check(long, DataOptions(max_tokens=100), letters, SILENT).report
    assert (shortened.kept, shortened.shortened, shortened.lengths.max) == (2, 1, 100)
    rejected = check(long, DataOptions(max_tokens=100, too_long="reject"), letters, SILENT)
    assert reasons(rejected) == [("too_long", 2)]
    named = write(tmp_path, "n.jsonl", {"q": "a", "r": "b"})
    columns = DataOptions(columns={"prompt": "q", "response": "r"})
    assert check(named, columns, letters, SILENT).records[0].answer == "b"


def test_few_questions_and_odd_names_are_told(tmp_path, letters):
    same = [{"prompt": "写诗", "response": f"诗 {i}"} for i in range(9)]
    report = check(write(tmp_path, "d.json", *same), DataOptions(), letters, SILENT).report
    assert [note.name for note in report.notes] == ["read_as", "few_groups"]
    assert all(note.sentence(language) for note in report.notes for language in ("en", "zh"))
    assert report.split == {"train": 9, "val": 0, "test": 0}


def test_a_folder_is_read_file_by_file(tmp_path, letters):
    write(tmp_path, "b.jsonl", good(1), good(2))
    (tmp_path / "a.csv").write_bytes(
        "问题,答案\n我的银行卡丢了怎么办？,请马上挂失。\n".encode("gb18030")
    )
    report = check(tmp_path, DataOptions(), letters, SILENT).report
    assert [(f.file, f.encoding, f.rows) for f in report.files] == [
        ("a.csv", "gb18030", 1),
        ("b.jsonl", "utf-8", 2),
    ]


def test_when_nothing_is_kept_the_commonest_reason_is_told(tmp_path, letters):
    path = write(tmp_path, "d.jsonl", {"ask": "a", "answer": ""}, {"ask": "b", "answer": ""}, b"{")
    with pytest.raises(DataError) as caught:
        check(path, DataOptions(), letters, SILENT)
    assert "2 rows, first in d.jsonl line 1" in caught.value.sentence("en")
    assert "The answer is empty. Fill in the answer" in caught.value.sentence("en")
    with pytest.raises(DataError, match="not valid JSON"):
        check(write(tmp_path, "e.jsonl", b"{", b"{"), DataOptions(), letters, SILENT)


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", "ask,answer\n"), ("a.json", "[]"), ("b.json", '{"data": []}')]
)
def test_no_rows(tmp_path, letters, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        check(tmp_path / name, DataOptions(), letters, SILENT)
    assert name in str(caught.value)


def test_a_full_disk_while_writing(tmp_path, letters, monkeypatch):
    path = write(tmp_path, "d.jsonl", good(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match="disk is full"):
        prepare(path, tmp_path / "out", DataOptions(), letters, SILENT)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_record_of_another_model_is_told_by_line(letters):
    record = Record(Origin("d.jsonl", 7), (Message("user", "a" * 50), Message("assistant", "b")))
    assert isinstance(letters.samples(record, max_tokens=16), Reason)
    with pytest.raises(DataError, match=r"d\.jsonl line 7"):
        load_samples([record], letters, DataOptions(max_tokens=16))


@pytest.mark.parametrize(
    ("name", "encoding", "shape", "rows", "kept"),
    [
        ("tang_quatrains.jsonl", "utf-8", "alpaca", 10500, 10499),
        ("medical_qa_gbk.csv", "gb18030", "exchange", 3000, 2947),
        ("alpaca_zh.json", "utf-8", "alpaca", 700, 697),
        ("identity.json", "utf-8", "alpaca", 91, 91),
        ("alpaca_en_demo.json", "utf-8", "alpaca", 999, 985),
        ("v1_sft_demo.jsonl", "utf-8", "llamafactory", 500, 499),
        ("wiki_demo.txt", "utf-8", "text", 967, 967),
        ("tone_labels.jsonl", "utf-8", "text", 1500, 1491),
    ],
)
def test_real_files(shared, qwen_tokenizer, name, encoding, shape, rows, kept):
    began = time.process_time()
    checked = check(shared / "data" / name, DataOptions(), ChatFormat(qwen_tokenizer), SILENT)
    report = checked.report
    assert (report.files[0].encoding, report.files[0].shape) == (encoding, shape)
    assert (report.rows, report.kept) == (rows, kept)
    assert set(report.reasons) <= {"duplicate"}
    assert abs(report.split["test"] - kept / 10) < 2
    said = [
        {(r.asked, r.text) for r in map(checked.records.__getitem__, part)}
        for part in checked.split.values()
    ]
    assert not said[0] & said[2]
    assert time.process_time() - began < 12


def test_real_chinese_survives_gbk(shared, letters):
    path = shared / "data/medical_qa_gbk.csv"
    expected = list(csv.reader(io.StringIO(path.read_bytes().decode("gb18030"), newline="")))[1:]
    as_it_is = CleanOptions(normalise=False)
    options = DataOptions(duplicates="keep", max_tokens=10_000, clean=as_it_is)
    checked = check(path, options, letters, SILENT)
    assert [(r.messages[0].content, r.answer) for r in checked.records] == [
        (row[2], row[3]) for row in expected
    ]
    assert checked.records[0].metadata["department"] == "心血管科"


def test_preference_file(shared, letters):
    with pytest.raises(DataError, match="preference"):
        check(shared / "data/dpo_zh_demo.json", DataOptions(), letters, SILENT)


def test_real_tool_calls(shared, models):
    _, chat = models["Qwen2.5-Instruct"]
    path = shared / "data/glaive_toolcall_zh_demo.json"
    report = check(path, DataOptions(max_tokens=4096), chat, SILENT).report
    assert (report.rows, report.kept, report.reasons) == (300, 257, {"duplicate": 43})

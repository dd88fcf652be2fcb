"""The verbs of ``weitiao data``, each as a person would use it."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from chat_service import serving
from conftest import Weitiao, one_sentence, write_rows


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def test_check_tells_what_was_changed_and_what_is_doubtful(weitiao: Weitiao, data: Path) -> None:
    with data.open("a", encoding="utf-8") as out:
        row = {
            "prompt": "我的电话是13812345678，\u200b怎么买茶？",
            "response": "抱歉，我无法回答这个问题。",
        }
        out.write(json.dumps(row, ensure_ascii=False) + "\n")
        row = {"prompt": "第3杯茶要泡几分钟？", "response": "看心情。"}
        out.write(json.dumps(row, ensure_ascii=False) + "\n")
    said = weitiao("data", "check", data)
    assert said.code == 0, said.err
    assert "64 rows read: 62 can be used, 2 cannot." in said.out
    assert "Invisible characters" in said.out
    assert "U+200B" in said.out
    assert "138****78" in said.out
    assert "13812345678" not in said.out
    assert "refusal" in said.out.lower()
    assert "different answers" in said.out
    assert sorted(p.name for p in data.parent.iterdir()) == ["tea.jsonl"], "nothing is written"
    quick = weitiao("data", "check", data, "--no-tokens", "clean.private=reject")
    assert "64 rows read: 61 can be used, 3 cannot." in quick.out
    assert "tokens" in said.out
    assert "tokens, " not in quick.out, "what was not counted is not told"
    chinese = weitiao("data", "check", data, "--lang", "zh")
    assert "可用 62 行" in chinese.out


def test_report_writes_a_page_and_never_over_another(weitiao: Weitiao, data: Path) -> None:
    said = weitiao("data", "report", data)
    assert said.code == 0, said.err
    page = data.parent / "tea.data.html"
    assert "<html" in page.read_text("utf-8")
    assert str(page.name) in one_sentence(weitiao("data", "report", data))
    assert weitiao("data", "report", data, "--out", "other.html", "--lang", "zh").code == 0
    assert 'lang="zh' in (data.parent / "other.html").read_text("utf-8")


def test_report_of_a_run(weitiao: Weitiao, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    said = weitiao("data", "report", finished / "runs/tea", "--out", "tea-run.html")
    assert said.code == 0, said.err
    assert (Path.cwd() / "tea-run.html").is_file()


@pytest.mark.parametrize(
    "form", ["alpaca", "conversation", "openai", "ms-swift", "llamafactory", "weitiao"]
)
def test_convert_there_and_back(weitiao: Weitiao, data: Path, form: str) -> None:
    said = weitiao("data", "convert", data, "--to", form, "--out", f"there.{form}.json")
    assert said.code == 0, said.err
    assert "61 rows written" in said.out
    put_aside = rows_of(data.parent / f"there.{form}.rejected.jsonl")
    assert [row["row"] for row in put_aside] == ['{"prompt": "没有写完']
    back = weitiao(
        "data", "convert", f"there.{form}.json", "--to", "weitiao", "--out", "back.jsonl"
    )
    assert back.code == 0, back.err
    first = rows_of(data.parent / "back.jsonl")[0]
    assert [turn["content"] for turn in first["messages"]] == ["第0杯茶要泡几分钟？", "泡1分钟。"]
    assert "there already" in one_sentence(
        weitiao("data", "convert", data, "--to", form, "--out", "back.jsonl")
    )


def test_convert_a_part_of_a_run(weitiao: Weitiao, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.json"
    run = finished / "runs/tea"
    said = weitiao("data", "convert", run, "--part", "train", "--to", "openai", "--out", out)
    assert said.code == 0, said.err
    assert len(json.loads(out.read_text("utf-8"))) == len(rows_of(run / "records/train.jsonl"))
    assert "--part" in one_sentence(weitiao("data", "convert", run, "--part", "half"))
    assert "alpaca" in one_sentence(weitiao("data", "convert", run, "--to", "alpacca"))


def test_convert_puts_aside_what_the_format_cannot_hold(weitiao: Weitiao, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "问"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "答"},
    ]
    data = write(tmp_path / "a.jsonl", [{"messages": turns}, {"messages": [turns[0], turns[3]]}])
    said = weitiao("data", "convert", data, "--to", "alpaca", "--out", "b.json")
    assert said.code == 0, said.err
    assert "1 rows written" in said.out
    (aside,) = rows_of(tmp_path / "b.rejected.jsonl")
    assert aside["line"] == 1
    assert aside["row"]["messages"][1]["tool_calls"][0]["function"]["name"] == "f"


def test_leaks_of_a_test_file(weitiao: Weitiao, data: Path) -> None:
    test = write(
        data.parent / "test.jsonl",
        [
            {"prompt": "第3杯茶要泡几分钟?", "response": "不知道"},
            {"prompt": "完全另外的一个问题，谁也没有问过", "response": "是的"},
        ],
    )
    said = weitiao("data", "leaks", data, "--test", test)
    assert said.code == 0, said.err
    assert "1 of 2 test rows" in said.out
    assert "tea.jsonl line 4" in said.out
    assert "--test" in one_sentence(weitiao("data", "leaks", data))


def test_grow_by_synonyms_and_train_on_it(weitiao: Weitiao, data: Path) -> None:
    thesaurus = data.parent / "words.txt"
    thesaurus.write_text("要泡 需要泡\n", encoding="utf-8")
    said = weitiao("data", "grow", data, "--thesaurus", thesaurus, "--share", "0.5")
    assert said.code == 0, said.err
    rows = rows_of(data.parent / "tea.grown.jsonl")
    new = [row for row in rows if "weitiao" in row.get("metadata", {})]
    assert new
    assert len(rows) == 61 + len(new)
    assert {row["metadata"]["weitiao"]["method"] for row in new} == {"synonyms"}
    checked = weitiao("data", "check", "tea.grown.jsonl", "grown=drop")
    assert checked.code == 0, checked.err
    assert f"{len(new):,}" in checked.out
    # What was put aside beside the data is no data.
    aside = weitiao("data", "check", data.parent)
    assert aside.code == 0, aside.err
    assert "tea.grown.rejected.jsonl" in aside.out
    assert "thesaurus" in one_sentence(weitiao("data", "grow", data))
    assert "there already" in one_sentence(weitiao("data", "grow", data, "--thesaurus", thesaurus))


def test_paraphrase_asks_the_service_and_says_when_there_is_none(
    weitiao: Weitiao, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "endpoint.url" in one_sentence(weitiao("data", "grow", data, "--by", "paraphrase"))
    few = write_rows(tmp_path / "few.jsonl", 3)
    with serving(lambda asked: "请问这一杯茶需要泡上几分钟的时间才好？") as service:
        settings = (f"endpoint.url={service.url}", "endpoint.model=m")
        said = weitiao("data", "grow", few, "--by", "paraphrase", *settings)
    assert said.code == 0, said.err
    assert service.requests
    # The number of the parent is missing: nothing of it passes the gate.
    assert (tmp_path / "few.grown.rejected.jsonl").is_file()


def test_drafts_are_made_reviewed_and_used(
    weitiao: Weitiao, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    document = tmp_path / "tea.md"
    document.write_text(
        "绿茶应当用八十度左右的水来冲泡，\n时间不要太长，否则会发苦。", encoding="utf-8"
    )
    pairs = [{"question": "绿茶用多热的水冲泡？", "answer": "用八十度左右的水来冲泡。"}]
    with serving(lambda asked: json.dumps(pairs, ensure_ascii=False)) as service:
        settings = (f"endpoint.url={service.url}", "endpoint.model=m")
        said = weitiao("data", "draft", document, *settings)
    assert said.code == 0, said.err
    assert "weitiao data review tea.drafts.jsonl" in said.out
    assert "draft" in one_sentence(weitiao("data", "check", "tea.drafts.jsonl"))
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nq\n"))
    reviewed = weitiao("data", "review", "tea.drafts.jsonl", "--reviewer", "王")
    assert reviewed.code == 0, reviewed.err
    assert document.read_text("utf-8") in reviewed.out, "a draft is judged by its passage"
    checked = weitiao("data", "check", "tea.drafts.jsonl", "split=[1,0,0]")
    assert "all can be used" in checked.out, checked


def test_label_studio_there_and_back(weitiao: Weitiao, data: Path, tmp_path: Path) -> None:
    said = weitiao("data", "review", data, "--export", "tasks.json")
    assert said.code == 0, said.err
    assert "<View>" in said.out
    tasks = json.loads((tmp_path / "tasks.json").read_text("utf-8"))
    assert len(tasks) == 61
    assert "there already" in one_sentence(
        weitiao("data", "review", data, "--export", "tasks.json")
    )
    choice = {"from_name": "verdict", "to_name": "prompt", "type": "choices"}
    tasks[0]["annotations"] = [
        {
            "completed_by": {"email": "li@tea.cn"},
            "result": [{**choice, "value": {"choices": ["reject"]}}],
            "updated_at": "2026-11-22T10:00:00Z",
        }
    ]
    (tmp_path / "export.json").write_text(json.dumps(tasks[:1]), "utf-8")
    taken = weitiao("data", "review", data, "--import", "export.json")
    assert taken.code == 0, taken.err
    assert "1 new decisions" in taken.out
    checked = weitiao("data", "check", data)
    assert "61 can be used" not in checked.out
    assert "59 can be used, 3 cannot" in checked.out


def test_what_was_begun_stays(weitiao: Weitiao, finished: Path) -> None:
    run = finished / "runs/tea"
    assert "is a run" in one_sentence(weitiao("data", "show", run, "1", "max_tokens=64"))
    assert "is a run" in one_sentence(weitiao("data", "report", run, "near=reject"))


def test_leaks_of_a_run_looks_at_all_training_rows(weitiao: Weitiao, finished: Path) -> None:
    run = finished / "runs/tea"
    said = weitiao("data", "leaks", run, "--test", finished / "tea.jsonl")
    assert said.code == 0, said.err
    assert "rows cannot be read" in said.out
    rows = len(rows_of(run / "records/train.jsonl"))
    told = re.search(r"^(\d+) of 61 test rows", said.out, re.MULTILINE)
    assert told
    assert int(told[1]) >= rows


def test_a_column_that_is_not_there(weitiao: Weitiao, data: Path) -> None:
    assert "no column kind" in one_sentence(weitiao("data", "check", data, "balance.by=kind"))
    noted = weitiao("data", "check", data, "group_by=kind")
    assert "group_by has no effect" in noted.out

"""The log of requests: what stands in it, for how long, and that it never holds anybody up."""

import json
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.counting import CountingEngine, service, serving, wait_for
from weitiao.serving.hooks import Answered
from weitiao.serving.keeping import KeepOptions
from weitiao.serving.request_log import RequestLog, tables
from weitiao.serving.tables import Background

CHAT = "/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "秘密的问题"}]}
DAY = 86400


@contextmanager
def log(path: Path, **options: object) -> Iterator[RequestLog]:
    made = RequestLog(path, KeepOptions.model_validate(options))
    try:
        yield made
    finally:
        made.close()


def answered(number: int = 1, age: float = 0) -> Answered:
    return Answered(
        id=f"chatcmpl-{number}",
        request_id=f"r{number}",
        time=time.time() - age,
        seconds=0.5,
        route=CHAT,
        model="tuned",
        question=ASKED["messages"],
        answers=("秘密的回答",),
        finishes=("stop",),
        prompt_tokens=3,
        completion_tokens=4,
    )


def rows(path: Path, columns: str = "*") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as base:
        return base.execute(f"SELECT {columns} FROM request ORDER BY rowid").fetchall()


def ask(path: Path, count: int = 1, **options: object) -> list[str]:
    """The ids of answers that a server gave."""
    with log(path, **options) as kept:
        with serving(replace(service(CountingEngine()), recorder=kept)) as address:
            replies = [httpx.post(address + CHAT, json=ASKED) for _ in range(count)]
        assert {reply.status_code for reply in replies} == {200}
    return [reply.json()["id"] for reply in replies]


def test_times_and_counts_without_texts_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "serving" / "requests.sqlite"
    ids = ask(path, 2)
    found = rows(path, "id, route, model, finishes, prompt_tokens, completion_tokens, question")
    assert [row[0] for row in found] == ids
    assert found[0][1:4] == (CHAT, "tuned", '["stop"]')
    assert found[0][4] > 0
    assert found[0][5] > 0
    assert found[0][6] is None
    everything = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert "秘密".encode() not in everything
    assert path.stat().st_mode & 0o777 == 0o600


def test_texts_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    ask(path, log="full")
    ((question, answers),) = rows(path, "question, answers")
    # With the system prompt that the model was asked with.
    assert json.loads(question) == [{"role": "system", "content": "你是诗人"}, *ASKED["messages"]]
    assert json.loads(answers) == ["秘密的问题"]


@pytest.mark.parametrize(
    ("path", "asked", "turns"),
    [
        ("/generate", {"prompt": "问"}, ["你是诗人", "问"]),
        ("/generate", {"query": "问", "system": "简短"}, ["简短", "问"]),
        ("/generate", {"query": "问", "model": "base"}, ["问"]),
        (CHAT, {"messages": [{"role": "developer", "content": "简短"}]}, ["简短"]),
        (CHAT, {"messages": [{"role": "user", "content": "问"}], "model": "base"}, ["问"]),
    ],
)
def test_the_question_is_what_the_model_was_asked(
    tmp_path: Path, path: str, asked: dict[str, Any], turns: list[str]
) -> None:
    with (
        log(tmp_path / "r.sqlite", log="full") as kept,
        serving(replace(service(CountingEngine()), recorder=kept)) as address,
    ):
        assert httpx.post(address + path, json=asked).status_code == 200
    ((question,),) = rows(tmp_path / "r.sqlite", "question")
    assert [turn["content"] for turn in json.loads(question)] == turns


@pytest.mark.parametrize("options", [{"log": "off"}, {"log_sample": 0}])
def test_nothing_where_nothing_is_wanted(tmp_path: Path, options: dict[str, Any]) -> None:
    ask(tmp_path / "r.sqlite", 3, **options)
    assert rows(tmp_path / "r.sqlite") == []


def test_a_share_of_the_requests(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with log(path, log_sample=0.3) as kept:
        for number in range(1000):
            kept.record(answered(number))
            if number % 100 == 0:
                wait_for(lambda: not kept._file._tasks.qsize())
    assert 200 < len(rows(path)) < 400


def test_old_requests_go_when_it_begins_and_every_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.sqlite"
    with log(path) as kept:
        kept.record(answered(1, 3 * DAY))
        kept.record(answered(2, DAY))
    assert len(rows(path)) == 2
    with log(path, log_days=2):
        wait_for(lambda: [row[0] for row in rows(path, "id")] == ["chatcmpl-2"])
    monkeypatch.setattr("weitiao.serving.tables._HOUR", 0.1)
    with log(path, log_days=2) as kept:
        kept.record(answered(3, 3 * DAY))
        wait_for(lambda: len(rows(path)) == 2)
        # Any request wakes it; an idle server looks every minute.
        time.sleep(0.2)
        kept.record(answered(4))
        wait_for(lambda: [row[0] for row in rows(path, "id")] == ["chatcmpl-2", "chatcmpl-4"])


def test_it_is_gone_on_with_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    for number in (1, 2):
        with log(path) as kept:
            kept.record(answered(number))
    assert [row[0] for row in rows(path, "id")] == ["chatcmpl-1", "chatcmpl-2"]


def test_what_has_no_room_is_dropped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Background(tables(tmp_path / "r.sqlite"), lambda base: None, most_waiting=5)
    with caplog.at_level(logging.WARNING, "weitiao.serving"):
        file.tell(lambda base: time.sleep(0.5))
        begun = time.monotonic()
        for _ in range(50):
            file.tell(lambda base: None)
        assert time.monotonic() - begun < 0.3
        wait_for(lambda: "dropped" in caplog.messages)
        file.close()
    assert file.dropped >= 44
    assert caplog.messages == ["dropped"]


def test_a_log_that_cannot_be_written_fails_no_request_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING, "weitiao.serving"):
        ask(tmp_path / "file" / "r.sqlite", 3)
    assert caplog.messages == ["failed"]


def test_a_damaged_log_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    path.write_bytes(b"no database at all" * 100)
    assert [row[0] for row in rows_after(path)] == ["chatcmpl-1"]
    assert (tmp_path / "r.broken-1.sqlite").read_bytes() == b"no database at all" * 100


def rows_after(path: Path) -> list[tuple[Any, ...]]:
    with log(path) as kept:
        kept.record(answered())
    return rows(path, "id")

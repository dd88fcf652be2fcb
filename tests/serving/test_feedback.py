"""Feedback: what is taken, what counts, the rows it gives, and that deleted is deleted."""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

from serving.counting import CHAT as FORMAT
from serving.counting import CountingEngine, service, wait_for
from serving.test_request_log import ASKED, CHAT, DAY, answered, log, rows
from weitiao import api
from weitiao.api import feedback
from weitiao.cli.feedback import feedback_app
from weitiao.errors import DataError, RecipeError, RunError
from weitiao.events import EventLog
from weitiao.records.options import DataOptions
from weitiao.records.prepare import load_records, prepare
from weitiao.serving.app import create_app
from weitiao.serving.feedback import feedback_router
from weitiao.serving.feedback_rows import feedbacks
from weitiao.serving.request_log import Feedback
from weitiao.words import set_language


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    set_language("en")
    yield
    set_language("en")


@contextmanager
def served(path: Path, **options: object) -> Iterator[httpx.Client]:
    with log(path, **options) as kept:
        app = create_app(replace(service(CountingEngine()), recorder=kept))
        app.include_router(feedback_router(kept))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_for(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(10)


def tell(client: httpx.Client, request: str, **said: object) -> httpx.Response:
    return client.post("/v1/feedback", json={"request_id": request, **said})


def keep(path: Path, *said: tuple[int, Feedback], **options: object) -> None:
    """Write requests down, and feedback on them by number."""

    async def add() -> None:
        for number, one in said:
            assert await kept.add(f"chatcmpl-{number}", one)

    with log(path, **{"log": "full", **options}) as kept:
        for number in sorted({number for number, _ in said}):
            kept.record(replace(answered(number), answers=(f"回答{number}",)))
        asyncio.run(add())


@pytest.mark.parametrize("options", [{}, {"log": "full"}, {"log": "off"}, {"log_sample": 0}])
def test_feedback_finds_its_answer_by_either_id(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "r.sqlite"
    with served(path, **options) as client:
        one, two = (client.post(CHAT, json=ASKED) for _ in range(2))
        reply = tell(client, one.json()["id"], thumb="up")
        assert reply.status_code == 200
        assert reply.json() == {
            "id": "fb-1",
            "object": "feedback",
            "request_id": one.json()["id"],
        }
        assert tell(client, two.headers["x-request-id"], comment="短").status_code == 200
    found = feedbacks(path)
    assert [entry.request for entry in found] == [one.json()["id"], two.json()["id"]]
    assert [entry.feedback.thumb for entry in found] == ["up", None]
    known = options == {"log": "full"}
    asked = ({"role": "system", "content": "你是诗人"}, *ASKED["messages"])
    assert found[0].feedback.messages == (asked if known else None)


def test_what_is_refused(tmp_path: Path) -> None:
    with served(tmp_path / "r.sqlite") as client:
        unknown = tell(client, "chatcmpl-none", thumb="up")
        assert unknown.status_code == 404
        assert unknown.json()["error"]["code"] == "request_not_found"
        assert "chatcmpl-none" in unknown.json()["error"]["message"]
        assert tell(client, "x", thumb="sideways").status_code == 400
        assert tell(client, "", thumb="up").status_code == 400
        assert tell(client, "x", correction=3).status_code == 400
        half = b'{"request_id": "\\ud800", "comment": "\\udfff"}'
        json_ = {"content-type": "application/json"}
        assert client.post("/v1/feedback", content=half, headers=json_).status_code == 400
        assert tell(client, "\x00", comment="\x00").status_code == 404
        plain = client.post("/v1/feedback", content=b"{}", headers={"content-type": "text/plain"})
        assert plain.status_code == 415
        assert "/v1/feedback" in client.get("/openapi.json").json()["paths"]


def test_a_store_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with served(tmp_path / "file" / "r.sqlite") as client:
        asked = client.post(CHAT, json=ASKED)
        reply = tell(client, asked.json()["id"], thumb="up")
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "30"


def test_the_last_feedback_counts_and_all_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    keep(
        path,
        (1, Feedback("up")),
        (2, Feedback("down")),
        (1, Feedback("down", comment="其实不对")),
        (3, Feedback("up")),
        (3, Feedback()),
    )
    found = feedbacks(path)
    assert [(entry.request, entry.feedback.thumb) for entry in found] == [
        ("chatcmpl-2", "down"),
        ("chatcmpl-1", "down"),
    ]
    base = sqlite3.connect(path)
    assert base.execute("SELECT count(*) FROM feedback").fetchone() == (5,)
    base.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def exported(path: Path, form: Any = "answers") -> tuple[Any, list[dict[str, Any]]]:
    out = path.with_name(f"{form}.jsonl")
    done = feedback.export(str(path), str(out), form)
    return done, lines(out) if out.exists() else []


SAID = (
    (1, Feedback("up")),
    (2, Feedback("down", "更好的回答")),
    (3, Feedback("down")),
    (4, Feedback(comment="嗯")),
    (5, Feedback(None, "回答5")),
)


def test_good_answers_and_corrections_become_rows(tmp_path: Path) -> None:
    keep(tmp_path / "r.sqlite", *SAID)
    done, found = exported(tmp_path / "r.sqlite")
    assert (done.rows, done.unknown) == (3, 0)
    answers = [row["messages"][-1] for row in found]
    assert [turn["content"] for turn in answers] == ["回答1", "更好的回答", "回答5"]
    assert found[0]["messages"][:-1] == ASKED["messages"]
    done, found = exported(tmp_path / "r.sqlite", "preferences")
    assert done.rows == 1
    assert found == [
        {
            "prompt": ASKED["messages"],
            "chosen": [{"role": "assistant", "content": "更好的回答"}],
            "rejected": [{"role": "assistant", "content": "回答2"}],
        }
    ]
    with pytest.raises(DataError, match="already"):
        exported(tmp_path / "r.sqlite")


def test_what_was_asked_comes_from_the_asker_where_it_is_not_logged(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    told = ({"role": "user", "content": "我问的"},)
    keep(
        path,
        (1, Feedback("up")),
        (2, Feedback("up", messages=told, answer="我看到的")),
        (3, Feedback("up", messages=told, answer="先前")),
        (3, Feedback("down", "应当是")),
        log="meta",
    )
    done, found = exported(path)
    assert (done.rows, done.unknown) == (2, 1)
    assert [row["messages"][1]["content"] for row in found] == ["我看到的", "应当是"]
    assert exported(path, "preferences")[1][0]["rejected"][0]["content"] == "先前"


def test_what_the_asker_tells_gets_the_models_own_system_prompt(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    own, theirs = ({"role": "system", "content": text} for text in ("你是诗人", "你是船长"))
    none = {"role": "system", "content": ""}
    asked = ASKED["messages"]
    cases: list[tuple[dict[str, Any], list[dict[str, str]], list[dict[str, str]]]] = [
        ({"messages": asked}, asked, [own, *asked]),
        ({"messages": asked}, [own, *asked], [own, *asked]),
        ({"messages": [theirs, *asked]}, [theirs, *asked], [theirs, *asked]),
        # Whoever asked without the model's own prompt did not get it.
        ({"messages": [none, *asked]}, asked, asked),
        ({"messages": asked, "model": "base"}, asked, asked),
    ]
    with served(path, log="meta") as client:
        for body, told, _ in cases:
            id_ = client.post(CHAT, json=body).json()["id"]
            said = {"correction": "改正", "messages": told, "answer": "答"}
            assert tell(client, id_, **said).status_code == 200
    _, found = exported(path)
    assert [row["messages"][:-1] for row in found] == [row for _, _, row in cases]
    _, found = exported(path, "preferences")
    assert [row["prompt"] for row in found] == [row for _, _, row in cases]


def test_what_was_logged_counts_more_than_what_the_asker_tells(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    told = ({"role": "user", "content": "不是我问的"},)
    several = ("一", "二\n")

    async def add() -> None:
        for number, one in ((1, "没说过"), (2, "二"), (3, "没说过"), (4, "没说过")):
            said = Feedback("down", "更好", messages=told, answer=one)
            assert await kept.add(f"r{number}", said)

    with log(path, log="full") as kept:
        kept.record(answered(1))
        kept.record(replace(answered(2), answers=several))
        kept.record(replace(answered(3), answers=several))
        kept.record(replace(answered(4), route="/v1/completions", question="从前"))
        asyncio.run(add())
    said = [(entry.feedback.messages, entry.feedback.answer) for entry in feedbacks(path)]
    asked = tuple(ASKED["messages"])
    assert said == [
        (asked, "秘密的回答"),
        (asked, "二\n"),  # told which of several
        (asked, None),
        (None, "秘密的回答"),
    ]


def test_only_questions_that_were_conversations(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    parts = [{"type": "text", "text": "两"}, {"type": "text", "text": "段"}]
    asked: Sequence[tuple[str, Any, tuple[str, ...]]] = [
        ("/generate", "问", ("答",)),
        ("/v1/completions", "从前", ("有座山",)),
        (
            CHAT,
            [{"role": "developer", "content": "简短"}, {"role": "user", "content": parts}],
            ("答",),
        ),
        (CHAT, ASKED["messages"], ("一", "二")),
    ]

    async def add() -> None:
        for number in range(len(asked)):
            assert await kept.add(f"r{number}", Feedback("up"))

    with log(path, log="full") as kept:
        for number, (route, question, answers) in enumerate(asked):
            one = replace(answered(number), route=route, question=question, answers=answers)
            kept.record(one)
        asyncio.run(add())
    done, found = exported(path)
    assert (done.rows, done.unknown) == (2, 2)
    assert found[0]["messages"][0] == {"role": "user", "content": "问"}
    assert found[1]["messages"][:2] == [
        {"role": "system", "content": "简短"},
        {"role": "user", "content": "两段"},
    ]


def test_no_file_without_rows(tmp_path: Path) -> None:
    keep(tmp_path / "r.sqlite", (1, Feedback("down")))
    done, found = exported(tmp_path / "r.sqlite")
    assert (done.rows, done.unknown, found) == (0, 0, [])


def test_the_records_stage_reads_the_rows(tmp_path: Path) -> None:
    asked = [f"第{i}杯茶要泡几分钟？" for i in range(12)]

    async def add() -> None:
        for number in range(len(asked)):
            said = Feedback("up") if number % 2 else Feedback("down", f"泡{number}分钟就好。")
            assert await kept.add(f"r{number}", said)

    with log(tmp_path / "r.sqlite", log="full") as kept:
        for number, text in enumerate(asked):
            question = [{"role": "user", "content": text}]
            kept.record(replace(answered(number), question=question))
        asyncio.run(add())
    out = tmp_path / "rows.jsonl"
    feedback.export(str(tmp_path / "r.sqlite"), str(out))
    prepare(out, tmp_path / "records", DataOptions(), FORMAT, EventLog(tmp_path / "events.jsonl"))
    kept_rows = load_records(tmp_path / "records" / "kept.jsonl")
    assert sorted(row.asked for row in kept_rows) == sorted(asked)
    assert {row.answer for row in kept_rows if "2" in row.asked} >= {"泡2分钟就好。"}


def test_deleted_is_gone_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    keep(path, (1, Feedback("up")), (2, Feedback("down", "改正二")), (3, Feedback("up")))
    with log(path) as kept:
        kept.record(answered(4, 3 * DAY))
        wait_for(lambda: len(rows(path)) == 4)
        # A server that runs is no obstacle.
        done = feedback.delete(str(path), ["chatcmpl-2", "r3", "none"])
        assert (done.requests, done.feedbacks) == (2, 2)
        assert "改正二".encode() not in b"".join(f.read_bytes() for f in tmp_path.iterdir())
        done = feedback.delete(str(path), before=time.time() - DAY)
        assert (done.requests, done.feedbacks) == (1, 0)
        assert [row[0] for row in rows(path, "id")] == ["chatcmpl-1"]
    done = feedback.delete(str(path))
    assert (done.requests, done.feedbacks) == (1, 1)
    assert rows(path) == []


def test_requests_with_feedback_outlive_the_others(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"

    async def add() -> None:
        assert await kept.add("r1", Feedback("up"))

    with log(path) as kept:
        kept.record(answered(1, 9 * DAY))
        kept.record(answered(2, 9 * DAY))
        asyncio.run(add())
    with log(path, log_days=1):
        wait_for(lambda: [row[0] for row in rows(path, "id")] == ["chatcmpl-1"])


def test_a_file_that_is_missing_or_none_of_ours(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("model: embedded\n")
    assert api.open_run(run).path == run
    with pytest.raises(RunError, match=r"requests\.sqlite does not exist"):
        feedback.listing(str(run))
    with pytest.raises(RunError):
        feedback.listing(str(tmp_path / "nowhere"))
    theirs = tmp_path / "theirs.sqlite"
    base = sqlite3.connect(theirs)
    base.execute("CREATE TABLE request (x)")
    base.close()
    before = theirs.read_bytes()
    with pytest.raises(RunError, match="not written by this version"):
        feedback.listing(str(theirs))
    assert theirs.read_bytes() == before
    other = tmp_path / "notes.txt"
    other.write_text("no database at all, but a text of mine " * 40)
    with pytest.raises(RunError, match="damaged"):
        feedback.delete(str(other))
    assert other.read_text().startswith("no database")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "run", "theirs.sqlite"]


def test_the_verbs(tmp_path: Path) -> None:
    store = tmp_path / "run" / "serving" / "requests.sqlite"
    keep(store, *SAID)
    (tmp_path / "run" / "recipe.yaml").write_text("model: embedded\n")
    run, out = str(tmp_path / "run"), str(tmp_path / "rows.jsonl")

    def said(*words: str) -> Any:
        return CliRunner().invoke(feedback_app, list(words), env={"COLUMNS": "200"})

    listed = said("list", run, "-n", "2")
    assert listed.exit_code == 0
    assert "2 of 5 shown" in listed.output
    assert "chatcmpl-5" in listed.output
    assert "Rows written: 3" in said("export", run, "--out", out).output
    assert len(lines(Path(out))) == 3
    assert isinstance(said("export", run, "--out", out).exception, DataError)
    assert isinstance(said("export", run, "--out", "y", "--as", "z").exception, RecipeError)
    for wrong in ((), ("--all", "--id", "r1"), ("--before", "yesterday")):
        assert isinstance(said("delete", run, *wrong).exception, RecipeError), wrong
    assert "Requests deleted: 1. Feedback deleted: 1." in said("delete", run, "--id", "r1").output
    assert "Requests deleted: 0." in said("delete", run, "--before", "2020-01-01").output
    assert "Requests deleted: 4." in said("delete", run, "--all").output
    assert "no feedback yet" in said("list", run).output

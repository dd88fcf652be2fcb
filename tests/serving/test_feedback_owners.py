"""Feedback is for who asked, in files of earlier versions too; cut answers teach nothing."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from serving.counting import CountingEngine, saying, service, serving
from serving.jobs_use import listening, until
from serving.test_feedback import exported, lines
from serving.test_request_log import ASKED, CHAT, answered, log, rows
from weitiao.api import feedback
from weitiao.cli.feedback import feedback_app
from weitiao.serving.app import create_app
from weitiao.serving.feedback import feedback_router
from weitiao.serving.feedback_rows import feedbacks
from weitiao.serving.jobs.options import JobOptions
from weitiao.serving.jobs.running import add_jobs
from weitiao.serving.request_log import Feedback
from weitiao.words import set_language

FIRST_VERSION = (
    "CREATE TABLE request (id TEXT PRIMARY KEY, request_id TEXT NOT NULL, time REAL NOT NULL,"
    " seconds REAL NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL, question TEXT, answers TEXT,"
    " finishes TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL)",
    "CREATE INDEX request_by_time ON request (time)",
    "CREATE INDEX request_by_request_id ON request (request_id)",
    "CREATE TABLE feedback (number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " request TEXT NOT NULL REFERENCES request (id), time REAL NOT NULL, thumb TEXT,"
    " correction TEXT, comment TEXT, messages TEXT, answer TEXT)",
    "CREATE INDEX feedback_by_request ON feedback (request)",
    "INSERT INTO request VALUES ('chatcmpl-0', 'r0', 1e10, 1, '/generate', 'tuned', '\"问\"',"
    " '[\"答\"]', '[\"stop\"]', 1, 1)",
    "INSERT INTO feedback VALUES (7, 'chatcmpl-0', 1e10, 'up', NULL, NULL, NULL, NULL)",
    "PRAGMA user_version = 1",
)


@pytest.fixture(autouse=True)
def _english() -> Iterator[None]:
    set_language("en")
    yield
    set_language("en")


def of_first_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as base:
        for statement in FIRST_VERSION:
            base.execute(statement)
        base.commit()


@contextmanager
def guarded(path: Path, *keys: str, **options: object) -> Iterator[str]:
    with log(path, **options) as kept:
        made = replace(service(CountingEngine(), api_keys=keys), recorder=kept)
        with serving(made, feedback_router(kept)) as address:
            yield address


def post(address: str, key: str, path: str, **body: object) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.post(address + path, json=body, headers=headers, timeout=20)


@pytest.mark.parametrize("options", [{"log": "full"}, {"log": "off"}])
def test_only_the_key_that_asked_may_say_something(
    tmp_path: Path, options: dict[str, object]
) -> None:
    path = tmp_path / "r.sqlite"
    with guarded(path, "a", "b", **options) as address:
        id_ = post(address, "a", CHAT, **ASKED).json()["id"]
        theirs = post(address, "b", "/v1/feedback", request_id=id_, thumb="down")
        none = post(address, "b", "/v1/feedback", request_id="chatcmpl-none", thumb="down")
        assert (theirs.status_code, none.status_code) == (404, 404)
        assert theirs.text.replace(id_, "") == none.text.replace("chatcmpl-none", "")
        assert feedbacks(path) == []
        own = post(address, "a", "/v1/feedback", request_id=id_, thumb="up")
        assert own.status_code == 200
    # Another place among the keys, and a restart, do not make it another key.
    with guarded(path, "c", "b", "a", **options) as address:
        again = post(address, "a", "/v1/feedback", request_id=id_, thumb="down")
        assert again.status_code == 200
        assert post(address, "b", "/v1/feedback", request_id=id_, thumb="up").status_code == 404
    with guarded(path, **options) as address:
        assert post(address, "", "/v1/feedback", request_id=id_, comment="好").status_code == 200


def test_an_id_that_two_keys_chose_is_each_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with guarded(path, "a", "b") as address:
        ids = {}
        for key in ("a", "b"):
            headers = {"authorization": f"Bearer {key}", "x-request-id": "tea-1"}
            ids[key] = httpx.post(address + CHAT, json=ASKED, headers=headers).json()["id"]
        assert post(address, "a", "/v1/feedback", request_id="tea-1", thumb="up").status_code == 200
    assert [entry.request for entry in feedbacks(path)] == [ids["a"]]


def test_a_file_of_the_first_version_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    of_first_version(path)
    done, found = exported(path)
    assert (done.rows, done.cut) == (1, 0)
    assert found[0]["messages"][0]["content"] == "问"
    with guarded(path, "a", log="full") as address:
        assert post(address, "a", CHAT, **ASKED).status_code == 200
        # Whose it was, nobody knows any more.
        assert post(address, "a", "/v1/feedback", request_id="r0", thumb="down").status_code == 200
    ids = [row[0] for row in rows(path, "id")]
    assert (len(ids), ids[0]) == (2, "chatcmpl-0")
    assert [entry.feedback.thumb for entry in feedbacks(path)] == ["down"]
    assert [file.name for file in tmp_path.glob("*broken*")] == []


def test_a_thumb_up_on_a_cut_answer_becomes_no_row(tmp_path: Path) -> None:
    path = tmp_path / "run" / "serving" / "requests.sqlite"
    up, better = Feedback("up"), Feedback("up", "说完的回答")
    several = {"answers": ("说完", "说到一"), "finishes": ("stop", "length")}
    made = [
        (answered(1), up),
        (replace(answered(2), finishes=("length",)), up),
        (replace(answered(3), finishes=("length",)), better),
        (replace(answered(4), finishes=(None,)), up),
        (replace(answered(5), **several), Feedback("up", answer="说完")),
        (replace(answered(6), **several), Feedback("up", answer="说到一")),
    ]

    async def add() -> None:
        for one, said in made:
            assert await kept.add(one.id, said)
        # What was told of which answer it is holds on.
        assert await kept.add("r5", Feedback("up", comment="很好"))

    with log(path, log="full") as kept:
        for one, _ in made:
            kept.record(one)
        asyncio.run(add())
    (tmp_path / "run" / "recipe.yaml").write_text("model: embedded\n")
    out = tmp_path / "rows.jsonl"
    words = ["export", str(tmp_path / "run"), "--out", str(out)]
    said = CliRunner().invoke(feedback_app, words, env={"COLUMNS": "200"}).output
    assert "Rows written: 3" in said
    assert "Left out: 3, because the answer that was liked had been cut off" in said
    answers = {row["messages"][-1]["content"] for row in lines(out)}
    assert answers == {"秘密的回答", "说完的回答", "说完"}


def test_of_unwritten_answers_one_that_may_be_cut_becomes_no_row(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    told = ({"role": "user", "content": "问"},)

    async def add() -> None:
        assert await kept.add("r1", Feedback("up", messages=told, answer="说到一"))
        assert await kept.add("r2", Feedback(None, "秘密的回答"))

    with log(path) as kept:
        kept.record(replace(answered(1), finishes=("stop", "length")))
        kept.record(answered(2))
        asyncio.run(add())
    done, _ = exported(path)
    assert (done.rows, done.unknown, done.cut) == (0, 1, 1)


def test_a_correction_that_corrects_nothing_is_no_preference(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"

    async def add() -> None:
        assert await kept.add("r1", Feedback(None, "秘密的回答"))

    with log(path, log="full") as kept:
        kept.record(answered(1))
        asyncio.run(add())
    done = feedback.export(str(path), str(tmp_path / "p.jsonl"), "preferences")
    assert (done.rows, done.unknown, done.same) == (0, 0, 1)


def test_an_answer_that_met_its_limit_is_known_to_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with log(path, log="full") as kept:
        made = replace(service(CountingEngine(saying("一二三四五六七八九"))), recorder=kept)
        with serving(made, feedback_router(kept)) as address:
            told = post(address, "", CHAT, **ASKED, max_tokens=2).json()
            assert told["choices"][0]["finish_reason"] == "length"
            post(address, "", "/v1/feedback", request_id=told["id"], thumb="up")
    done, _ = exported(path)
    assert (done.rows, done.cut) == (0, 1)


def test_nor_of_what_anothers_job_was_told(tmp_path: Path) -> None:
    with log(tmp_path / "r.sqlite", log="full") as kept:
        app = create_app(replace(service(CountingEngine(), api_keys=("a", "b")), recorder=kept))
        add_jobs(app, tmp_path / "jobs.sqlite", JobOptions())
        app.include_router(feedback_router(kept))
        with listening(app) as address:
            asked = post(address, "a", "/v1/jobs", kind="batch", requests=["一"]).json()["id"]
            headers = {"authorization": "Bearer a"}
            place = f"{address}/v1/jobs/{asked}/result"
            until(lambda: httpx.get(place, headers=headers).status_code == 200)
            id_ = httpx.get(place, headers=headers).json()["response"]["body"]["id"]
            theirs = post(address, "b", "/v1/feedback", request_id=id_, thumb="up")
            own = post(address, "a", "/v1/feedback", request_id=id_, thumb="up")
        assert (theirs.status_code, own.status_code) == (404, 200)

"""The memory of answers: what is the same question, limits, two servers, Redis, and what fails."""

import asyncio
import logging
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from serving.counting import CHAT, CountingEngine, decode, encode, service, serving, wait_for
from weitiao.errors import RunError
from weitiao.serving.cache import AnswerCache, FileAnswers, normalise, open_cache
from weitiao.serving.engine import Ask, Logprob, Sampling, Step
from weitiao.serving.keeping import KeepOptions
from weitiao.serving.service import Served, Service

SERVED = (Served("tuned", CHAT, decode, fingerprint="fp_1"), Served("base", CHAT, decode))
GREEDY = Sampling(16)
STEPS = (
    Step((5, 6), logprobs=(Logprob(5, -0.25, ((5, -0.25), (7, float("-inf")))), Logprob(6, -1.0))),
    Step((), "stop"),
)


def ask(text: str = "你好", model: str = "tuned", sampling: Sampling = GREEDY) -> Ask:
    ids = encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")
    return Ask(model, tuple(ids), sampling, (2,))


@contextmanager
def cache(
    path: Path, served: tuple[Served, ...] = SERVED, engine: str = "counting", **options: object
) -> Iterator[AnswerCache]:
    made = open_cache(KeepOptions.model_validate(options), path, served, engine)
    assert made is not None
    try:
        yield made
    finally:
        made.close()


def test_an_answer_comes_back_as_it_was_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.sqlite"
    with cache(path) as made:
        assert asyncio.run(made.get(ask())) is None
        asyncio.run(made.put(ask(), STEPS))
        assert asyncio.run(made.get(ask())) == STEPS
    assert path.stat().st_mode & 0o777 == 0o600
    with cache(path) as made:
        assert asyncio.run(made.get(ask())) == STEPS


def test_whatever_could_change_the_answer_makes_another_question(tmp_path: Path) -> None:
    others = [
        ask("你好！"),
        replace(ask(), stop_ids=(3,)),
        *(
            ask(sampling=replace(GREEDY, **changed))
            for changed in (
                {"max_new_tokens": 17},
                {"repetition_penalty": 1.1},
                {"logprobs": 2},
                {"temperature": 0.5, "seed": 1},
                {"temperature": 0.5, "seed": 2},
            )
        ),
    ]
    with cache(tmp_path / "c.sqlite") as made:
        for number, other in enumerate([ask(), *others]):
            assert asyncio.run(made.get(other)) is None, other
            asyncio.run(made.put(other, (Step((number,), "stop"),)))
        assert asyncio.run(made.get(ask())) == (Step((0,), "stop"),)
        # Greedy decoding knows no dice.
        seeded = ask(sampling=replace(GREEDY, seed=7, top_p=0.5))
        assert asyncio.run(made.get(seeded)) == (Step((0,), "stop"),)
    with cache(tmp_path / "c.sqlite", engine="another") as made:
        assert asyncio.run(made.get(ask())) is None


def test_a_model_that_cannot_be_told_from_others_is_not_remembered(tmp_path: Path) -> None:
    with cache(tmp_path / "c.sqlite") as made:
        asyncio.run(made.put(ask(model="base"), STEPS))
        assert asyncio.run(made.get(ask(model="base"))) is None


def test_another_model_empties_it(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with cache(path) as made:
        asyncio.run(made.put(ask(), STEPS))
    with cache(path, (replace(SERVED[0], fingerprint="fp_2"),)) as made:
        assert asyncio.run(made.get(ask())) is None
    assert rows(path) == 0


def rows(path: Path) -> int:
    base = sqlite3.connect(path)
    try:
        return int(base.execute("SELECT count(*) FROM answer").fetchone()[0])
    finally:
        base.close()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I RETURN it?", "how do i  return it"),
        ("退货怎么办？", "退货怎么办"),
        ("ＡＢＣ１２３", "abc123"),
        ("  好\n的 。", "好 的"),
    ],
)
def test_normalised_questions_are_the_same(tmp_path: Path, one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    with cache(tmp_path / "n.sqlite", cache="normalised") as made:
        asyncio.run(made.put(ask(one), STEPS))
        assert asyncio.run(made.get(ask(other))) == STEPS
        assert asyncio.run(made.get(ask(f"不{other}"))) is None
    with cache(tmp_path / "e.sqlite") as made:
        asyncio.run(made.put(ask(one), STEPS))
        assert asyncio.run(made.get(ask(other))) is None


def test_turns_stay_apart_where_texts_are_evened_out(tmp_path: Path) -> None:
    assert normalise("2²") != normalise("22")
    assert normalise("f(x)") != normalise("f(x")
    two, one = ask("好。<|im_end|>\n<|im_start|>user\n好"), ask("好。 user 好")
    parts = [replace(ask(), ids=(token,)) for token in halves_of_characters()]
    with cache(tmp_path / "n.sqlite", cache="normalised") as made:
        asyncio.run(made.put(two, STEPS))
        assert asyncio.run(made.get(one)) is None
        asyncio.run(made.put(parts[0], STEPS))
        assert asyncio.run(made.get(parts[1])) is None


def halves_of_characters() -> list[int]:
    return [token for token in range(3, 600) if decode([token]) == "\ufffd"][:2]


def test_the_longest_unused_go_first(tmp_path: Path) -> None:
    path, big = tmp_path / "c.sqlite", b"x" * 5000
    answers = FileAnswers(path, 1, 30, ["m"])

    async def fill() -> None:
        for number in range(600):
            await answers.put("m", number.to_bytes(4), big)
            if number % 20 == 0:
                assert await answers.get("m", bytes(4)) == big
        assert await answers.get("m", (599).to_bytes(4)) == big
        assert await answers.get("m", (1).to_bytes(4)) is None
        await answers.put("m", b"too big", b"x" * 900_000)
        assert await answers.get("m", b"too big") is None

    asyncio.run(fill())
    answers.close()
    assert path.stat().st_size < 1.3e6
    assert 100 < rows(path) < 200


def test_old_answers_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with cache(path) as made:
        asyncio.run(made.put(ask(), STEPS))
    base = sqlite3.connect(path)
    with base:
        base.execute("UPDATE answer SET made = made - 86400 * 2")
    base.close()
    with cache(path, cache_days=3) as made:
        assert asyncio.run(made.get(ask())) == STEPS
    with cache(path, cache_days=1) as made:
        assert asyncio.run(made.get(ask())) is None
    assert rows(path) == 0


FILL = """
import asyncio, pathlib, sys
from weitiao.serving.cache import FileAnswers

answers, first = FileAnswers(pathlib.Path(sys.argv[1]), 10, 30, ["m"]), int(sys.argv[2])

async def put():
    for number in range(first, first + 200):
        await answers.put("m", number.to_bytes(4), b"steps")

asyncio.run(put())
"""


def test_two_processes_share_it_and_write_to_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    others = [
        subprocess.Popen([sys.executable, "-c", FILL, str(path), first]) for first in ("0", "200")
    ]
    assert [other.wait(60) for other in others] == [0, 0]
    assert rows(path) == 400


@pytest.mark.parametrize("content", [b"this is no database" * 100, b""])
def test_a_damaged_file_is_moved_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "weitiao.serving"), cache(path) as made:
        asyncio.run(made.put(ask(), STEPS))
        assert asyncio.run(made.get(ask())) == STEPS
    aside = tmp_path / "c.broken-1.sqlite"
    assert aside.exists() == bool(content)
    if content:
        assert aside.read_bytes() == content
        assert [record.message for record in caplog.records] == ["failed", "moved aside"]


def test_a_file_that_is_damaged_while_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with cache(path) as made:
        for number in range(200):
            asyncio.run(made.put(ask(f"问题{number}"), STEPS))
        assert asyncio.run(made.get(ask("问题1"))) == STEPS
        base = sqlite3.connect(path)
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        base.close()
        with path.open("r+b") as file:
            file.seek(100)
            file.write(b"\xff" * (path.stat().st_size - 100))
            file.flush()

        def works() -> bool:
            asyncio.run(made.put(ask("新"), STEPS))
            return asyncio.run(made.get(ask("新"))) == STEPS

        wait_for(works)
    assert (tmp_path / "c.broken-1.sqlite").exists()


def test_another_programs_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE theirs (x)")
    base.close()
    with cache(path) as made:
        asyncio.run(made.put(ask(), STEPS))
        assert asyncio.run(made.get(ask())) == STEPS
    base = sqlite3.connect(tmp_path / "c.broken-1.sqlite")
    assert base.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    base.close()


@contextmanager
def served_with(path: Path, made: Service) -> Iterator[str]:
    with cache(path, made.served) as kept, serving(replace(made, cache=kept)) as address:
        yield address


def chat(address: str, text: str = "你好", **more: object) -> str:
    asked = {"messages": [{"role": "user", "content": text}], **more}
    reply = httpx.post(f"{address}/v1/chat/completions", json=asked, timeout=20)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def test_a_server_answers_from_it_and_counts(tmp_path: Path) -> None:
    engine = CountingEngine()
    made = service(engine)
    with served_with(tmp_path / "c.sqlite", made) as address:
        assert {chat(address, temperature=0) for _ in range(3)} == {"你好"}
        assert len(engine.asks) == 1
        chat(address, temperature=1)
        chat(address, temperature=1)
        assert len(engine.asks) == 3
        numbers = httpx.get(f"{address}/metrics").text
    assert 'weitiao_cache_total{result="hit"} 2.0' in numbers
    assert 'weitiao_cache_total{result="miss"} 1.0' in numbers


def test_a_file_that_cannot_be_written_or_is_slow_fails_no_request(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    engine = CountingEngine()
    made = service(engine)
    with served_with(tmp_path / "file" / "c.sqlite", made) as address:
        assert chat(address) == chat(address) == "你好"
    with served_with(tmp_path / "c.sqlite", made) as address:
        chat(address)
        base = sqlite3.connect(tmp_path / "c.sqlite")
        base.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        assert chat(address, "别的") == "别的"
        assert chat(address, "又别的") == "又别的"
        assert time.monotonic() - begun < 4
        base.close()


def test_no_cache_where_none_is_wanted(tmp_path: Path) -> None:
    assert open_cache(KeepOptions(cache="off"), tmp_path / "c", SERVED, "x") is None


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def redis_server(folder: Path, port: int) -> Iterator[None]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    redis = pytest.importorskip("redis")
    here = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    started = subprocess.Popen([program, *here, "--loglevel", "warning"])
    try:
        with redis.Redis(port=port) as client:

            def answers() -> bool:
                try:
                    return bool(client.ping())
                except redis.ConnectionError:
                    return False

            wait_for(answers, 20)
        yield
    finally:
        started.kill()
        started.wait()


def test_redis_remembers_for_several_and_is_done_without_while_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = pytest.importorskip("redis")
    port = free_port()
    address = f"redis://127.0.0.1:{port}/0"
    monkeypatch.setattr("weitiao.serving.redis_cache._PAUSE", 0.5)

    async def talk() -> None:
        with (
            cache(tmp_path / "no", cache_url=address) as one,
            cache(tmp_path / "no", cache_url=address, cache_days=0.5) as two,
        ):
            with redis_server(tmp_path, port):
                await one.put(ask(), STEPS)
                assert await two.get(ask()) == STEPS
                await two.put(ask("短"), STEPS)
                with redis.Redis(port=port) as client:
                    ages = sorted(client.ttl(key) for key in client.keys("*"))
                    assert [round(age / 86400, 1) for age in ages] == [0.5, 30]
            for _ in range(3):
                assert await one.get(ask()) is None
                await one.put(ask(), STEPS)
                await asyncio.sleep(0.3)
            with redis_server(tmp_path, port):
                await asyncio.sleep(0.6)
                await one.put(ask(), STEPS)
                assert await one.get(ask()) == STEPS

    with caplog.at_level(logging.WARNING, "weitiao.serving"):
        asyncio.run(talk())
    assert [record.message for record in caplog.records] == ["redis away", "redis back"]
    assert not (tmp_path / "no").exists()


def test_a_redis_that_does_not_answer_holds_nobody_up() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        made = open_cache(
            KeepOptions(cache_url=f"redis://127.0.0.1:{deaf.getsockname()[1]}/0"),
            Path("unused"),
            SERVED,
            "x",
        )
        assert made is not None
        begun = time.monotonic()
        for _ in range(5):
            assert asyncio.run(made.get(ask())) is None
        assert time.monotonic() - begun < 3


def test_what_is_wrong_with_redis_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="here:port") as told:
        open_cache(KeepOptions(cache_url="redis://:pass@here:port"), Path("c"), SERVED, "x")
    assert "pass" not in str(told.value)
    monkeypatch.setattr("weitiao.serving.redis_cache.find_spec", lambda name: None)
    with pytest.raises(RunError, match="pip install"):
        open_cache(KeepOptions(cache_url="redis://localhost"), Path("c"), SERVED, "x")

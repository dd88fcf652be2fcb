"""Many clients at once against the real server: nothing lost, mixed up, or growing."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import pytest

from weitiao.serving.options import ServeOptions

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
CLIENTS, POOL = 32, 40
TOPICS = ("信用卡丢了", "查一下余额", "广州的网点", "转账给妈妈", "a cup of tea", "green tea")
LONG = [{"role": "user", "content": "长" * 9000}]
ASKED = {"messages": [{"role": "user", "content": "你好"}]}
MALFORMED: tuple[tuple[int, str, dict[str, Any]], ...] = (
    (400, CHAT, {"content": b'{"messages": [', "headers": {"content-type": "application/json"}}),
    (400, CHAT, {"json": {"messages": "none"}}),
    (400, CHAT, {"json": {**ASKED, "temperature": "hot"}}),
    (400, CHAT, {"json": {**ASKED, "repetition_penalty": 1e-300}}),
    (400, CHAT, {"json": {"messages": LONG}}),
    (400, TEXT, {"json": {"prompt": []}}),
    (404, CHAT, {"json": {**ASKED, "model": "another"}}),
    (404, "/v1/nothing", {"json": ASKED}),
    (415, CHAT, {"content": b"messages=none"}),
)
Question = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Server:
    """A running ``weitiao serve``."""

    address: str
    pid: int
    log: Path

    def memory(self) -> int:
        """Resident bytes of all its processes.

        Not what is theirs alone, which grows when another program lets go of a library.
        """
        process = psutil.Process(self.pid)
        everyone = (process, *process.children(recursive=True))
        return sum(int(one.memory_info().rss) for one in everyone)

    def number(self, name: str, label: str = "") -> float:
        """One of the numbers that Prometheus reads, over all its labels that hold ``label``."""
        lines = httpx.get(f"{self.address}/metrics").text.splitlines()
        meant = [line for line in lines if line.startswith(name) and label in line]
        return sum(float(line.rpartition(" ")[2]) for line in meant)

    def errors(self) -> float:
        """How many requests failed by the server's fault, or came while it loaded."""
        return self.number("weitiao_requests_total", 'status="5')


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    log = folder / "log.txt"
    # The engine is to answer, whatever was asked before.
    command = [sys.executable, "-m", "weitiao.cli", "serve", "embedded", "keep.cache=off"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, "--engine", "openvino", "--port", "0"],
            env={**os.environ, "XDG_CACHE_HOME": str(folder), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdout is not None
            said = (line.strip() for line in process.stdout)
            address = next((line for line in said if line.startswith("http://")), None)
            assert address, log.read_text()
            end = time.monotonic() + 120
            while httpx.get(f"{address}/ready").status_code != 200:
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.1)
            yield Server(address, process.pid, log)
        finally:
            process.terminate()
            process.wait(30)
    assert process.returncode == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    # With transformers in bf16 a crowd's rounding now and then picks another of two tokens.
    if not (find_spec("openvino_genai") and find_spec("gguf")):
        pytest.skip("OpenVINO GenAI or gguf is not installed")
    with serving(tmp_path) as found:
        yield found


def question(number: int, draw: random.Random) -> Question:
    """A conversation or a text that holds ``number``, to be gone on with for 4 to 60 tokens."""
    said = f"{number}号：{draw.choice(TOPICS)}，" * draw.randint(1, 8)
    # The least of temperatures is 0 to an engine that counts in 32 bits.
    how = {"temperature": draw.choice((0, 0, 1e-300)), "max_tokens": draw.randint(4, 60)}
    if draw.random() < 0.5:
        return TEXT, {"prompt": said, **how}
    system = [{"role": "system", "content": "用一句话回答。"}] * draw.randint(0, 1)
    return CHAT, {"messages": [*system, {"role": "user", "content": said}], **how}


async def answer(client: httpx.AsyncClient, asked: Question, stream: bool) -> str:
    """Return the text of an answer.

    Raises:
        AssertionError: it was refused, or broke off.
    """
    path, body = asked
    reply = await client.post(path, json={**body, "stream": stream})
    assert reply.status_code == 200, f"{reply.status_code}: {reply.text}"
    if not stream:
        choice = reply.json()["choices"][0]
        return str(choice["message"]["content"] if path == CHAT else choice["text"])
    *events, done = reply.text.strip().split("\n\n")
    assert done == "data: [DONE]", f"it broke off: {done}"
    choices = [json.loads(e.removeprefix("data: "))["choices"][0] for e in events]
    assert choices[-1]["finish_reason"], "it came to no end"
    return "".join(
        (c["delta"].get("content") if path == CHAT else c["text"]) or "" for c in choices
    )


async def leave(client: httpx.AsyncClient, asked: Question) -> str:
    """Go away after the first words, or before them."""
    path, body = asked
    async with client.stream("POST", path, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200
        await anext(reply.aiter_raw())
    return "left"


@dataclass
class Soak:
    """32 clients; each question holds a number, and most were asked before.

    It takes ``seconds``, and longer where the machine is busy: until ``least`` were answered.
    """

    server: Server
    seconds: float
    least: int
    pool: dict[str, Question] = field(default_factory=dict)
    """Questions by their answers, no two of them alike."""
    found: Counter[str] = field(default_factory=Counter)
    new: list[tuple[Question, str]] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)
    """How many were answered, and the bytes that all processes then had."""

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=2 * CLIENTS)
        async with httpx.AsyncClient(
            base_url=self.server.address, timeout=60, limits=limits
        ) as client:
            await self._ask_alone(client)
            self.began = time.monotonic()
            watching = asyncio.create_task(self._watch())
            await asyncio.gather(*(self._client(client, number) for number in range(CLIENTS)))
            watching.cancel()
            # What was asked for the first time in the crowd is asked again alone.
            for asked, said in random.Random(7).sample(self.new, min(20, len(self.new))):
                self.found["right" if await answer(client, asked, True) == said else "other"] += 1

    async def _ask_alone(self, client: httpx.AsyncClient) -> None:
        draw = random.Random(6)
        for number in range(400):
            asked = question(number, draw)
            if said := await answer(client, asked, False):
                self.pool.setdefault(said, asked)
            if len(self.pool) == POOL:
                return
        raise AssertionError("answers that are alike cannot be told apart")

    async def _client(self, client: httpx.AsyncClient, number: int) -> None:
        draw, count = random.Random(number), 0
        while not self._over():
            count += 1
            try:
                self.found[await self._one(client, draw, 1000 * (number + 1) + count)] += 1
            except (httpx.HTTPError, AssertionError) as error:
                self.found[f"lost: {error!r}"] += 1

    def _over(self) -> bool:
        took = time.monotonic() - self.began
        enough = self.found.total() >= self.least
        return took > self.seconds and (enough or took > 4 * self.seconds)

    async def _one(self, client: httpx.AsyncClient, draw: random.Random, fresh: int) -> str:
        kind, (expected, known) = draw.random(), draw.choice(list(self.pool.items()))
        if kind < 0.1:
            return await leave(client, known)
        if kind < 0.15:
            status, path, sent = draw.choice(MALFORMED)
            reply = await client.post(path, **sent)
            return "refused" if reply.status_code == status else f"{status}: {reply.text}"
        if kind < 0.3:
            asked = question(fresh, draw)
            self.new.append((asked, await answer(client, asked, draw.random() < 0.5)))
            return "right"
        said = await answer(client, known, draw.random() < 0.5)
        return "right" if said == expected else f"mixed up: {said} for {expected}"

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            self.memory.append((self.found.total(), self.server.memory()))


WARM = 1000
"""Answers after which every length and every number of requests at once has come."""


@pytest.mark.parametrize(
    ("seconds", "least"), [(6, 64), pytest.param(60, 2 * WARM, marks=pytest.mark.slow)]
)
def test_a_crowd_gets_its_answers(server: Server, seconds: int, least: int) -> None:
    soak, before = Soak(server, seconds, least), server.errors()
    asyncio.run(soak.run())
    assert set(soak.found) == {"right", "left", "refused"}, soak.found
    assert soak.found.total() >= least
    end = time.monotonic() + 10
    while server.number("weitiao_running") + server.number("weitiao_waiting"):
        assert time.monotonic() < end, "who left is still answered"
        time.sleep(0.1)
    assert server.errors() == before
    assert "Traceback" not in server.log.read_text()
    if least > WARM:
        warm = median([size for count, size in soak.memory if count >= WARM][:5])
        assert median([size for _, size in soak.memory[-5:]]) < 1.05 * warm, soak.memory


def test_who_is_too_many_is_told_when_to_come_back(server: Server) -> None:
    async def one(client: httpx.AsyncClient, number: int) -> tuple[int, str | None]:
        body = {"prompt": f"{number}、", "max_tokens": 64, "temperature": 0}
        reply = await client.post(TEXT, json=body)
        return reply.status_code, reply.headers.get("retry-after")

    async def crowd() -> list[tuple[int, str | None]]:
        limits = httpx.Limits(max_connections=400)
        async with httpx.AsyncClient(base_url=server.address, timeout=60, limits=limits) as client:
            return await asyncio.gather(*(one(client, number) for number in range(300)))

    found = asyncio.run(crowd())
    assert {status for status, _ in found} == {200, 429}
    assert all(int(after or 0) >= 1 for status, after in found if status == 429)
    assert sum(status == 200 for status, _ in found) >= ServeOptions().max_waiting

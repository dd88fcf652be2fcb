"""Many at once: nothing lost, nothing mixed up; who leaves is taken out; what is counted."""

import concurrent.futures
import json
import logging
import random
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest

from serving.counting import CountingEngine, saying, service, serving, wait_for
from weitiao.serving.engine import Ask, Step
from weitiao.serving.hooks import Answered

CHAT = "/v1/chat/completions"


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_thirty_two_clients_each_get_their_own_answer() -> None:
    engine = CountingEngine(slots=8, pace=0.001)
    draw = random.Random(3)

    def one(number: int) -> str:
        marker = f"标记{number}号" * draw.randint(1, 6)
        asked = {"messages": user(marker), "max_tokens": 400, "stream": number % 2 == 0}
        if number % 10 == 3:
            with httpx.stream("POST", address + CHAT, json={**asked, "stream": True}) as reply:
                next(reply.iter_raw())
            return "left"
        if number % 20 == 7:
            reply = httpx.post(address + CHAT, json={"messages": "none"})
            return "refused" if reply.status_code == 400 else reply.text
        reply = httpx.post(address + CHAT, json=asked, timeout=30)
        assert reply.status_code == 200, reply.text
        if asked["stream"]:
            events = reply.text.split("\n\n")[:-2]
            chunks = [json.loads(event.removeprefix("data: ")) for event in events]
            said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
        else:
            said = reply.json()["choices"][0]["message"]["content"]
        return "right" if said == marker else f"{said} for {marker}"

    with serving(service(engine, max_waiting=200)) as address:
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            found = list(pool.map(one, range(96)))
        assert set(found) == {"right", "left", "refused"}, found
        wait_for(lambda: engine.load().running == engine.load().waiting == 0)
        numbers = httpx.get(f"{address}/metrics").text
    right = found.count("right") + found.count("left")
    assert f'weitiao_time_to_first_token_seconds_count{{model="tuned"}} {right}.0' in numbers
    assert "weitiao_running 0.0" in numbers
    asked = f'route="{CHAT}",status="400"'
    assert any(asked in line and line.endswith(f" {found.count('refused')}.0")
               for line in numbers.splitlines())  # fmt: skip
    assert "weitiao_batch_size_bucket" in numbers


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_nobody_waits_for_is_given_up(stream: bool) -> None:
    engine = CountingEngine(saying("字" * 60), slots=1, pace=0.05)
    with serving(service(engine, max_waiting=1)) as address:
        asked = {"messages": user("a"), "stream": stream, "n": 2}
        with (
            suppress(httpx.ReadTimeout),
            httpx.stream("POST", address + CHAT, json=asked, timeout=0.3) as reply,
        ):
            next(reply.iter_raw())
        # The second answer still waited for its turn, and never begins.
        wait_for(lambda: len(engine.left) == 1 and engine.load().waiting == 0)
        assert engine.load().running == 0
        engine.pace = 0
        assert httpx.post(address + CHAT, json={"messages": user("a")}).status_code == 200


class Memory:
    """A cache in a dictionary."""

    sampled = False

    def __init__(self) -> None:
        self.kept: dict[Ask, tuple[Step, ...]] = {}

    async def get(self, ask: Ask) -> tuple[Step, ...] | None:
        return self.kept.get(ask)

    async def put(self, ask: Ask, steps: tuple[Step, ...]) -> None:
        self.kept[ask] = steps


class Notes(list[Answered]):
    """A recorder in a list."""

    def record(self, answered: Answered) -> None:
        self.append(answered)


def test_the_cache_answers_what_is_always_answered_alike() -> None:
    engine, memory, notes = CountingEngine(), Memory(), Notes()
    made = replace(service(engine), cache=memory, recorder=notes)
    with serving(made) as address:
        for asked in ({}, {}, {"temperature": 1}, {"temperature": 1}, {"stop": "好"}):
            httpx.post(address + CHAT, json={"messages": user("你好吗"), **asked})
        numbers = httpx.get(f"{address}/metrics").text
    assert len(engine.asks) == 3
    assert 'weitiao_cache_total{result="hit"} 2.0' in numbers
    assert [note.answers for note in notes] == [("你好吗",)] * 4 + [("你",)]
    assert notes[0].id.startswith("chatcmpl-")
    assert notes[0].question == [{"role": "system", "content": "你是诗人"}, *user("你好吗")]


@pytest.mark.parametrize("told", [False, True])
def test_the_log_holds_no_prompt_unless_asked(told: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "weitiao.serving")
    with serving(service(log_prompts=told)) as address:
        httpx.post(
            address + CHAT, json={"messages": user("秘密")}, headers={"x-request-id": "mine-1"}
        )
    (fields,) = [r.fields for r in caplog.records if hasattr(r, "fields")]  # type: ignore[attr-defined]
    assert fields["id"] == "mine-1"
    assert (fields["status"], fields["model"], fields["route"]) == (200, "tuned", CHAT)
    assert fields["output_tokens"] > 0
    assert ("秘密" in json.dumps(fields, ensure_ascii=False)) == told

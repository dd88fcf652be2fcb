"""Large bodies are read beside the event loop, and refused as small ones are."""

import gc
import threading
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, field_validator

from serving.counting import CountingEngine, service, serving
from weitiao.serving.bodies import LargeBodyRoute, full_collections_put_off

CHAT = "/v1/chat/completions"
MANY = 20_000


class Numbers(BaseModel):
    numbers: list[int]
    thread: int = 0

    @field_validator("numbers")
    @classmethod
    def _seen(cls, numbers: list[int]) -> list[int]:
        THREADS.append(threading.get_ident())
        return numbers


THREADS: list[int] = []
ROUTER = APIRouter(route_class=LargeBodyRoute)


@ROUTER.post("/sum")
async def total(given: Numbers) -> dict[str, int]:
    return {"sum": sum(given.numbers), "loop": threading.get_ident()}


@pytest.mark.parametrize(("many", "aside"), [(10, False), (MANY, True)])
def test_only_large_bodies_are_validated_in_another_thread(many: int, aside: bool) -> None:
    app = FastAPI()
    app.include_router(ROUTER)
    THREADS.clear()
    told = TestClient(app).post("/sum", json={"numbers": [1000] * many}).json()
    assert told["sum"] == 1000 * many
    assert [thread != told["loop"] for thread in THREADS] == [aside]


def test_full_collections_are_put_off_until_the_last_has_left() -> None:
    usual, second = gc.get_threshold(), full_collections_put_off()
    with full_collections_put_off():
        second.__enter__()
        young, middle, full = gc.get_threshold()
        assert (young, middle) == usual[:2]
        assert full > 1e9
    assert gc.get_threshold()[2] > 1e9
    second.__exit__(None, None, None)
    assert gc.get_threshold() == usual


@pytest.fixture(scope="module", name="address")
def _address() -> Any:
    with serving(service(CountingEngine(context=100_000), rate_limit=100)) as found:
        yield found


def large(**more: object) -> dict[str, Any]:
    """A conversation of 200,000 bytes that a model of a large context takes."""
    turns = [{"role": "user", "content": "春眠不觉晓" * 20} for _ in range(600)]
    return {"messages": turns, "max_tokens": 5, **more}


def test_a_large_question_is_answered(address: str) -> None:
    reply = httpx.post(address + CHAT, json=large(), timeout=60)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"]


def test_a_large_body_is_refused_by_its_field(address: str) -> None:
    wrong = large()
    wrong["messages"][300]["content"] = 7
    told = httpx.post(address + CHAT, json=wrong, headers={"accept-language": "en"})
    assert told.status_code == 400
    assert told.json()["error"]["param"] == "messages.300.content"
    assert "expected text" in told.json()["error"]["message"]
    kind = {"content-type": "application/json"}
    for content in (b'{"messages": [' + b" " * 99_999, b"[" * 99_999, b"\xff" * 99_999):
        reply = httpx.post(address + CHAT, content=content, headers=kind)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, None), content[:20]
    plain = httpx.post(
        address + CHAT, content=b" " * 99_999, headers={"content-type": "text/plain"}
    )
    assert plain.status_code == 415


def test_refused_large_bodies_count_as_requests() -> None:
    with serving(service(rate_limit=2)) as address:
        wrong = large(temperature="hot")
        statuses = [httpx.post(address + CHAT, json=wrong).status_code for _ in range(3)]
    assert statuses == [400, 400, 429]

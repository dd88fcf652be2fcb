"""What is refused: the status, OpenAI's shape, one sentence in the asker's language."""

import concurrent.futures
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from fastapi import APIRouter

from serving.counting import CountingEngine, broken, saying, service, serving, wait_for
from weitiao.errors import RunError
from weitiao.serving.faults import RequestError, tongue_of
from weitiao.serving.gate import Gate, RateLimit
from weitiao.serving.keys import Keys, check_exposure, check_host
from weitiao.serving.options import ServeOptions

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(service(CountingEngine(context=200))) as found:
        yield found


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def refused(reply: httpx.Response) -> dict[str, Any]:
    told = reply.json()
    assert set(told) == {"error"}
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-request-id"]
    return dict(told["error"])


@pytest.mark.parametrize(
    ("body", "param", "parts"),
    [
        ({}, "messages", ["messages", "a value"]),
        ({"messages": []}, "messages", ["messages"]),
        ({"messages": user("a"), "temperature": 3}, "temperature", ["at most 2", "not 3"]),
        ({"messages": user("a"), "temperature": "hot"}, "temperature", ["a number", "hot"]),
        ({"messages": user("a"), "n": 1.5}, "n", ["whole number"]),
        ({"messages": user("a"), "stop": list("abcde")}, "stop", ["stop"]),
        ({"messages": user("a"), "presence_penalty": 1}, "presence_penalty", ["not supported"]),
        (
            {"messages": user("a"), "response_format": {"type": "json_object"}},
            "response_format.type",
            ["not supported"],
        ),
        ({"messages": [{"role": "cat", "content": "a"}]}, "messages.0.role", ["user", "cat"]),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content", ["text", "7"]),
        ({"messages": user("a<|im_end|>b")}, "messages.0", ["<|im_end|>"]),
        ({"messages": user("a"), "tools": [{"type": "function", "function": {"name": "f"}}]},
         "tools", ["tool"]),
    ],
)  # fmt: skip
def test_one_sentence_names_the_field(
    address: str, body: dict[str, Any], param: str, parts: list[str]
) -> None:
    reply = httpx.post(address + CHAT, json=body, headers={"accept-language": "en"})
    assert reply.status_code == 400
    told = refused(reply)
    assert told["param"] == param
    assert all(part in told["message"] for part in parts), told
    assert "\n" not in told["message"]


@pytest.mark.parametrize("long", [300, 400_000])
def test_a_prompt_longer_than_the_context(address: str, long: int) -> None:
    asked = {"messages": user("春眠不觉晓" * (long // 5))}
    if long > 10_000:
        asked["messages"][0]["content"] = "spring " * (long // 7)
    told = refused(httpx.post(address + CHAT, json=asked, timeout=30))
    assert told["code"] == "context_length_exceeded"
    assert "200" in told["message"]


def test_bodies_that_are_no_json(address: str) -> None:
    kind = {"content-type": "application/json"}
    for content in (b"{", b"[" * 100_000, b"\xff", b'{"messages": "\\ud800"}'):
        reply = httpx.post(address + CHAT, content=content, headers=kind)
        assert reply.status_code == 400, content[:10]
        refused(reply)
    plain = httpx.post(address + CHAT, content=b"{}", headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    assert "text/plain" in refused(plain)["message"]


def test_a_body_too_large_is_refused_while_it_is_read(address: str) -> None:
    big = b'{"messages": "' + b"a" * 10_000_000 + b'"}'
    kind = {"content-type": "application/json"}
    declared = httpx.post(address + CHAT, content=big, headers=kind)
    chunked = httpx.post(
        address + CHAT,
        content=(big[i : i + 65_536] for i in range(0, len(big), 65_536)),
        headers=kind,
    )
    for reply in (declared, chunked):
        assert reply.status_code == 413
        assert "1000000" in refused(reply)["message"]


def test_what_is_not_there(address: str) -> None:
    lost = httpx.get(f"{address}/v1/nothing")
    assert (lost.status_code, refused(lost)["type"]) == (404, "invalid_request_error")
    method = httpx.get(address + CHAT)
    assert (method.status_code, method.headers["allow"]) == (405, "POST")
    refused(method)
    unknown = httpx.post(address + CHAT, json={"model": "gpt-9", "messages": user("a")})
    told = refused(unknown)
    assert (unknown.status_code, told["code"]) == (404, "model_not_found")
    assert "tuned, base" in told["message"]
    assert httpx.get(f"{address}/docs").status_code == 404


def test_all_methods_of_an_address_are_named() -> None:
    router = APIRouter(prefix="/v1/things")
    for method in ("DELETE", "GET"):
        router.add_api_route("/{thing}", lambda thing: thing, methods=[method])
    with serving(service(), router) as address:
        for method in ("PUT", "OPTIONS", "HEAD"):
            reply = httpx.request(method, f"{address}/v1/things/3")
            assert (reply.status_code, reply.headers["allow"]) == (405, "GET, DELETE")
        assert httpx.request("PATCH", f"{address}/").headers["allow"] == "GET, HEAD"


def test_the_sentence_is_in_the_askers_language(address: str) -> None:
    told = [
        refused(httpx.get(f"{address}/nothing", headers={"accept-language": tongue}))["message"]
        for tongue in ("zh-CN,zh;q=0.9,en;q=0.8", "en-US,en;q=0.9,zh;q=0.2", "en;q=0.1, zh;q=0.9")
    ]
    assert told[0] == told[2]
    assert "没有" in told[0]
    assert "nothing" in told[1]
    assert tongue_of("fr, zh;q=0.5, en;q=0") == "zh"


def test_a_key_is_needed_where_there_are_keys() -> None:
    with serving(service(api_keys=("first", "第二"))) as address:
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.get(f"{address}/ready").status_code == 200
        paths = ("/v1/models", "/metrics", "/openapi.json", "/v1/x")
        headers = ("", "Bearer", "Bearer wrong", "Basic first", "first")
        for path, header in itertools.product(paths, headers):
            reply = httpx.get(address + path, headers={"authorization": header})
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert refused(reply)["code"] == "invalid_api_key"
        given = {"authorization": "Bearer first"}
        assert httpx.get(f"{address}/metrics", headers=given).status_code == 200
        with (
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()


def test_keys_are_known_by_number() -> None:
    keys = Keys(ServeOptions(api_keys=("a", "b")))
    assert [keys.name("Bearer a"), keys.name("bearer b ")] == ["key-1", "key-2"]
    assert Keys(ServeOptions(api_keys=("a",), auth=False)).name("") == ""
    assert "secret" not in repr(ServeOptions(api_keys=("secret",)))


def test_other_computers_are_let_in_on_purpose_only() -> None:
    with pytest.raises(RunError, match=r"0\.0\.0\.0"):
        check_exposure(ServeOptions(host="0.0.0.0"))
    check_exposure(ServeOptions(host="0.0.0.0", auth=False))
    check_exposure(ServeOptions(host="0.0.0.0", api_keys=("k",)))
    check_exposure(ServeOptions(host="::1"))


def test_a_foreign_name_for_this_computer_is_refused(address: str) -> None:
    reply = httpx.get(f"{address}/health", headers={"host": "evil.example:80"})
    assert (reply.status_code, refused(reply)["code"]) == (403, "host_not_allowed")
    for host in ("localhost", "127.0.0.1:9", "[::1]:80"):
        check_host(ServeOptions(), host)
    for host in ("", "localhost.evil.example", "[::2]"):
        with pytest.raises(RequestError):
            check_host(ServeOptions(), host)
    check_host(ServeOptions(api_keys=("k",)), "any.example")


def test_a_full_queue_answers_at_once_and_says_when_to_come_back() -> None:
    engine = CountingEngine(saying("字" * 30), slots=1, pace=0.02)
    with serving(service(engine, max_waiting=2)) as address:
        asked = {"messages": user("a")}
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            send = [pool.submit(httpx.post, address + CHAT, json=asked) for _ in range(12)]
            replies = [one.result() for one in send]
        good = [reply for reply in replies if reply.status_code == 200]
        full = [reply for reply in replies if reply.status_code == 429]
        assert len(good) + len(full) == 12
        assert 2 <= len(good) <= 4
        assert all(1 <= int(reply.headers["retry-after"]) <= 60 for reply in full)
        assert refused(full[0])["code"] == "queue_full"
        assert httpx.post(address + CHAT, json=asked).status_code == 200
        with openai.OpenAI(base_url=f"{address}/v1", api_key="-") as client:
            # Its client comes back by itself.
            client.chat.completions.create(model="tuned", messages=asked["messages"])


def test_no_key_fills_the_queue_for_the_others() -> None:
    gate = Gate(CountingEngine(), max_waiting=4, keys=2)
    for _ in range(2):
        gate.enter("key-1", 1)
    with pytest.raises(RequestError):
        gate.enter("key-1", 1)
    gate.enter("key-2", 2)
    with pytest.raises(RequestError):
        gate.enter("key-2", 1)
    gate.leave("key-2", 0.1)
    gate.enter("key-2", 1)


def test_the_rate_limit_fills_up_again() -> None:
    now = 0.0
    rate = RateLimit(60, lambda: now)
    for _ in range(60):
        rate.take("a")
    with pytest.raises(RequestError) as full:
        rate.take("a")
    assert (full.value.status, full.value.retry_after) == (429, 1)
    rate.take("b")
    now = 2.0
    rate.take("a")
    rate.take("a")
    with pytest.raises(RequestError):
        rate.take("a")


def test_the_rate_is_limited_for_questions_only() -> None:
    with serving(service(rate_limit=2)) as address:
        asked = {"messages": user("a")}
        statuses = [httpx.post(address + CHAT, json=asked).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert httpx.get(f"{address}/v1/models").status_code == 200


def test_the_deadline_ends_what_takes_too_long() -> None:
    engine = CountingEngine(saying("字" * 60), pace=0.05)
    with serving(service(engine, deadline_seconds=0.5)) as address:
        reply = httpx.post(address + CHAT, json={"messages": user("a")})
        assert (reply.status_code, refused(reply)["code"]) == (504, "deadline_exceeded")
        wait_for(lambda: len(engine.left) == 1)
        asked = {"messages": user("a"), "stream": True}
        body = httpx.post(address + CHAT, json=asked).text
        *_, last, rest = body.split("\n\n")
        assert rest == ""
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline_exceeded"
        assert "字" in body
        wait_for(lambda: len(engine.left) == 2)
        with (
            openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0) as client,
            pytest.raises(openai.APIError, match=r"0\.5"),
        ):
            list(client.chat.completions.create(model="tuned", **asked))


def test_a_broken_engine_is_told_and_may_recover() -> None:
    engine = CountingEngine()
    with serving(service(engine)) as address:
        engine.fails = broken()
        reply = httpx.post(address + CHAT, json={"messages": user("a")})
        assert (reply.status_code, refused(reply)["code"]) == (503, "engine_failed")
        assert httpx.get(f"{address}/ready").status_code == 503
        assert httpx.get(f"{address}/health").status_code == 200
        engine.fails = ValueError("a defect")
        defect = httpx.post(address + CHAT, json={"messages": user("a")})
        assert (defect.status_code, refused(defect)["code"]) == (500, "internal_error")
        engine.fails = None
        assert httpx.post(address + CHAT, json={"messages": user("a")}).status_code == 200
        assert httpx.get(f"{address}/ready").status_code == 200


def test_a_server_that_is_asked_nothing_finds_out_that_its_engine_works(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pause = 0.5
    monkeypatch.setattr("weitiao.serving.desk._PROBE_PAUSE", pause)
    engine = CountingEngine()
    with serving(service(engine)) as address:
        engine.fails = broken()
        httpx.post(address + CHAT, json={"messages": user("a")})
        begun = time.monotonic()
        statuses = [httpx.get(f"{address}/ready").status_code for _ in range(20)]
        assert set(statuses) == {503}
        tries = len(engine.asks) - 1
        assert 1 <= tries <= 1 + (time.monotonic() - begun) / pause, "it is tried, but rarely"
        engine.fails = None
        wait_for(lambda: httpx.get(f"{address}/ready").status_code == 200)
        tried = len(engine.asks)
        assert engine.asks[-1].sampling.max_new_tokens == 1
        assert httpx.get(f"{address}/ready").status_code == 200
        assert len(engine.asks) == tried, "one that works is not tried"


def test_one_failed_request_does_not_take_the_server_away() -> None:
    engine = CountingEngine()
    with serving(service(engine)) as address:
        engine.fails = broken()
        httpx.post(address + CHAT, json={"messages": user("a")})
        engine.fails = None
        assert httpx.get(f"{address}/ready").status_code == 200


def test_an_engine_that_hangs_is_tried_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_PROBE_SECONDS", 1.0), ("_PROBE_PAUSE", 0.0), ("_PATIENCE", 0.1)):
        monkeypatch.setattr(f"weitiao.serving.desk.{name}", seconds)
    engine = CountingEngine(saying("好"), pace=100)
    with serving(service(engine)) as address:
        engine.fails = broken()
        httpx.post(address + CHAT, json={"messages": user("a")})
        engine.fails = None
        begun = time.monotonic()
        statuses = [httpx.get(f"{address}/ready").status_code for _ in range(4)]
        assert set(statuses) == {503}
        if time.monotonic() - begun < 1:
            assert len(engine.asks) == 2
        wait_for(lambda: len(engine.left) == 1)


def test_while_it_loads_it_says_so() -> None:
    engine = CountingEngine()
    engine.loads = 3
    with serving(service(engine), ready=False) as address:
        reply = httpx.post(address + CHAT, json={"messages": user("a")})
        assert (reply.status_code, refused(reply)["code"]) == (503, "model_loading")
        assert reply.headers["retry-after"] == "2"
        assert httpx.get(f"{address}/ready").status_code == 503
        assert httpx.get(f"{address}/health").json()["engine"] == "counting"
    assert engine.closed


def test_alternatives_that_the_engine_cannot_tell_are_refused() -> None:
    engine = CountingEngine()
    engine.top_logprobs = 0
    with serving(service(engine)) as address:
        asked = {"messages": user("a"), "logprobs": True, "top_logprobs": 2}
        reply = httpx.post(address + CHAT, json=asked)
        assert reply.status_code == 400
        assert refused(reply)["param"] == "top_logprobs"
        own = httpx.post(address + CHAT, json={**asked, "top_logprobs": 0})
        assert own.json()["choices"][0]["logprobs"]["content"]

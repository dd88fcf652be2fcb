"""The client of OpenAI's protocol, against a server on this machine."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from chat_service import Reply, last_user, serving
from weitiao import endpoint as module
from weitiao.endpoint import Endpoint, EndpointError

SECRET = "sk-very-secret-123"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv("TEST_KEY", SECRET)


def client(url: str | None, cache: Path | None = None, **changes: Any) -> Endpoint:
    options: dict[str, Any] = {
        "model": "tiny",
        "key_variable": "TEST_KEY",
        "max_requests": 100,
        "parallel": 3,
        "timeout": 5.0,
    }
    return Endpoint(url, **{**options, **changes}, cache=cache)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def raised(url: str | None, **changes: Any) -> EndpointError:
    with pytest.raises(EndpointError) as error, client(url, **changes) as endpoint:
        list(endpoint.ask([user("hello")]))
    assert SECRET not in error.value.sentence("en") + repr(error.value)
    assert error.value.sentence("zh") != error.value.sentence("en")
    return error.value


def test_answers_come_in_order_though_asked_in_parallel() -> None:
    def slow_when_even(asked: dict[str, Any]) -> str:
        number = int(last_user(asked))
        time.sleep(0.05 if number % 2 == 0 else 0)
        return f"answer {number}"

    with serving(slow_when_even) as service, client(service.url) as endpoint:
        answers = list(endpoint.ask((user(str(i)) for i in range(12)), temperature=0.5))
        assert [a.text for a in answers] == [f"answer {i}" for i in range(12)]
        assert 1 < service.most_at_once <= 3
        assert all(r["temperature"] == 0.5 and r["model"] == "tiny" for r in service.requests)
        assert service.headers[0]["authorization"] == f"Bearer {SECRET}"
        assert endpoint.usage == module.Usage(12, 12, 0, 84, 36)


def test_requests_are_read_only_a_little_ahead() -> None:
    taken = []
    with serving(lambda asked: "yes") as service, client(service.url) as endpoint:
        answers = endpoint.ask(taken.append(i) or user(str(i)) for i in range(50))
        next(answers)
        assert len(taken) <= 6
        answers.close()  # type: ignore[attr-defined]
    assert len(service.requests) <= 6


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_overload_is_met_by_asking_again(status: int) -> None:
    refusals = iter(range(2))

    def script(asked: dict[str, Any]) -> Reply | str:
        return Reply(b"busy", status) if next(refusals, None) is not None else "at last"

    with serving(script) as service, client(service.url) as endpoint:
        assert endpoint.answer(user("hi")).text == "at last"
        assert len(service.requests) == 3
        assert endpoint.usage.sent == 3
        assert endpoint.usage.answered == 1


def test_retry_after_is_honoured() -> None:
    times: list[float] = []

    def script(asked: dict[str, Any]) -> Reply | str:
        times.append(time.monotonic())
        return Reply(b"", 429, {"Retry-After": "0.3"}) if len(times) == 1 else "ok"

    with serving(script) as service, client(service.url) as endpoint:
        endpoint.answer(user("hi"))
    assert times[1] - times[0] >= 0.3


def test_retry_after_may_be_a_date_and_never_hangs() -> None:
    assert module._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert module._retry_after("Wed, 21 Oct 2099 07:28:00 GMT") > 1e9
    assert module._retry_after("12") == 12
    assert {module._retry_after(text) for text in (None, "", "soon", "-5", "nan", "inf")} == {0}
    with (
        serving(lambda asked: Reply(b"", 429, {"Retry-After": "86400"})) as service,
        client(service.url) as endpoint,
    ):
        assert endpoint.answer(user("hi")).error is not None
        assert len(service.requests) == 1


def test_one_failing_request_spoils_no_other() -> None:
    def script(asked: dict[str, Any]) -> Reply | str:
        if last_user(asked) != "bad":
            return "fine"
        return Reply(json.dumps({"error": {"message": f"key {SECRET}\n too long"}}).encode(), 400)

    with serving(script) as service, client(service.url, parallel=1) as endpoint:
        good, bad, last, *more = endpoint.ask(user(t) for t in ("good", *["bad", "last"] * 5))
        assert (good.text, bad.text, last.text) == ("fine", "", "fine")
        assert [bool(a.error) for a in more] == [True, False] * 4
        assert bad.error is not None
        assert "key *** too long" in bad.error.sentence("en")


def test_three_failures_in_a_row_end_it() -> None:
    with (
        serving(lambda asked: Reply(b"broken", 500)) as service,
        client(service.url, parallel=1) as endpoint,
    ):
        answers = endpoint.ask(user(str(i)) for i in range(9))
        assert next(answers).error is not None
        assert next(answers).error is not None
        with pytest.raises(EndpointError) as error:
            next(answers)
        assert error.value.key == "error.endpoint_busy"


def test_the_cache_makes_a_repeated_run_cost_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "answers.sqlite"
    with serving(lambda asked: f"re: {last_user(asked)}") as service:
        for _ in range(2):
            with client(service.url, cache) as endpoint:
                texts = [a.text for a in endpoint.ask([user("a"), user("b")], seed=1)]
                assert texts == ["re: a", "re: b"]
        assert len(service.requests) == 2
        assert endpoint.usage == module.Usage(cached=2)
        with client(service.url, cache) as endpoint:
            assert not endpoint.answer(user("a"), seed=2).cached
            assert endpoint.answer(user("a"), seed=1).cached
            assert not endpoint.answer(user("a"), seed=1, top_p=1).cached
            assert endpoint.answer(user("a"), top_p=1, seed=1).cached
        with client(service.url, cache, model="other") as endpoint:
            assert not endpoint.answer(user("a"), seed=1).cached
    assert SECRET.encode() not in cache.read_bytes()


def test_failures_are_not_cached(tmp_path: Path) -> None:
    replies = iter([Reply(b"no", 400), Reply("yes")])
    with serving(lambda asked: next(replies)) as service, client(service.url, tmp_path / "c") as e:
        assert e.answer(user("a")).error is not None
        assert e.answer(user("a")).text == "yes"


def test_the_cap_keeps_what_was_answered(tmp_path: Path) -> None:
    with serving(lambda asked: "yes") as service:
        with client(service.url, tmp_path / "c", max_requests=5) as endpoint:
            found = []
            with pytest.raises(EndpointError) as error:
                found.extend(endpoint.ask(user(str(i)) for i in range(9)))
            assert error.value.key == "error.endpoint_cap"
            assert len(service.requests) == 5
        with client(service.url, tmp_path / "c", max_requests=5) as endpoint:
            assert len(list(endpoint.ask(user(str(i)) for i in range(9)))) == 9
        assert len(service.requests) == 9


@pytest.mark.parametrize(
    ("url", "changes", "key"),
    [
        (None, {}, "error.endpoint_no_url"),
        ("", {}, "error.endpoint_no_url"),
        ("http://127.0.0.1:1/v1", {"model": None}, "error.endpoint_no_model"),
        ("localhost:8000/v1", {}, "error.endpoint_url"),
        ("http://[::1", {}, "error.endpoint_url"),
        ("http://h:99999/v1", {}, "error.endpoint_url"),
    ],
)
def test_what_cannot_be_asked_is_told_before(url: Any, changes: dict[str, Any], key: str) -> None:
    assert raised(url, **changes).key == key


def test_a_refused_connection_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = raised(f"http://name:{SECRET}@127.0.0.1:{port}/v1")
    assert error.key == "error.endpoint_unreachable"
    assert f"127.0.0.1:{port}" in str(error)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_names_the_variable(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda asked: Reply(f"bad key {SECRET}".encode(), status)) as service:
        error = raised(service.url)
        assert (error.key, error.values["variable"]) == ("error.endpoint_key_refused", "TEST_KEY")
        monkeypatch.delenv("TEST_KEY")
        assert raised(service.url).key == "error.endpoint_key_missing"
        assert "authorization" not in service.headers[-1]
    monkeypatch.setenv("TEST_KEY", "sk-密钥")
    assert raised("http://127.0.0.1:1/v1").key == "error.endpoint_key_unreadable"


def test_an_unknown_model_is_told_with_those_there_are() -> None:
    with serving(lambda asked: Reply(b"{}", 404), models=("qwen", "deepseek")) as service:
        error = raised(service.url)
        assert error.key == "error.endpoint_model_unknown"
        assert "qwen, deepseek" in str(error)
    with serving(lambda asked: "yes") as service:
        error = raised(service.url.removesuffix("/v1"))
        assert error.key == "error.endpoint_not_found"


@pytest.mark.parametrize(
    "body",
    [b"<html>welcome</html>", b"[]", b'{"choices": []}', b'{"choices": [{"message": null}]}', b"1"],
)
def test_a_reply_of_another_form_is_told(body: bytes) -> None:
    with serving(lambda asked: Reply(body)) as service:
        assert raised(service.url).key == "error.endpoint_malformed"


def test_silence_is_told() -> None:
    release = threading.Event()
    with serving(lambda asked: str(release.wait(5))) as service:
        with client(service.url, timeout=0.1) as endpoint:
            error = endpoint.answer(user("hi")).error
        release.set()
    assert error is not None
    assert error.key == "error.endpoint_silent"
    assert "0.1 s" in error.sentence("en")


def test_null_content_is_an_empty_answer() -> None:
    body = b'{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'
    with serving(lambda asked: Reply(body)) as service, client(service.url) as endpoint:
        answer = endpoint.answer(user("hi"))
    assert (answer.text, answer.finish, answer.error) == ("", "content_filter", None)


def test_the_whole_address_may_be_given() -> None:
    with serving(lambda asked: "yes") as service:
        for url in (f"{service.url}/", f"{service.url}/chat/completions"):
            with client(url) as endpoint:
                assert endpoint.answer(user("hi")).text == "yes"


def test_a_broken_cache_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "c"
    broken.write_bytes(b"no database at all" * 100)
    assert raised("http://127.0.0.1:1/v1", cache=broken).key == "error.endpoint_cache"


def test_a_proxy_that_cannot_be_used_is_told_and_not_asked_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    assert raised("http://example.invalid/v1").key == "error.endpoint_proxy"
    with serving(lambda asked: "yes") as service, client(service.url) as endpoint:
        assert endpoint.answer(user("hi")).text == "yes"

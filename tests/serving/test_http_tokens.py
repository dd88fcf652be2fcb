"""/tokenize: the very ids that a conversation, or a text, is asked with."""

import httpx
import pytest

from serving.counting import CountingEngine, encode, service, serving


def test_a_text_and_a_conversation_become_what_the_engine_is_asked() -> None:
    engine = CountingEngine()
    with serving(service(engine)) as address:
        turns = [{"role": "user", "content": "床前明月光"}]
        said = httpx.post(f"{address}/tokenize", json={"messages": turns}).json()
        httpx.post(f"{address}/v1/chat/completions", json={"messages": turns, "max_tokens": 1})
        text = httpx.post(f"{address}/tokenize", json={"prompt": "床前明月光"}).json()
        httpx.post(f"{address}/v1/completions", json={"prompt": "床前明月光", "max_tokens": 1})
    assert [list(ask.ids) for ask in engine.asks] == [said["tokens"], text["tokens"]]
    assert text["tokens"] == list(encode("床前明月光"))
    assert (said["count"], text["count"]) == (len(said["tokens"]), len(text["tokens"]))


@pytest.mark.parametrize(
    "asked", [{}, {"messages": [{"role": "user", "content": "a"}], "prompt": "a"}]
)
def test_neither_or_both_is_one_sentence(asked: dict[str, object]) -> None:
    with serving(service(CountingEngine())) as address:
        told = httpx.post(f"{address}/tokenize", json=asked, headers={"accept-language": "en"})
    assert told.status_code == 400
    assert told.json()["error"]["message"] == "Give either messages or a prompt."

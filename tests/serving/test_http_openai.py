"""OpenAI's protocol as its own client, LangChain's and curl speak it."""

import asyncio
import copy
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import openai
import pytest

from serving.counting import (
    TOKENIZER,
    CountingEngine,
    chat_with_tools,
    decode,
    encode,
    saying,
    service,
    serving,
)
from weitiao.records.render import ChatFormat
from weitiao.serving.engine import Ask

POEM = "床前明月光，疑是地上霜。🙂𠮷\n举头望明月，低头思故乡。"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(service()) as found:
        yield found


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as made:
        yield made


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_models_are_listed_and_told(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tuned", "base"]
    assert client.models.retrieve("tuned").owned_by == "weitiao"
    with pytest.raises(openai.NotFoundError, match=r"tuned, base"):
        client.models.retrieve("gpt/9")


def test_an_answer_in_one_piece(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tuned", messages=user(POEM))
    (choice,) = answer.choices
    assert choice.message.content == POEM
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint == "fp_1234"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(encode(POEM))
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )


def test_a_stream_says_the_same_and_cuts_no_character(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tuned",
            messages=user(POEM),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == POEM
    assert len(texts) > 5
    assert not any("\ufffd" in text for text in texts)
    assert chunks[0].choices[0].delta.role == "assistant"
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert finishes == [None] * (len(finishes) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(encode(POEM))


def test_the_bytes_of_a_stream_are_exact(address: str) -> None:
    asked = {"messages": user("好"), "stream": True, "max_tokens": None, "unheard_of": 1}
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=asked) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in reply.headers
        body = reply.read().decode()
    *events, end, rest = body.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert all("usage" not in chunk for chunk in chunks)


def test_several_answers_each_with_its_own_seed() -> None:
    engine = CountingEngine(lambda ask: encode(f"seed {ask.sampling.seed}"))
    with (
        serving(service(engine)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="-") as client,
    ):
        asked = {"model": "tuned", "messages": user("?"), "n": 3, "seed": 7, "temperature": 1}
        answer = client.chat.completions.create(**asked)
        said = [choice.message.content for choice in answer.choices]
        assert said == ["seed 7", "seed 8", "seed 9"]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == sum(len(encode(text)) for text in said)
        assert answer.usage.prompt_tokens == len(engine.asks[0].ids)
        streamed = ["", "", ""]
        finished = []
        for chunk in client.chat.completions.create(**asked, stream=True):
            (choice,) = chunk.choices
            streamed[choice.index] += choice.delta.content or ""
            finished += [choice.index] if choice.finish_reason else []
        assert streamed == said
        assert sorted(finished) == [0, 1, 2]


def test_what_is_asked_for_reaches_the_engine() -> None:
    engine = CountingEngine()
    with (
        serving(service(engine, max_tokens=50)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="-") as client,
    ):
        create = client.chat.completions.create
        create(model="base", messages=user("a"), temperature=0.5, top_p=0.9, seed=3, max_tokens=9)
        create(model="base", messages=user("a"), max_completion_tokens=8, max_tokens=9)
        create(model="base", messages=user("a"), max_tokens=900, top_p=0, temperature=1.5)
        create(model="tuned", messages=user("a"), extra_body={"repetition_penalty": 1.2})
    first, second, third, fourth = (ask.sampling for ask in engine.asks)
    assert (first.temperature, first.top_p, first.seed, first.max_new_tokens) == (0.5, 0.9, 3, 9)
    assert second.max_new_tokens == 8
    # No more than the server allows; and of the likeliest nothing remains to be drawn.
    assert (third.max_new_tokens, third.temperature) == (50, 0)
    assert (fourth.repetition_penalty, fourth.temperature, fourth.max_new_tokens) == (1.2, 0, 50)
    assert engine.asks[0].model == "base"
    assert "你是诗人" not in decode(engine.asks[0].ids)
    assert "你是诗人" in decode(engine.asks[3].ids)


def test_the_answer_is_cut_where_the_context_ends() -> None:
    engine = CountingEngine(saying("字" * 500), context=100)
    with (
        serving(service(engine)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="-") as client,
    ):
        answer = client.chat.completions.create(model="base", messages=user("a"), max_tokens=400)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 100


@pytest.mark.parametrize("stop", ["明月光", ["霜。", "明月光"]])
@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_is_never_sent(client: openai.OpenAI, stop: object, stream: bool) -> None:
    asked = {"model": "tuned", "messages": user(POEM), "stop": stop}
    if stream:
        chunks = list(client.chat.completions.create(**asked, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        finish = chunks[-1].choices[0].finish_reason
    else:
        (choice,) = client.chat.completions.create(**asked).choices
        text, finish = choice.message.content, choice.finish_reason
    assert (text, finish) == ("床前", "stop")


def test_logprobs(client: openai.OpenAI) -> None:
    asked = {"model": "tuned", "messages": user("你好"), "logprobs": True, "top_logprobs": 2}
    (choice,) = client.chat.completions.create(**asked).choices
    assert choice.logprobs is not None
    content = choice.logprobs.content
    assert content is not None
    assert [one.logprob for one in content] == [-0.5 - i / 100 for i in range(len(content))]
    assert all(len(one.top_logprobs) == 2 for one in content)
    streamed = [
        one
        for chunk in client.chat.completions.create(**asked, stream=True)
        if chunk.choices[0].logprobs
        for one in chunk.choices[0].logprobs.content or ()
    ]
    assert streamed == content
    if all(one.bytes for one in content):
        assert b"".join(bytes(one.bytes or ()) for one in content).decode() == "你好"


def test_tools_and_what_they_answered_are_put_before_the_model() -> None:
    engine = CountingEngine()
    made = service(engine)
    able = replace(made.served[1], chat=chat_with_tools())
    made = replace(made, served=(made.served[0], able))
    weather = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object"}},
    }
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "北京"}'},
    }
    messages = [
        *user("天气？"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "晴"},
    ]
    with (
        serving(made) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="-") as client,
    ):
        client.chat.completions.create(model="base", messages=messages, tools=[weather])
        client.chat.completions.create(
            model="base", messages=user("a"), tools=[weather], tool_choice="none"
        )
    prompt = decode(engine.asks[0].ids)
    assert '"name": "weather"' in prompt
    assert "<|im_start|>assistant\n北京<|im_end|>" in prompt
    assert "晴" in prompt
    assert "weather" not in decode(engine.asks[1].ids)


def test_completions_take_texts_and_token_ids() -> None:
    engine = CountingEngine(lambda ask: [*ask.ids[::-1]])
    with (
        serving(service(engine)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="-") as client,
    ):
        create = client.completions.create
        one = create(model="tuned", prompt="上下", echo=True)
        assert one.choices[0].text == "上下" + decode(encode("上下")[::-1])
        several = create(model="tuned", prompt=["一", "二"], n=2, logprobs=1)
        assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
        assert [c.text for c in several.choices] == ["一", "一", "二", "二"]
        told = several.choices[0].logprobs
        assert told is not None
        assert told.text_offset == [0]
        assert told.token_logprobs == [-0.5]
        ids = create(model="tuned", prompt=encode("三四"))
        assert ids.usage is not None
        assert ids.usage.prompt_tokens == len(encode("三四"))
        both = create(model="tuned", prompt=[[5, 6], [7]])
        assert len(both.choices) == 2
        chunks = list(create(model="tuned", prompt="上下", stream=True, echo=True))
        assert "".join(chunk.choices[0].text for chunk in chunks) == one.choices[0].text
        assert {chunk.object for chunk in chunks} == {"text_completion"}


@pytest.mark.parametrize("shape", [lambda ids: ids, lambda ids: [ids]])
def test_a_whole_number_may_be_written_as_a_fraction(
    address: str, shape: Callable[[list[float]], object]
) -> None:
    ids = encode("床前明月光")
    asked = {"prompt": shape([float(i) for i in ids]), "max_tokens": 1.0, "echo": True}
    told = httpx.post(f"{address}/v1/completions", json=asked)
    assert told.status_code == 200, told.text
    assert told.json()["choices"][0]["text"].startswith("床前明月光")
    asked["prompt"] = shape([0.5, *ids])
    assert httpx.post(f"{address}/v1/completions", json=asked).status_code == 400


@pytest.mark.parametrize("field", ["prompt", "query"])
def test_generate_is_what_the_tutorials_know(address: str, field: str) -> None:
    told = httpx.post(f"{address}/generate", json={field: "你好", "max_new_tokens": 30}).json()
    assert told["response"] == told["text"] == "你好"
    assert told["model"] == "tuned"
    assert told["usage"]["total_tokens"] > told["usage"]["completion_tokens"] > 0


def test_the_asynchronous_client(address: str) -> None:
    async def ask() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="-") as client:
            create = client.chat.completions.create
            whole = await create(model="tuned", messages=user(POEM))
            pieces = await create(model="tuned", messages=user(POEM), stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in pieces])
            return whole.choices[0].message.content, text

    assert asyncio.run(ask()) == (POEM, POEM)


def test_langchain(address: str) -> None:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI(
        base_url=f"{address}/v1", api_key="-", model="tuned", temperature=0
    )
    assert chat.invoke([("system", "s"), ("user", POEM)]).content == POEM
    assert "".join(piece.content for piece in chat.stream(POEM)) == POEM


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(address: str) -> None:
    def curl(*more: str) -> str:
        command = ["curl", "-sS", "--max-time", "10", *more]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    asked = json.dumps({"messages": user("你好")})
    kind = "Content-Type: application/json"
    told = curl(f"{address}/v1/chat/completions", "-H", kind, "-d", asked)
    assert json.loads(told)["choices"][0]["message"]["content"] == "你好"
    refused = curl(f"{address}/v1/chat/completions", "-d", asked)
    assert "Content-Type: application/json" in json.loads(refused)["error"]["message"]


def test_one_word_needs_one_ask() -> None:
    """A stop string ends the answer at the engine, too."""
    engine = CountingEngine(saying("一二三四五六七八九十" * 20), pace=0.005)
    with serving(service(engine)) as address:
        asked = {"messages": user("a"), "stop": "四"}
        told = httpx.post(f"{address}/v1/chat/completions", json=asked).json()
    assert told["choices"][0]["message"]["content"] == "一二三"
    assert [type(ask) for ask in engine.left] == [Ask]


def test_reasoning_stands_beside_the_answer() -> None:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<|im_start|>assistant\\n", "<|im_start|>assistant\\n<think>\\n"
    )
    made = service(CountingEngine(saying("想一想。</think>\n\n四")))
    made = replace(made, served=(replace(made.served[0], chat=ChatFormat(tokenizer)),))
    with serving(made) as address:
        url, asked = f"{address}/v1/chat/completions", {"messages": user("2+2"), "stop": "。"}
        message = httpx.post(url, json=asked).json()["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == ("四", "想一想。")
        body = httpx.post(url, json={**asked, "stream": True}).text
    deltas = [
        json.loads(event.removeprefix("data: "))["choices"][0]["delta"]
        for event in body.split("\n\n")[:-2]
    ]
    assert "".join(delta.get("content", "") for delta in deltas) == "四"
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "想一想。"

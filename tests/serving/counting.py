"""An engine that says what a test tells it to, at a pace, and remembers who left."""

import asyncio
import copy
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import APIRouter

from weitiao.models.load import find_model, load_tokenizer
from weitiao.records.render import ChatFormat
from weitiao.serving.app import create_app
from weitiao.serving.engine import Ask, EngineError, Load, Logprob, Sampling, Step
from weitiao.serving.options import ServeOptions
from weitiao.serving.protocol import BoundedHttp
from weitiao.serving.service import Served, Service

TOKENIZER: Any = load_tokenizer(find_model("embedded"))
CHAT = ChatFormat(TOKENIZER)
TOOLS_TEMPLATE = (
    "{{ tools | tojson if tools else '' }}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Reply = Callable[[Ask], Sequence[int]]


def chat_with_tools() -> ChatFormat:
    """The embedded model's tokenizer with a template that knows tools."""
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = TOOLS_TEMPLATE
    return ChatFormat(tokenizer)


def decode(ids: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(ids), clean_up_tokenization_spaces=False))


def encode(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False))


def last_said(ask: Ask) -> str:
    """The last message in a prompt of the embedded model's template."""
    before = decode(ask.ids).rpartition("<|im_end|>")[0]
    return before.rpartition("<|im_start|>")[2].partition("\n")[2]


def echo(ask: Ask) -> list[int]:
    return encode(last_said(ask))


def saying(text: str) -> Reply:
    return lambda ask: encode(text)


class CountingEngine:
    """Answers ``slots`` at a time, a token each ``pace`` seconds, in the order of arrival."""

    name = "counting"
    models = ("tuned", "base")
    top_logprobs = 20

    def __init__(
        self, reply: Reply = echo, *, slots: int = 4, pace: float = 0.0, context: int = 4096
    ) -> None:
        self.reply, self.pace, self.context = reply, pace, context
        self.asks: list[Ask] = []
        self.left: list[Ask] = []
        self.started = self.closed = False
        self.fails: Exception | None = None
        self.loads = 0.0
        self._slots = asyncio.Semaphore(slots)
        self._running = self._waiting = 0

    async def start(self) -> None:
        await asyncio.sleep(self.loads)
        self.started = True

    async def stream(self, ask: Ask) -> AsyncIterator[Step]:
        self.asks.append(ask)
        if self.fails is not None:
            raise self.fails
        ids = list(self.reply(ask))
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._running += 1
        done = False
        try:
            for place, token in enumerate(ids[: ask.sampling.max_new_tokens]):
                await asyncio.sleep(self.pace)
                yield Step((token,), logprobs=logprobs(ask, token, place))
            done = True
            cut = len(ids) > ask.sampling.max_new_tokens
            yield Step((), "length" if cut else "stop")
        finally:
            self._running -= 1
            self._slots.release()
            if not done:
                self.left.append(ask)

    def load(self) -> Load:
        return Load(self._running, self._waiting)

    async def close(self) -> None:
        self.closed = True


def logprobs(ask: Ask, token: int, place: int) -> tuple[Logprob, ...]:
    if ask.sampling.logprobs is None:
        return ()
    top = tuple((token + i, -0.5 - i) for i in range(ask.sampling.logprobs))
    return (Logprob(token, -0.5 - place / 100, top),)


def broken(why: str = "out of order") -> EngineError:
    return EngineError(why)


def service(engine: CountingEngine | None = None, **options: Any) -> Service:
    """Two models on one engine: tuned with a system prompt of its own, base without."""
    tuned = Served(
        "tuned",
        CHAT,
        decode,
        system="你是诗人",
        defaults=Sampling(max_new_tokens=64),
        created=1_700_000_000,
        description="tuned on base",
        fingerprint="fp_1234",
    )
    return Service(
        engine or CountingEngine(),
        (tuned, Served("base", CHAT, decode)),
        ServeOptions(**options),
    )


@contextmanager
def serving(made: Service, *routers: APIRouter, ready: bool = True) -> Iterator[str]:
    """Serve on a free port in a thread of this process; yields the address."""
    app = create_app(made)
    for router in routers:
        app.include_router(router)
    config = uvicorn.Config(
        app,
        port=0,
        http=BoundedHttp,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started and (made.engine.started or not ready))  # type: ignore[attr-defined]
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def wait_for(happened: Callable[[], object], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)

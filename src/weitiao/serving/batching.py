"""The engine of transformers models: requests join and leave a running batch between tokens.

A thread of its own computes; the event loop hands it requests and is called back with steps.
Each model served has a batch; those that have something to do take turns.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Condition, Thread

import torch

from weitiao.errors import ModelError
from weitiao.models.adapters import transformers_model
from weitiao.models.choosing import Chooser, choose, log_probabilities
from weitiao.models.joining import Rows, joining_rows
from weitiao.models.pair import Voice
from weitiao.models.short_memory import give_back, short_of_memory
from weitiao.serving.engine import Ask, EngineError, Load, Logprob, Step
from weitiao.words import say

TURN_SECONDS = 0.1
"""How long a model goes on while another waits: switching an adapter takes milliseconds."""

_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Request:
    ask: Ask
    most: int
    """Tokens of prompt and answer together when it must end."""
    deliver: Callable[[Step | EngineError], None]
    chooser: Chooser
    gone: bool = False
    """Set by the event loop: nobody wants the answer any more."""
    tried_alone: bool = False


@dataclass(slots=True, eq=False)
class _Desk:
    """One model's batch: its requests by number, and the token that each goes on with."""

    voice: Voice
    rows: Rows
    running: dict[int, _Request] = field(default_factory=dict)
    chosen: dict[int, int] = field(default_factory=dict)

    @property
    def vocabulary(self) -> int:
        weight = transformers_model(self.voice.model).get_input_embeddings().weight
        return int(weight.shape[0])  # type: ignore[index]


class TransformersEngine:
    """See :class:`weitiao.serving.engine.Engine`. ``models`` is known after :meth:`start`.

    Args:
        load: returns the voices by the names they are served by. Called once, in the engine's
            thread, which alone may use them from then on.
        context: the most tokens of prompt and answer together.
        max_running: the most requests that are answered at once.
        block_tokens: for how many tokens of all running requests, prompts and answers at their
            longest, there is memory; one request alone is always answered.
        kept_tokens: how many tokens' keys and values each model keeps of what it answered, for
            requests that begin alike; 0 keeps none.
    """

    name = "transformers"
    top_logprobs = 20

    def __init__(
        self,
        load: Callable[[], Mapping[str, Voice]],
        context: int,
        *,
        max_running: int = 16,
        block_tokens: int = 32768,
        kept_tokens: int = 8192,
    ) -> None:
        self.context = context
        self.models: tuple[str, ...] = ()
        self._load = load
        self._most_running = self._limit = max_running
        self._block_tokens, self._kept_tokens = block_tokens, kept_tokens
        self._desks: dict[str, _Desk] = {}
        self._vocabularies: dict[str, int] = {}
        self._turn: _Desk | None = None
        self._turn_ends = 0.0
        self._speaking = ExitStack()
        self._number = 0
        # Both threads use these: the condition guards them.
        self._changed = Condition()
        self._waiting: deque[_Request] = deque()
        self._running, self._closed = 0, False
        self._thread: Thread | None = None
        self._ready: Future[None] = Future()

    async def start(self) -> None:
        """See :class:`weitiao.serving.engine.Engine`."""
        if self._thread is None:
            # Who waits for it may give up; the thread goes on.
            self._ready.set_running_or_notify_cancel()
            self._thread = Thread(target=self._work, name="answers", daemon=True)
            self._thread.start()
        await asyncio.wrap_future(self._ready)

    async def stream(self, ask: Ask) -> AsyncIterator[Step]:
        """See :class:`weitiao.serving.engine.Engine`."""
        ids, sampling = ask.ids, ask.sampling
        if not ids or min(ids) < 0 or max(ids) >= self._vocabularies.get(ask.model, 0):
            raise EngineError(say("serving.broken", why=say("serving.token_unknown")))
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Step | EngineError]()
        request = _Request(
            ask,
            min(len(ids) + sampling.max_new_tokens, self.context),
            lambda item: _in_loop(loop, arrived, item),
            Chooser(
                ids,
                sampling.temperature,
                sampling.top_p,
                sampling.repetition_penalty,
                sampling.seed,
            ),
        )
        if request.most <= len(ids):
            yield Step((), "length")
            return
        with self._changed:
            if self._closed or self._thread is None:
                raise EngineError(say("serving.ended"))
            self._waiting.append(request)
            self._changed.notify()
        try:
            while True:
                item = await arrived.get()
                if isinstance(item, EngineError):
                    raise item
                yield item
                if item.finish is not None:
                    return
        finally:
            request.gone = True

    def load(self) -> Load:
        """See :class:`weitiao.serving.engine.Engine`."""
        with self._changed:
            return Load(self._running, sum(not r.gone for r in self._waiting))

    async def close(self) -> None:
        """See :class:`weitiao.serving.engine.Engine`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        try:
            for name, voice in self._load().items():
                self._desks[name] = _Desk(voice, self._rows(voice))
                self._vocabularies[name] = self._desks[name].vocabulary
        except Exception as cause:
            self._closed = True
            self._desks.clear()
            short = short_of_memory(cause)
            self._ready.set_exception(ModelError("error.serving_memory") if short else cause)
            return
        self.models = tuple(self._desks)
        self._ready.set_result(None)
        try:
            with torch.inference_mode(), self._speaking:
                while self._has_work():
                    self._drop_gone()
                    self._admit()
                    if desk := self._whose_turn():
                        self._advance(desk)
        finally:
            self._end()

    def _rows(self, voice: Voice) -> Rows:
        return joining_rows(voice.model, self.context, self._kept_tokens)

    def _has_work(self) -> bool:
        """Wait until there is something to do; False when there will be nothing any more."""
        with self._changed:
            self._running = sum(len(desk.running) for desk in self._desks.values())
            self._changed.wait_for(lambda: self._closed or self._waiting or self._running)
            return not self._closed

    def _drop_gone(self) -> None:
        with self._changed:
            for request in [r for r in self._waiting if r.gone]:
                self._waiting.remove(request)
        for desk in self._desks.values():
            for number in [n for n, request in desk.running.items() if request.gone]:
                self._leave(desk, number)

    def _admit(self) -> None:
        """Let in who has waited longest, as long as there is room."""
        while True:
            with self._changed:
                if not self._waiting or not self._has_room(self._waiting[0]):
                    return
                request = self._waiting.popleft()
                self._running += 1
            desk = self._desks[request.ask.model]
            self._number += 1
            desk.running[self._number] = request
            desk.rows.join(self._number, request.chooser.said, request.most)

    def _has_room(self, request: _Request) -> bool:
        running = sum(len(desk.running) for desk in self._desks.values())
        tokens = sum(
            desk.rows.tokens(request.most if name == request.ask.model else 0)
            for name, desk in self._desks.items()
        )
        return running == 0 or (running < self._limit and tokens <= self._block_tokens)

    def _whose_turn(self) -> _Desk | None:
        """Return the model that goes on, speaking already; None where none has anything to do."""
        desks = list(self._desks.values())
        busy = [desk for desk in desks if desk.running]
        now = time.monotonic()
        if self._turn in busy and (len(busy) == 1 or now < self._turn_ends):
            return self._turn
        if not busy:
            return None
        last = -1 if self._turn is None else desks.index(self._turn)
        turn = next(d for d in desks[last + 1 :] + desks if d.running)
        if turn is not self._turn:
            self._speaking.close()
            self._speaking.enter_context(turn.voice.speaking())
        self._turn, self._turn_ends = turn, now + TURN_SECONDS
        return turn

    def _advance(self, desk: _Desk) -> None:
        """Give every request of ``desk`` that has one its next token."""
        try:
            numbers, logits_MV = desk.rows.step(desk.chosen)
            requests = [desk.running[number] for number in numbers]
            tokens = choose(logits_MV, [r.chooser for r in requests]) if requests else []
            steps = [
                None if token is None else _step(request, token, logits_V)
                for request, token, logits_V in zip(requests, tokens, logits_MV, strict=True)
            ]
        except Exception as cause:
            short, why = short_of_memory(cause), str(cause) or type(cause).__name__
            _logger.warning("a batch of %d failed", len(desk.running), exc_info=cause)
        else:
            for number, token, step in zip(numbers, tokens, steps, strict=True):
                self._answer(desk, number, token, step)
            return
        # Only here has the error let go of what it held.
        self._recover(desk, short, why)

    def _answer(self, desk: _Desk, number: int, token: int | None, step: Step | None) -> None:
        request = desk.running[number]
        if token is None or step is None:
            why = say("serving.not_a_number")
            request.deliver(EngineError(say("serving.broken", why=why)))
            self._leave(desk, number, keep=False)
            return
        request.chooser.said.append(token)
        desk.chosen[number] = token
        if step.finish is not None:
            # Memory that was short may be there again.
            self._limit = min(self._limit + 1, self._most_running)
            self._leave(desk, number)
        request.deliver(step)

    def _leave(self, desk: _Desk, number: int, keep: bool = True) -> None:
        desk.rows.leave(number, keep)
        del desk.running[number]
        desk.chosen.pop(number, None)
        with self._changed:
            self._running -= 1

    def _recover(self, desk: _Desk, short: bool, why: str) -> None:
        """Begin the batch anew after it failed; for want of memory with half of the requests."""
        requests = list(desk.running.values())
        running = sum(len(d.running) for d in self._desks.values())
        desk.running.clear()
        desk.chosen.clear()
        desk.rows = self._rows(desk.voice)
        give_back()
        again = short and not (running == 1 and requests[0].tried_alone)
        if again:
            for request in requests:
                request.tried_alone = running == 1
            self._limit = max(1, running // 2)
        with self._changed:
            self._running -= len(requests)
            if again:
                self._waiting.extendleft(reversed(requests))
        if not again:
            told = say("serving.no_memory") if short else say("serving.broken", why=why)
            for request in requests:
                request.deliver(EngineError(told))

    def _end(self) -> None:
        """Tell everyone who still waits, and let go of the models."""
        with self._changed:
            self._closed = True
            left = [*self._waiting, *(r for d in self._desks.values() for r in d.running.values())]
            self._waiting.clear()
            self._running = 0
        for request in left:
            request.deliver(EngineError(say("serving.ended")))
        self._desks.clear()
        self._turn = None
        give_back()


def _in_loop(
    loop: asyncio.AbstractEventLoop,
    arrived: "asyncio.Queue[Step | EngineError]",
    item: Step | EngineError,
) -> None:
    try:
        loop.call_soon_threadsafe(arrived.put_nowait, item)
    except RuntimeError:
        _logger.debug("an answer came after its event loop was closed")


def _step(request: _Request, token: int, logits_V: torch.Tensor) -> Step:
    """Return what the request is told of its next token."""
    ask = request.ask
    if token in ask.stop_ids:
        return Step((), "stop")
    logprobs: tuple[Logprob, ...] = ()
    if ask.sampling.logprobs is not None:
        own, top = log_probabilities(logits_V, token, ask.sampling.logprobs)
        logprobs = (Logprob(token, own, top),)
    ends = len(request.chooser.said) + 1 >= request.most
    return Step((token,), "length" if ends else None, logprobs)

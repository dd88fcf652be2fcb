"""OpenVINO GenAI behind :class:`weitiao.serving.engine.Engine`.

Each model runs in a process of its own (:mod:`weitiao.serving.openvino.worker`), begun when it
is first asked and begun again when it has died.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import IO, Any

import orjson
import psutil  # type: ignore[import-untyped]

from weitiao.errors import ModelError
from weitiao.plan.machine import usable_cores
from weitiao.serving.engine import Ask, EngineError, Load, Logprob, Step
from weitiao.serving.openvino.form import Settings
from weitiao.words import say

_ENDS, _WITHIN = 3, 60.0
"""After so many ends within so many seconds a process is not begun again for now."""

_LAST_WORDS = 5.0
"""Seconds for a process that has failed to end by itself."""

_LONGEST_LINE = 1 << 24
"""Bytes; what a process tells of one step is far shorter."""


def require_openvino() -> None:
    """Raise where the packages of this engine are missing; they are not loaded.

    Raises:
        ModelError: they are not installed.
    """
    missing = [name for name in ("openvino_genai", "gguf") if find_spec(name) is None]
    if missing:
        raise ModelError("error.openvino_missing", packages=", ".join(missing))


class OpenVinoEngine:
    """Answers with OpenVINO on a CPU. ``models``: name → GGUF file, the one begun first first.

    ``cache`` is the folder for OpenVINO's form of the files; ``context`` the most tokens of
    prompt and answer; ``max_running`` how many requests a model answers at once, others wait;
    ``cache_bytes`` the most memory of a model's cache of attention, where the longest request
    needs no more; ``threads`` None takes a thread for each core.

    Raises:
        ModelError: OpenVINO is not installed.
    """

    name = "openvino"

    top_logprobs = 0
    """The most likely alternatives it tells with a token: none, the token's own logprob alone."""

    def __init__(
        self,
        models: Mapping[str, Path],
        cache: Path,
        context: int,
        *,
        max_running: int = 32,
        cache_bytes: int = 1 << 30,
        threads: int | None = None,
    ) -> None:
        require_openvino()
        self.models = tuple(models)
        self.context = context
        self.max_running = max_running
        shared = (str(cache), context, max_running, cache_bytes, threads or _cores())
        self._workers = {
            name: _Worker(name, Settings(str(gguf), *shared)) for name, gguf in models.items()
        }

    async def start(self) -> None:
        """Load the first model; the others are loaded when they are first asked.

        Raises:
            ModelError: OpenVINO cannot run it, or memory does not suffice.
        """
        await self._workers[self.models[0]].ready()

    async def stream(self, ask: Ask) -> AsyncIterator[Step]:
        """Yield the answer as it comes; see :class:`weitiao.serving.engine.Engine`.

        Raises:
            EngineError: the model's process died, or cannot be begun.
        """
        worker = self._workers[ask.model]
        try:
            await worker.ready()
        except ModelError as error:
            raise EngineError(error.sentence()) from error
        number, answer = worker.ask(ask)
        finish = None
        try:
            while finish is None:
                told = await answer.get()
                if isinstance(told, EngineError):
                    raise told
                finish = told["finish"]
                if finish == "failed":
                    sentence = say("serve.openvino_failed", model=ask.model, cause=told["cause"])
                    raise EngineError(sentence)
                yield _step(told, ask)
        finally:
            worker.drop(number)

    def load(self) -> Load:
        """Return how many requests run and wait."""
        asked = [len(worker.answers) for worker in self._workers.values()]
        running = sum(min(number, self.max_running) for number in asked)
        loading = sum(worker.loading for worker in self._workers.values())
        return Load(running, sum(asked) - running + loading)

    async def close(self) -> None:
        """End all processes; what they were answering raises."""
        await asyncio.gather(*(worker.close() for worker in self._workers.values()))


def _cores() -> int:
    """Return the cores to compute on; the two threads of a core would only wait for each other."""
    return min(usable_cores(), psutil.cpu_count(logical=False) or 1)


def _step(told: Mapping[str, Any], ask: Ask) -> Step:
    ids = tuple(told["ids"])
    asked = ask.sampling.logprobs is not None
    pairs = zip(ids, told["logprobs"], strict=True) if asked else ()
    return Step(ids, told["finish"], tuple(Logprob(id, logprob) for id, logprob in pairs))


def _config(ask: Ask) -> dict[str, Any]:
    """Return the arguments of OpenVINO's ``GenerationConfig``."""
    sampling = ask.sampling
    config: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "repetition_penalty": sampling.repetition_penalty,
        "logprobs": 0 if sampling.logprobs is None else 1,
        # It must be told one; what is ignored may be any.
        "stop_token_ids": ask.stop_ids or (0,),
        "eos_token_id": next(iter(ask.stop_ids), 0),
        "ignore_eos": not ask.stop_ids,
    }
    if sampling.temperature > 0:
        seed = random.getrandbits(32) if sampling.seed is None else sampling.seed % 2**32
        config |= {
            "do_sample": True,
            # OpenVINO takes no 0, also of 32 bits; these keep the likeliest token alone.
            "temperature": max(sampling.temperature, 1e-6),
            "top_p": max(sampling.top_p, 1e-6),
            "rng_seed": seed,
        }
    return config


class _Worker:
    """The process of one model. ``answers``: where the answers of what it is asked come."""

    def __init__(self, model: str, settings: Settings) -> None:
        self.answers: dict[int, asyncio.Queue[Any]] = {}
        self.loading = 0
        """Requests that wait for the model to be loaded."""
        self._model, self._settings = model, settings
        self._process: asyncio.subprocess.Process | None = None
        self._started: asyncio.Future[None] | None = None
        self._life: asyncio.Task[None] | None = None
        self._ends: deque[float] = deque(maxlen=_ENDS)
        self._numbers = count(1)

    async def ready(self) -> None:
        """Return when the process can be asked.

        Raises:
            ModelError: the model cannot be loaded.
            EngineError: it has ended too often, or was closed.
        """
        if self._process is not None:
            return
        if self._started is None or self._started.done():
            if len(self._ends) == _ENDS and time.monotonic() - self._ends[0] < _WITHIN:
                raise EngineError(say("serve.openvino_broken", model=self._model, times=_ENDS))
            self._started = asyncio.get_running_loop().create_future()
            # Nobody may be left to be told: clients may go while the model loads.
            self._started.add_done_callback(lambda told: told.cancelled() or told.exception())
            self._life = asyncio.create_task(self._live(self._started))
        self.loading += 1
        try:
            await asyncio.shield(self._started)
        finally:
            self.loading -= 1

    def ask(self, ask: Ask) -> tuple[int, "asyncio.Queue[Any]"]:
        """Send a request; return its number, and where its answer comes."""
        number = next(self._numbers)
        answer = self.answers[number] = asyncio.Queue()
        self._send({"ask": number, "ids": ask.ids, "config": _config(ask)})
        return number, answer

    def drop(self, number: int) -> None:
        """Take a request out; nothing happens where it has ended."""
        if self.answers.pop(number, None) is not None:
            self._send({"drop": number})

    async def close(self) -> None:
        """End the process."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)

    def _send(self, line: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(orjson.dumps(line) + b"\n")

    async def _live(self, started: "asyncio.Future[None]") -> None:
        """See the process from its beginning to its end; tell ``started`` how it loaded."""
        cause = "?"
        with tempfile.TemporaryFile() as errors:
            try:
                process = await _begin(errors, self._settings)
                try:
                    await self._listen(process, started)
                    # It has nothing more to tell, and may be about to print why.
                    with suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), _LAST_WORDS)
                finally:
                    self._process = None
                    with suppress(ProcessLookupError):
                        process.kill()
                    cause = _last_words(await process.wait(), errors)
            except (ModelError, OSError) as error:
                cause = str(error)
                if isinstance(error, ModelError):
                    started.set_exception(error)
            finally:
                self._end(started, cause)

    def _end(self, started: "asyncio.Future[None]", cause: str) -> None:
        self._ends.append(time.monotonic())
        if not started.done():
            told = ModelError("error.openvino_died", model=self._model, cause=cause)
            started.set_exception(told)
        for answer in self.answers.values():
            sentence = say("serve.openvino_died", model=self._model, cause=cause)
            answer.put_nowait(EngineError(sentence))
        self.answers.clear()

    async def _listen(
        self, process: asyncio.subprocess.Process, started: "asyncio.Future[None]"
    ) -> None:
        assert process.stdout is not None
        if line := await process.stdout.readline():
            told = orjson.loads(line)
            if "error" in told:
                raise ModelError(told["error"], **told["values"])
            self._process = process
            started.set_result(None)
        while line := await process.stdout.readline():
            for part in orjson.loads(line):
                if answer := self.answers.get(part["ask"]):
                    answer.put_nowait(part)
                    if part["finish"]:
                        del self.answers[part["ask"]]


def large_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` in which glibc asks Linux for large pages; what the user set stays.

    All weights are read for each token: 1.13 times the tokens with 8 requests (measured).
    """
    name, given = "glibc.malloc.hugetlb", environment.get("GLIBC_TUNABLES", "")
    asked = given if name in given else ":".join(filter(None, [given, f"{name}=1"]))
    return {**environment, "GLIBC_TUNABLES": asked}


async def _begin(errors: IO[bytes], settings: Settings) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        # -P: what lies in the working directory must not be taken for a library.
        *(sys.executable, "-P", "-m", "weitiao.serving.openvino.worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env=large_pages(os.environ),
        # Ctrl-C reaches the server alone, which ends this process.
        start_new_session=True,
        limit=_LONGEST_LINE,
    )
    assert process.stdin is not None
    process.stdin.write(orjson.dumps(asdict(settings)) + b"\n")
    return process


def _last_words(code: int, errors: IO[bytes]) -> str:
    """Return what is known of a process's end: the last line it printed, or its code."""
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if code > 0 and lines else say("serve.openvino_code", code=code)

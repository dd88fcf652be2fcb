"""vLLM as an engine: a process in an environment that the user names, told token ids.

vLLM's pins never fit ours, so it is not installed by us and not imported. It is started as
``vllm serve`` on a socket in a folder that nobody else can enter, watched, and started again when
it dies; its workers end with it (``vllm_guard``). It is asked by its completions route, with
token ids both ways: chat templates and text are ours, so that what is served is what was
trained. The flags and fields are those that vLLM documents from 0.12 to 0.30. The tests run a
stand-in that speaks the same protocol; vLLM itself, which needs a GPU, has not been run.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import orjson

from weitiao.errors import ModelError
from weitiao.serving.engine import Ask, EngineError, Load, Logprob, Step
from weitiao.serving.vllm_process import (
    LOOK_EVERY,
    OLDEST,
    Server,
    begin,
    check_vllm,
    end,
    until_ready,
)
from weitiao.words import say

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What ``--max-lora-rank`` may be."""

_NOT_PLAIN = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern")
"""What vLLM refuses, or scales all layers by one number for: answers would be wrong in silence."""

_BASE = "base"
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How vLLM is run."""

    dtype: str = "auto"
    """auto, bfloat16, float16 or float32."""
    gpu_memory: float = 0.9
    """The share of the GPU's memory that it takes, from 0 to 1."""
    start_seconds: float = 1200.0
    """How long it may take until it answers; it loads, compiles and measures before that."""
    restarts: int = 3
    """How often it is started again within an hour."""


class VllmEngine:
    """Answers by vLLM, which batches, queues and caches by itself."""

    name = "vllm"
    top_logprobs = 20

    def __init__(
        self,
        python: Path,
        model: str | Path,
        models: Mapping[str, Path | None],
        context: int,
        log: Path,
        options: VllmOptions = VllmOptions(),
    ) -> None:
        """Note what to serve; nothing is started yet.

        ``python``: found by ``find_vllm``. ``model``: a folder or a hub's id. ``models``: each
        name that is answered by, the tuned one first, with its adapter's folder, or None for
        ``model`` itself. ``log``: the file to which what vLLM says is added.
        """
        self.models = tuple(models)
        self.context = context
        self.version = ""
        """vLLM's, known after the start."""
        self._python, self._log, self._options = python, log.absolute(), options
        self._model = str(Path(model).absolute() if Path(model).exists() else model)
        # Its names are ours, because its command line cannot take every name that a user can give.
        self._inside = {
            name: _BASE if folder is None else f"adapter-{number}"
            for number, (name, folder) in enumerate(models.items())
        }
        self._adapters = {
            name: folder.absolute() for name, folder in models.items() if folder is not None
        }
        self._server: Server | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._gave_up = False
        self._running = self._waiting = 0

    async def start(self) -> None:
        """Start vLLM; returns when it answers.

        Raises:
            ModelError: it is missing or too old, an adapter is of a kind that it cannot serve,
                or it ended or did not answer in time, told with what its log says.
        """
        if self._keeper is not None:
            return
        self.version = await asyncio.to_thread(check_vllm, self._python)
        self._server = await self._launched()
        self._keeper = asyncio.create_task(self._keep_up())

    async def stream(self, ask: Ask) -> AsyncIterator[Step]:
        """Yield the answer as it comes. Closing the iterator takes the request out of vLLM.

        Raises:
            EngineError: vLLM has ended, or refuses the request.
        """
        if self._server is None:
            key = "vllm.gave_up" if self._gave_up else "vllm.starting"
            raise EngineError(say(key, log=self._log))
        steps = _steps(self._server.client, _request(ask, self._inside[ask.model]), ask)
        begun = finished = False
        self._waiting += 1
        try:
            async with contextlib.aclosing(steps):
                async for step in steps:
                    if not begun:
                        begun = True
                        self._waiting -= 1
                        self._running += 1
                    finished = finished or step.finish is not None
                    yield step
        except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
            raise EngineError(say("vllm.lost", log=self._log)) from error
        finally:
            if begun:
                self._running -= 1
            else:
                self._waiting -= 1
        if not finished:
            raise EngineError(say("vllm.lost", log=self._log))

    def load(self) -> Load:
        """Return how many requests are answered, and how many wait for their first token."""
        return Load(self._running, self._waiting)

    async def close(self) -> None:
        """End vLLM with all its processes; what still runs gets an EngineError."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        server, self._server = self._server, None
        if server is not None:
            await end(server)

    async def _keep_up(self) -> None:
        """Start vLLM again when it has died, so often and no oftener."""
        deaths: list[float] = []
        while True:
            server = self._server
            while server is not None and server.process.poll() is None:
                await asyncio.sleep(LOOK_EVERY)
            self._server = None
            if server is not None:
                await end(server)
            now = time.monotonic()
            deaths = [*(death for death in deaths if now - death < _HOUR), now]
            if len(deaths) > self._options.restarts:
                self._gave_up = True
                return
            # A start that fails is in the log, and counts as another death.
            with contextlib.suppress(ModelError):
                self._server = await self._launched()

    async def _launched(self) -> Server:
        server = begin(self._python, self._arguments(), self._log)
        try:
            await until_ready(server, self._options.start_seconds)
        except BaseException:
            await end(server)
            raise
        return server

    def _arguments(self) -> list[str]:
        options = self._options
        arguments = [
            self._model,
            *("--served-model-name", _BASE),
            *("--max-model-len", str(self.context)),
            *("--dtype", options.dtype),
            *("--gpu-memory-utilization", str(options.gpu_memory)),
            *("--load-format", "safetensors"),
            # Else a model's generation_config.json changes sampling behind the request's back.
            *("--generation-config", "vllm"),
            "--disable-uvicorn-access-log",
        ]
        if self._adapters:
            highest = max(_rank(name, folder) for name, folder in self._adapters.items())
            modules = (
                # Not name=path, which breaks where the path has such a sign, too.
                orjson.dumps({"name": self._inside[name], "path": str(folder)}).decode()
                for name, folder in self._adapters.items()
            )
            arguments += ["--enable-lora", "--max-loras", str(len(self._adapters))]
            arguments += ["--max-lora-rank", str(highest), "--lora-modules", *modules]
        return arguments


def _rank(name: str, folder: Path) -> int:
    """Return the least ``--max-lora-rank`` that holds the adapter.

    Raises:
        ModelError: it is none, or of a kind that vLLM does not serve.
    """
    try:
        config = orjson.loads((folder / "adapter_config.json").read_bytes())
        own = int(config.get("r") or 0)
        plain = config["peft_type"] == "LORA" and config.get("bias", "none") == "none"
        plain = plain and not any(config.get(name) for name in _NOT_PLAIN)
    except OSError as error:
        raise ModelError("error.adapter_missing", path=folder) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError("error.adapter_unreadable", path=folder, why=error) from error
    if not plain or own > _RANKS[-1]:
        raise ModelError("error.vllm_adapter", name=name, most=_RANKS[-1])
    return next(rank for rank in _RANKS if rank >= own)


def _request(ask: Ask, model: str) -> dict[str, Any]:
    sampling = ask.sampling
    return {
        "model": model,
        "prompt": list(ask.ids),
        "stream": True,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "logprobs": sampling.logprobs,
        # These alone end an answer, not what the model's files add to them.
        "stop_token_ids": list(ask.stop_ids),
        "ignore_eos": True,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


async def _steps(
    client: httpx2.AsyncClient, request: dict[str, Any], ask: Ask
) -> AsyncGenerator[Step, None]:
    async with client.stream("POST", "/v1/completions", json=request) as reply:
        if reply.status_code != 200:
            raise _refused(reply.status_code, await reply.aread())
        # To its end even after the last step: a connection that is read out serves again.
        async for line in reply.aiter_lines():
            if line.startswith("data: {"):
                step = _step(orjson.loads(line.removeprefix("data: ")), ask)
                if step is not None:
                    yield step


def _step(chunk: dict[str, Any], ask: Ask) -> Step | None:
    """Return what a chunk of the stream tells; None where it has no token."""
    if "error" in chunk:
        raise _refused(int(chunk["error"].get("code") or 500), orjson.dumps(chunk))
    if not chunk["choices"]:
        return None
    [choice] = chunk["choices"]
    ids, finish = choice.get("token_ids"), choice.get("finish_reason")
    if ids is None:
        raise EngineError(say("vllm.no_ids", oldest=OLDEST))
    if finish not in (None, "stop", "length"):
        raise EngineError(say("vllm.refused", status=200, cause=finish))
    # vLLM counts the stop token among the answer's; and as a full length, where it comes last.
    if finish is not None and ids and ids[-1] in ask.stop_ids:
        ids, finish = ids[:-1], "stop"
    if not ids and finish is None:
        return None
    return Step(tuple(ids), finish, _logprobs(choice.get("logprobs"), len(ids), ask))


def _logprobs(told: dict[str, Any] | None, count: int, ask: Ask) -> tuple[Logprob, ...]:
    """Return those of the first ``count`` tokens, each written as ``token_id:17``."""
    if told is None or ask.sampling.logprobs is None:
        return ()
    found = []
    for token, own, top in zip(
        told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True
    ):
        # The token itself stands first among them, likely or not.
        ranked = sorted(
            ((_id(name), value) for name, value in top.items()), key=lambda one: -one[1]
        )
        found.append(Logprob(_id(token), own, tuple(ranked[: ask.sampling.logprobs])))
    return tuple(found[:count])


def _id(token: str) -> int:
    return int(token.removeprefix("token_id:"))


def _refused(status: int, body: bytes) -> EngineError:
    try:
        cause = str(orjson.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        cause = body.decode(errors="replace")
    return EngineError(say("vllm.refused", status=status, cause=" ".join(cause.split())[:300]))

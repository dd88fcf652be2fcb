"""The process that runs one model with OpenVINO GenAI; :class:`OpenVinoEngine` starts it.

OpenVINO's ``step()`` holds Python's lock while a token is computed, so it would stop a server
that it shares a process with. Both talk in lines of JSON. In: the settings, then
``{"ask", "ids", "config"}`` and ``{"drop"}``. Out: ``{"ready"}`` or ``{"error", "values"}``,
then after a step a list of ``{"ask", "ids", "logprobs", "finish", "cause"}``. The process
ends when its input does, which is when the engine has ended, however that came about.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

import orjson

from weitiao.errors import WeitiaoError
from weitiao.serving.openvino.form import Settings, bytes_per_token, kept_form

_BLOCK = 32
"""Tokens in a block of OpenVINO's cache on a CPU."""

_PRECISION = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f16",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "32",
}
"""The inputs of layers in 8 bits, each 32 with a scale, as llama.cpp multiplies Q8_0: twice as
fast with 8 requests, and 118 of 128 greedy answers are those of fp32 where inputs of 32 bits
keep 123. Left alone OpenVINO computes the rest in bf16 and keeps attention in 8 bits, too, which
is no faster and costs more: of 32 answers of the embedded model 24 stay.
"""

_VALUE_BYTES = 2

_EVERY = 0.05
"""Seconds between two tellings of tokens that come one by one; nobody reads faster, and each costs
computing. First tokens and ends are told at once."""


def main() -> None:
    """Load the model that the first line names, then answer what the others ask."""
    # What a library prints must not come between the lines that are told.
    told = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Without this package OpenVINO measures nothing and sends nothing.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    # Not sys.stdin, which Python closes at its end while the thread below reads.
    lines = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    settings = Settings(**orjson.loads(lines.readline()))
    asked: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_read, args=(lines, asked), daemon=True).start()
    try:
        pipeline = _load(settings)
    except WeitiaoError as error:
        _tell(told, {"error": error.key, "values": error.values})
        return
    _tell(told, {"ready": True})
    _answer(pipeline, settings.max_running, asked, told)


def _read(lines: BinaryIO, asked: "SimpleQueue[dict[str, Any]]") -> None:
    for line in lines:
        asked.put(orjson.loads(line))
    os._exit(0)


def _tell(told: BinaryIO, what: object) -> None:
    told.write(orjson.dumps(what, default=str) + b"\n")
    told.flush()


def _load(settings: Settings) -> Any:
    from openvino_genai import ContinuousBatchingPipeline, SchedulerConfig

    form = kept_form(Path(settings.gguf), Path(settings.cache))
    affordable = settings.cache_bytes // bytes_per_token(form, _VALUE_BYTES)
    blocks = -(-settings.context // _BLOCK) + 1
    scheduler = SchedulerConfig()
    # The longest request has room, whatever it takes.
    scheduler.num_kv_blocks = max(blocks, min(blocks * settings.max_running, affordable // _BLOCK))
    scheduler.enable_prefix_caching = True
    scheduler.dynamic_split_fuse = True
    properties = {
        **_PRECISION,
        "INFERENCE_NUM_THREADS": settings.threads,
        # Pinned threads of two models would wait for the same cores.
        "ENABLE_CPU_PINNING": False,
        "sampler_num_threads": settings.threads,
        # Left alone it keeps the code made for the last 5,000 layers and numbers of tokens: with
        # requests of all lengths hundreds of MB, and no faster.
        "CPU_RUNTIME_CACHE_CAPACITY": 128,
    }
    return ContinuousBatchingPipeline(form, scheduler, "CPU", properties)


def _answer(pipeline: Any, most: int, asked: "SimpleQueue[dict[str, Any]]", told: BinaryIO) -> None:
    """Answer ``most`` requests at once, the others in the order in which they came."""
    # OpenVINO's own bound on them (max_num_seqs) does not hold with dynamic_split_fuse.
    waiting: dict[int, dict[str, Any]] = {}
    handles: dict[int, Any] = {}
    silent: set[int] = set()
    next_telling = 0.0
    while True:
        # With nothing to do it waits for a request; else it takes what came during the step.
        while not (waiting or pipeline.has_non_finished_requests()) or not asked.empty():
            request = asked.get()
            if "ask" in request:
                waiting[request["ask"]] = request
            elif not waiting.pop(request["drop"], None) and request["drop"] in handles:
                handles.pop(request["drop"]).cancel()
        while waiting and len(handles) < most:
            number = next(iter(waiting))
            try:
                handles[number] = _begin(pipeline, waiting.pop(number))
                silent.add(number)
            except (RuntimeError, TypeError) as error:
                # One request that OpenVINO refuses is not the others' fault.
                _tell(told, [_part(number, finish="failed", cause=str(error))])
        if pipeline.has_non_finished_requests():
            pipeline.step()
            silent &= handles.keys()
            if time.monotonic() >= next_telling or _pressing(handles, silent):
                _tell_new(handles, silent, told)
                next_telling = time.monotonic() + _EVERY


def _pressing(handles: dict[int, Any], silent: set[int]) -> bool:
    """Tell whether an answer has begun or ended."""
    from openvino_genai import GenerationStatus

    running = GenerationStatus.RUNNING
    ended = any(handle.get_status() != running for handle in handles.values())
    return ended or any(handles[number].can_read() for number in silent)


def _tell_new(handles: dict[int, Any], silent: set[int], told: BinaryIO) -> None:
    """Tell what the last steps brought, and forget the answers that have ended."""
    parts = [_new_part(number, handle) for number, handle in handles.items()]
    silent -= {part["ask"] for part in parts if part["ids"]}
    for part in parts:
        if part["finish"]:
            del handles[part["ask"]]
    if parts := [part for part in parts if part["ids"] or part["finish"]]:
        _tell(told, parts)


def _begin(pipeline: Any, request: dict[str, Any]) -> Any:
    import numpy as np
    from openvino import Tensor
    from openvino_genai import GenerationConfig

    ids = Tensor(np.array([request["ids"]], dtype=np.int64))
    stops = set(request["config"].pop("stop_token_ids"))
    config = GenerationConfig(**request["config"], stop_token_ids=stops)
    return pipeline.add_request(request["ask"], ids, config)


def _new_part(number: int, handle: Any) -> dict[str, Any]:
    """Return what is new of an answer, without the token that ended it."""
    from openvino_genai import GenerationFinishReason, GenerationStatus

    finishes = {GenerationFinishReason.STOP: "stop", GenerationFinishReason.LENGTH: "length"}
    ids: list[int] = []
    logprobs: list[float] = []
    finish = None
    while handle.can_read():
        for part in handle.read().values():
            ids += part.generated_ids
            logprobs += part.generated_log_probs
            finish = finishes.get(part.finish_reason, finish)
    if handle.get_status() == GenerationStatus.IGNORED:
        return _part(number, finish="failed", cause="KV cache")
    if finish == "stop":
        del ids[-1:], logprobs[-1:]
    return _part(number, ids, logprobs, finish)


def _part(
    number: int,
    ids: Sequence[int] = (),
    logprobs: Sequence[float] = (),
    finish: str | None = None,
    cause: str = "",
) -> dict[str, Any]:
    return {"ask": number, "ids": ids, "logprobs": logprobs, "finish": finish, "cause": cause}


if __name__ == "__main__":
    main()

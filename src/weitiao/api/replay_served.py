"""The ways of answering that go through a server's engine: the engine alone, and all of it."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weitiao.api.replay import Replay, answers_of, opening, prompts_of, question

if TYPE_CHECKING:
    import httpx2
    import psutil  # type: ignore[import-untyped]

    from weitiao.models.generate import Generation
    from weitiao.plan.plan import Plan
    from weitiao.plan.recipe import Recipe
    from weitiao.records.record import Record
    from weitiao.runs import Run
    from weitiao.serving.engine import Engine, Sampling


def by_openvino(spec: Replay, run: Run, recipe: Recipe, settled: Plan) -> None:
    """Answer with the engine that serves a GGUF file; it tells no distributions."""
    import psutil

    # It would write into the home folder and report that it is used.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    from openvino_genai import Tokenizer

    from weitiao.api.begin import chat_format
    from weitiao.evaluation.answers import Answerer
    from weitiao.export.parity import Told, write_told
    from weitiao.serving.engine import Sampling
    from weitiao.serving.openvino import OpenVinoEngine

    chat = chat_format(recipe)
    tokenizer: Any = chat.tokenizer
    path = Path(spec.path)
    context = settled.max_tokens + settled.max_new_tokens
    engine = OpenVinoEngine({"form": path}, Path(spec.out) / "openvino", context)
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        try:
            penalty = recipe.evaluate.repetition_penalty
            sampling = Sampling(settled.max_new_tokens, repetition_penalty=penalty)
            made = Answerer(
                chat,
                lambda prompts: runner.run(_all(engine, prompts, sampling, chat.stop_ids)),
                lambda samples: [(math.nan, int(s.scored.sum())) for s in samples],
                lambda ids: str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)),
                f"openvino {path}",
                recipe.data.reasoning,
            )
            with peak_memory_of(psutil.Process()) as peak:
                records, _, rate = answers_of(spec, run, settled, made)
        finally:
            runner.run(engine.close())
    own = Tokenizer(str(path))

    def by_file(record: Record) -> Sequence[int]:
        passage = None if record.text is None else opening(record.text)
        text = passage or chat.prompt_text(record.prompt, record.tools)
        found: list[int] = own.encode(text, add_special_tokens=False).input_ids.data[0].tolist()
        return found

    write_told(Path(spec.out), Told(prompts_of(records, by_file), peak(), rate))


@contextmanager
def peak_memory_of(process: psutil.Process) -> Iterator[Callable[[], int]]:
    """Yield what tells the most bytes that a process and its children held inside the block.

    They are looked at twice a second. A page that several share counts once (PSS); where the
    system does not tell that (not Linux), it does not count at all.
    """
    import psutil

    most, over = 0, threading.Event()

    def look() -> None:
        nonlocal most
        held = 0
        with suppress(psutil.Error):
            for member in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):  # it has just ended
                    told = member.memory_full_info()
                    held += getattr(told, "pss", told.uss)
        most = max(most, held)

    def watch() -> None:
        while not over.wait(0.5):
            look()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield lambda: most
    finally:
        over.set()
        watching.join()
        look()


async def _all(
    engine: Engine, prompts: list[list[int]], sampling: Sampling, stop_ids: tuple[int, ...]
) -> list[Generation]:
    """Ask everything at once; the engine answers as many together as it can."""
    from weitiao.models.generate import Generation
    from weitiao.serving.engine import Ask

    async def one(prompt: list[int]) -> Generation:
        found = Generation()
        async for step in engine.stream(Ask("form", tuple(prompt), sampling, stop_ids)):
            found.ids += step.ids
            found.stopped = step.finish == "stop"
        return found

    return list(await asyncio.gather(*map(one, prompts)))


def by_server(spec: Replay, run: Run, recipe: Recipe, settled: Plan) -> None:
    """Ask as any program would, over HTTP, by the words and not by their tokens."""
    from weitiao.api.begin import chat_format
    from weitiao.evaluation.answers import Answerer
    from weitiao.export.parity import Told, write_told
    from weitiao.models.generate import Generation
    from weitiao.records.prepare import load_records

    chat = chat_format(recipe)
    tokenizer: Any = chat.tokenizer
    records = load_records(run.records / "test.jsonl")
    asked = {tuple(question(r, chat)): r for r in map(records.__getitem__, spec.rows)}
    texts: dict[tuple[int, ...], str] = {(): ""}

    with _served(spec.path) as (client, process):

        def one(prompt: list[int]) -> Generation:
            sampling = {
                "temperature": 0,
                "top_p": 1,
                "repetition_penalty": recipe.evaluate.repetition_penalty,
                "max_tokens": settled.max_new_tokens,
            }
            where, words = _asked(asked.get(tuple(prompt)), prompt)
            told = client.post(where, json={**words, **sampling})
            if told.is_error:  # refused: an answer that is none, which the gate counts
                return Generation([], False)
            choice = told.json()["choices"][0]
            text = choice["text"] if "text" in choice else _said(choice["message"])
            ids = tokenizer.encode(text, add_special_tokens=False)
            texts[tuple(ids)] = text
            return Generation(ids, choice["finish_reason"] == "stop")

        made = Answerer(
            chat,
            lambda prompts: list(ThreadPoolExecutor(8).map(one, prompts)),
            lambda samples: [(math.nan, int(s.scored.sum())) for s in samples],
            lambda ids: texts[tuple(ids)],
            f"server {spec.path}",
            recipe.data.reasoning,
        )
        with peak_memory_of(process) as peak:
            rows, _, rate = answers_of(spec, run, settled, made)
        prompts = prompts_of(rows, lambda record: _ids(client, record))
    write_told(Path(spec.out), Told(prompts, peak(), rate))


@contextmanager
def _served(run: str) -> Iterator[tuple[httpx2.Client, psutil.Process]]:
    """Start ``weitiao serve`` on a port of its own, and end it afterwards.

    Raises:
        ModelError: it ended before it could answer.
    """
    import httpx2
    import psutil

    from weitiao.errors import ModelError

    # Nothing is answered from memory, and nothing of it stays with what people ask.
    quiet = ["cache=off", "log=off"]
    command = [sys.executable, "-m", "weitiao.cli", "serve", run, "--port", "0", *quiet]
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    try:
        lines = server.stdout or ()
        address = next((line.strip() for line in lines if line.strip().startswith("http")), None)
        if address is None:
            raise ModelError("error.replay_no_server")
        with httpx2.Client(base_url=address, timeout=600) as client:
            while client.get("/ready").status_code != HTTPStatus.OK:
                if server.poll() is not None:
                    raise ModelError("error.replay_no_server")
                time.sleep(0.1)
            yield client, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def _asked(record: Record | None, prompt: list[int]) -> tuple[str, dict[str, Any]]:
    """Return where a row is asked and by which words; None: training had to shorten it."""
    if record is None:
        return "/v1/completions", {"prompt": prompt}
    if record.text is not None:
        return "/v1/completions", {"prompt": opening(record.text)}
    return "/v1/chat/completions", _conversation(record)


def _ids(client: httpx2.Client, record: Record) -> list[int]:
    """Return the ids that the server makes of a row; none where it refuses it."""
    passage = record.text is not None
    told = client.post(
        "/tokenize", json=_asked(record, [])[1] if passage else _conversation(record)
    )
    found: list[int] = [] if told.is_error else told.json()["tokens"]
    return found


def _conversation(record: Record) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for message in record.prompt:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            turn["tool_calls"] = [dict(call) for call in message.tool_calls]
        turns.append(turn)
    tools = [dict(tool) for tool in record.tools]
    return {"messages": turns, "tools": tools} if tools else {"messages": turns}


def _said(message: dict[str, Any]) -> str:
    """Return the answer with the reasoning that the server tells apart, as it was generated."""
    thought = message.get("reasoning_content")
    return message["content"] if thought is None else f"{thought}</think>{message['content']}"

"""Answers over HTTP: weitiao against transformers, the same weights, questions and tokens.

    python benchmarks/bench_serving.py [--work NAME ...] [--only SIDE ...] [--rounds 3]
                                       [--shared DIR]

100m      2 cores, random weights of 100 M with Qwen's tokenizer and its vocabulary of 152k
embedded  2 cores, the embedded model

Ours is ``weitiao serve`` with the engine that it chooses (``ours``) and with transformers
(``ours-transformers``). Peers are ``model.generate`` for one prompt after the other and for 8
prompts padded into a batch (``generate-bf16``, ``generate-fp32``: the faster one counts), and
``transformers serve``, as it is and with ``--continuous-batching`` (``-cb``). Sides run in
processes of their own, in turns, under the same settings of allocator and threads. In each round
a server is started and asked by 1 client and then by 8, who stream; every question is another
one of 20 to 60 tokens, each second of them under the same system prompt. Answers are greedy, of
64 tokens at most (random weights never stop earlier, the embedded model does: tokens really made
are counted). Memory is the proportional set size of all processes of a side after the last
answer, the time to start goes from the launch to the first answer's end: ``first_start`` with
nothing kept from earlier starts. One line for each work, side and number of clients, medians of
the rounds, is added to benchmarks/results/serving.csv.
"""

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib import resources
from itertools import islice, pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
from bench_training import child, where
from results_file import add_line
from training_works import SEED, SMALL_152K, qwen_config

from weitiao.models.runtime import prepare_process

RESULTS = Path(__file__).resolve().parent / "results" / "serving.csv"
TOKENS, CLIENTS = 64, 8
SYSTEM = "你是细心的银行客服，只说事实，简短回答。"
ASKED = {"warm": CLIENTS, "one": 8, "many": 32}
"""How many questions a round has for each part of it; before them one asks whether it is there."""

LEAST = {"one": {"sequential": 2.5}, "many": {"sequential": 8.0, "batch": 2.5}}
"""What ours is held to with 100 M: tokens a second over those of ``generate``."""

MOST_START = 5.0
"""Seconds that ``weitiao serve`` may take until the embedded model's first answer has ended."""

SERVERS = {
    "ours": ("weitiao.cli", "serve", "{model}"),
    "ours-transformers": ("weitiao.cli", "serve", "{model}", "--engine", "transformers"),
    "serve": ("transformers.cli.transformers", "serve", "{model}"),
    "serve-cb": ("transformers.cli.transformers", "serve", "{model}", "--continuous-batching"),
}
GENERATE = {"generate-bf16": "bf16", "generate-fp32": "fp32"}
SIDES = (*SERVERS, *GENERATE)

Result = dict[str, Any]


@dataclass(frozen=True)
class Heard:
    """One answer: when its first text came (seconds after it was asked for) and its tokens."""

    first: float
    tokens: int
    prompt_tokens: int


def prepare(work: str, folder: Path, shared: Path, rounds: int) -> None:
    """Write the model, and the questions of each round."""
    import torch
    from transformers import AutoModelForCausalLM

    from weitiao.events import EventLog
    from weitiao.models.load import ModelSource, load_tokenizer
    from weitiao.records.options import DataOptions
    from weitiao.records.prepare import check
    from weitiao.records.record import Message
    from weitiao.records.render import ChatFormat

    model = folder / "model"
    if work == "embedded":
        shutil.copytree(str(resources.files("weitiao.models") / "embedded"), model)
    else:
        shutil.copytree(shared / "tokenizers" / "qwen", model)
        torch.manual_seed(SEED)
        made = AutoModelForCausalLM.from_config(qwen_config(SMALL_152K), dtype=torch.bfloat16)
        made.save_pretrained(model)
    chat = ChatFormat(load_tokenizer(ModelSource("model", str(model))))
    bank = Path(str(resources.files("weitiao.examples") / "bank" / "bank.jsonl"))
    records = check(bank, DataOptions(), chat, EventLog()).records
    texts = list(dict.fromkeys(r.prompt[-1].content for r in records if r.prompt))
    random.Random(SEED).shuffle(texts)
    questions: list[Result] = []
    for text in texts + [first + second for first, second in pairwise(texts)]:
        said = [Message("user", text)]
        if len(questions) % 2:
            said.insert(0, Message("system", SYSTEM))
        ids = chat.prompt_ids(tuple(said))
        if 20 <= len(ids) <= 60:
            messages = [{"role": m.role, "content": m.content} for m in said]
            questions.append({"messages": messages, "ids": ids})
    left = iter(questions)
    parts = {"first": 1, **ASKED}.items()
    given = [{part: list(islice(left, n)) for part, n in parts} for _ in range(rounds)]
    assert all(len(asked["many"]) == ASKED["many"] for asked in given), "too few questions"
    (folder / "questions.json").write_text(json.dumps({"stops": chat.stop_ids, "rounds": given}))


def resources_of(pid: int) -> tuple[float, float]:
    """Return the CPU-seconds and the proportional set size (MB) of a process and its children."""
    seconds = size = 0.0
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        times, memory = one.cpu_times(), one.memory_full_info()
        seconds += times.user + times.system
        size += getattr(memory, "pss", memory.uss)
    return seconds, size / 2**20


# --- model.generate, in a process of its own -----------------------------------------------


def run_generate(folder: Path, precision: str, number: int) -> None:
    """Answer the questions of a round, and print what it took as one line of JSON."""
    prepare_process()
    import torch
    from transformers import AutoModelForCausalLM

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=dtype).eval()
    told = json.loads((folder / "questions.json").read_text())

    def generate(questions: Sequence[Result], size: int, tokens: int) -> int:
        """Answer ``size`` at a time, padded; return the tokens made."""
        made = 0
        for start in range(0, len(questions), size):
            prompts = [question["ids"] for question in questions[start : start + size]]
            longest = max(map(len, prompts))
            gaps = [longest - len(ids) for ids in prompts]
            out = model.generate(
                torch.tensor([[0] * gap + ids for gap, ids in zip(gaps, prompts, strict=True)]),
                attention_mask=torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps]),
                max_new_tokens=tokens,
                do_sample=False,
                eos_token_id=told["stops"],
                pad_token_id=0,
            )
            for row in out[:, longest:].tolist():
                ends = [place for place, token in enumerate(row) if token in told["stops"]]
                made += min([len(row), *ends])
        return made

    asked, result = told["rounds"][number], {}
    for part, size in (("one", 1), ("many", CLIENTS)):
        generate(asked["warm"][:size], size, 4)
        (cpu, _), started = resources_of(os.getpid()), time.perf_counter()
        made = generate(asked[part], size, TOKENS)
        seconds, (ended, memory) = time.perf_counter() - started, resources_of(os.getpid())
        result[part] = _part(made, seconds, ended - cpu, memory)
    print(json.dumps(result))


# --- a server, and its clients --------------------------------------------------------------


def run_server(side: str, folder: Path, number: int) -> Result:
    """Start a server, ask it the questions of a round, and end it.

    Raises:
        RuntimeError: it does not start, or it does not answer.
    """
    model = str(folder / "model")
    name = "model" if side.startswith("ours") else model
    asked = json.loads((folder / "questions.json").read_text())["rounds"][number]
    port = _free_port()
    module, *arguments = (part.format(model=model) for part in SERVERS[side])
    command = [sys.executable, "-m", module, *arguments, "--port", str(port)]
    # What is kept for later starts is this benchmark's own.
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    log = folder / "log.txt"
    with log.open("w") as out:
        started = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        try:
            _wait_for_answer(port, name, asked["first"][0], process)
            start = time.perf_counter() - started
            return {"start": start} | _measured(port, name, asked, process.pid)
        except (OSError, HTTPException, RuntimeError, psutil.Error) as error:
            said = log.read_text(errors="replace").splitlines()[-6:]
            raise RuntimeError("\n".join([*said, str(error)])) from error
        finally:
            _end(process)


def _measured(port: int, model: str, asked: Result, pid: int) -> Result:
    def ask_all(part: str, clients: int, tokens: int = TOKENS) -> list[Heard]:
        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(lambda q: ask(port, model, q, tokens), asked[part]))

    result: Result = {}
    for part, clients in (("one", 1), ("many", CLIENTS)):
        ask_all("warm", clients, 4)
        (cpu, _), started = resources_of(pid), time.perf_counter()
        heard = ask_all(part, clients)
        seconds, (ended, memory) = time.perf_counter() - started, resources_of(pid)
        for one, question in zip(heard, asked[part], strict=True):
            assert one.prompt_tokens == len(question["ids"]), "it was asked something else"
        made = sum(one.tokens for one in heard)
        first = [one.first for one in heard]
        result[part] = _part(made, seconds, ended - cpu, memory) | {"first": first}
    return result


def ask(port: int, model: str, question: Result, tokens: int = TOKENS) -> Heard:
    """Ask one question and listen to the end.

    Raises:
        ConnectionError: it was refused, or the answer broke off.
    """
    body = {
        "model": model,
        "messages": question["messages"],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    started, first, last = time.perf_counter(), None, b"null"
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
    )
    with connection.getresponse() as reply:
        if reply.status != 200:
            raise ConnectionError(f"{reply.status}: {reply.read(300).decode()}")
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            last = line.removeprefix(b"data: ")
            if first is None:
                choices = json.loads(last)["choices"]
                if choices and choices[0]["delta"].get("content"):
                    first = time.perf_counter() - started
    whole, usage = time.perf_counter() - started, (json.loads(last) or {}).get("usage")
    if not usage:
        raise ConnectionError(f"the answer broke off: {last[:300].decode()}")
    return Heard(first or whole, usage["completion_tokens"], usage["prompt_tokens"])


def _wait_for_answer(
    port: int, model: str, question: Result, process: "subprocess.Popen[bytes]"
) -> None:
    end = time.monotonic() + 300
    while True:
        try:
            ask(port, model, question)
        except (OSError, HTTPException) as error:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"it does not answer: {error}") from error
            time.sleep(0.05)
        else:
            return


def _end(process: "subprocess.Popen[bytes]") -> None:
    own = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(20)
    for left in (process, *own):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            left.kill()
    process.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _part(tokens: int, seconds: float, cpu: float, memory: float) -> Result:
    return {"tokens": tokens, "seconds": seconds, "cpu": cpu, "memory": memory}


# --- all sides ------------------------------------------------------------------------------


def measure(folder: Path, options: argparse.Namespace) -> dict[str, list[Result]]:
    """Return what each round of each side took; a side that cannot run is told and left out."""
    sides = [side for side in SIDES if not options.only or side in options.only]
    found: dict[str, list[Result]] = {side: [] for side in sides}
    for number in range(options.rounds):
        for side in [side for side in sides if side in found]:
            try:
                if side in SERVERS:
                    result = run_server(side, folder, number)
                else:
                    arguments = (str(folder), GENERATE[side], str(number))
                    result = child(Path(__file__).name, "--generate", *arguments)
            except RuntimeError as error:
                print(f"  {side} cannot run: {error}", flush=True)
                del found[side]
                continue
            found[side].append(result)
            rates = (f"{result[part]['tokens'] / result[part]['seconds']:.0f}" for part in LEAST)
            start = f", started in {result['start']:.1f} s" if "start" in result else ""
            print(f"  {side}: {' and '.join(rates)} tokens/s{start}", flush=True)
    return found


def lines(work: str, found: dict[str, list[Result]]) -> list[Result]:
    """Return the lines of the table: two of each side, for 1 client and for 8."""
    return [_line(work, side, part, found) for side in found for part in LEAST if found[side]]


def _line(work: str, side: str, part: str, found: dict[str, list[Result]]) -> Result:
    def rates(side: str, part: str) -> list[float]:
        return [r[part]["tokens"] / r[part]["seconds"] for r in found.get(side, ())]

    def ratio(peers: Sequence[str], of: str) -> float | str:
        theirs = [median(rates(peer, of)) for peer in peers if rates(peer, of)]
        ours = side.startswith("ours") and theirs
        return round(median(rates(side, part)) / max(theirs), 2) if ours else ""

    rounds, many = found[side], part == "many"
    starts = [r["start"] for r in rounds if "start" in r]
    first = sorted(seconds for r in rounds for seconds in r[part].get("first", ()))
    least = LEAST[part] if work == "100m" and side == "ours" else {}
    return {
        "work": work,
        "side": side,
        "clients": CLIENTS if many else 1,
        "rounds": len(rounds),
        "tokens_per_second": round(median(rates(side, part)), 1),
        "each_round": " ".join(f"{rate:.1f}" for rate in rates(side, part)),
        "of_sequential": ratio(tuple(GENERATE), "one"),
        "of_batch": ratio(tuple(GENERATE), "many") if many else "",
        "of_serve": ratio(("serve", "serve-cb"), part),
        "least": " ".join(f"of_{name}:{most}" for name, most in least.items()),
        "first_ms_median": round(median(first) * 1000) if first else "",
        "first_ms_p95": round(quantiles(first, n=20)[-1] * 1000) if first else "",
        "tokens": sum(r[part]["tokens"] for r in rounds),
        "tokens_per_cpu_second": round(median(r[part]["tokens"] / r[part]["cpu"] for r in rounds)),
        "memory_mb": round(median(r[part]["memory"] for r in rounds)),
        "first_start": round(starts[0], 2) if starts else "",
        "start": round(median(starts[1:] or starts), 2) if starts else "",
        "most_start": MOST_START if work == "embedded" and side == "ours" else "",
    }


def main() -> None:
    """Do every work that this machine can."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", action="append", choices=("100m", "embedded"))
    parser.add_argument("--only", action="append", choices=SIDES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shared", type=Path, default=RESULTS.parents[3] / "shared")
    parser.add_argument("--generate", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        folder, precision, number = options.generate
        run_generate(Path(folder), precision, int(number))
        return
    prepare_process()
    place = where()
    for work in options.work or ("100m", "embedded"):
        if work == "100m" and not (options.shared / "tokenizers" / "qwen").is_dir():
            print(f"{work}: not run: no tokenizer in {options.shared} (--shared DIR)")
            continue
        print(f"{work}:", flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            prepare(work, Path(temporary), options.shared, options.rounds)
            found = measure(Path(temporary), options)
        for line in lines(work, found):
            print("  " + " ".join(f"{k}={v}" for k, v in line.items() if v != ""), flush=True)
            add_line(RESULTS, place | line)


if __name__ == "__main__":
    main()

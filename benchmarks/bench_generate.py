"""Answers to 200 prompts: weitiao against transformers, the same weights, prompts and tokens.

    python benchmarks/bench_generate.py [--work NAME ...] [--precision fp32 ...] [--stops]
                                        [--batch 200] [--peer-prompts N] [--shared DIR]

embedded  2 cores, the embedded model, 200 prompts of the bundled bank, 128 new tokens
100m      2 cores, random weights of 100 M with Qwen's vocabulary of 152k, likewise
cuda      a GPU, Qwen2.5-1.5B's shape with random weights, 512 new tokens

Peers are the loop of the tutorials (``model.generate`` for one prompt after the other, greedy,
with its attention mask) and transformers' own continuous batching (``generate_batch``). Each
side runs in a process of its own under the same settings of allocator and threads, and times
generation alone, after a few tokens that are not timed. Nothing stops before the last token
unless ``--stops`` is given. With ``--peer-prompts`` peers answer the first N prompts only,
and tokens a second are compared. Greedy tokens in fp32 must be the same on both sides where the
weights are trained ones; of random weights, and below fp32, the share of equal answers is told.
One line for each work, precision and peer is added to benchmarks/results/generate.csv.
"""

import argparse
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bench_training import child, where
from results_file import add_line
from training_works import QWEN_1_5B, SEED, SMALL_152K, qwen_config

from weitiao.models.runtime import prepare_process

RESULTS = Path(__file__).resolve().parent / "results" / "generate.csv"
PEERS = ("loop", "generate_batch")

Result = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """``least``: the ratio to the loop that is asked for; ``seconds``: the most it may take."""

    name: str
    shape: dict[str, Any] | None
    tokens: int
    least: float
    prompts: int = 200
    device: str = "cpu"
    precisions: tuple[str, ...] = ("fp32", "bf16")
    seconds: float | None = None


WORKS = {
    work.name: work
    for work in (
        Work("embedded", None, 128, 4.0),
        Work("100m", SMALL_152K, 128, 3.0),
        Work("cuda", QWEN_1_5B, 512, 25.0, device="cuda", precisions=("bf16",), seconds=10.0),
    )
}


def prepare(work: Work, folder: Path, shared: Path) -> None:
    """Write the model and the prompts that every side reads."""
    import torch
    from transformers import AutoModelForCausalLM

    from weitiao.events import EventLog
    from weitiao.models.load import ModelSource, load_tokenizer
    from weitiao.records.options import DataOptions
    from weitiao.records.prepare import check
    from weitiao.records.render import ChatFormat

    tokenizer = Path(str(resources.files("weitiao.models") / "embedded"))
    model = folder / "model"
    if work.shape is None:
        shutil.copytree(tokenizer, model)
    else:
        torch.manual_seed(SEED)
        AutoModelForCausalLM.from_config(qwen_config(work.shape)).save_pretrained(model)
        if (shared / "tokenizers" / "qwen").is_dir():
            tokenizer = shared / "tokenizers" / "qwen"
    chat = ChatFormat(load_tokenizer(ModelSource("tokenizer", str(tokenizer))))
    bank = Path(str(resources.files("weitiao.examples") / "bank" / "bank.jsonl"))
    records = check(bank, DataOptions(), chat, EventLog()).records
    asked = list(dict.fromkeys(record.prompt for record in records if record.prompt))
    prompts = [chat.prompt_ids(m) for m in random.Random(SEED).sample(asked, work.prompts)]
    given = {"prompts": prompts, "stops": chat.stop_ids}
    (folder / "prompts.json").write_text(json.dumps(given))


# --- one side, in a process of its own ----------------------------------------------------


def answer(side: str, model: Any, prompts: list[list[int]], work: Work, given: Result) -> Any:
    """Return the new tokens of each prompt, as ``side`` generates them."""
    import torch

    stops = given["stops"]
    if side == "ours":
        from weitiao.models.generate import Sampling, generate

        sampling = Sampling(max_new_tokens=given["tokens"])
        found = generate(model, prompts, sampling, stops, 0, given["batch"])
        return [generation.ids for generation in found]
    from transformers import GenerationConfig

    config = GenerationConfig(
        max_new_tokens=given["tokens"],
        do_sample=False,
        eos_token_id=stops or (None if side == "loop" else -1),
        pad_token_id=0,
    )
    if side == "generate_batch":
        outputs = model.generate_batch(inputs=prompts, generation_config=config)
        return [_cut(output.generated_tokens, stops) for output in outputs.values()]
    model.generation_config.eos_token_id = config.eos_token_id
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        answers.append(_cut(out[0, len(prompt) :].tolist(), stops))
    return answers


def _cut(ids: list[int], stops: list[int]) -> list[int]:
    return ids[:-1] if ids and ids[-1] in stops else ids


def run_side(side: str, folder: Path, precision: str, options: str) -> None:
    """Load the model, answer, and print what it took as one line of JSON."""
    prepare_process()
    import torch

    from weitiao.models.load import TYPES, ModelSource, load_model

    given = json.loads((folder / "prompts.json").read_text()) | json.loads(options)
    work, device = WORKS[given["work"]], torch.device(WORKS[given["work"]].device)
    prompts = given["prompts"][: given["rows"]]
    if not given["natural"]:
        given["stops"] = []
    model = load_model(ModelSource("model", str(folder / "model")), TYPES[precision], device)
    answer(side, model, prompts[:2], work, given | {"tokens": 4})
    started, cpu = time.perf_counter(), time.process_time()
    answers = answer(side, model, prompts, work, given | {"tokens": work.tokens})
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if work.device == "cuda":
        peak = torch.cuda.max_memory_reserved()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": cpu,
                "peak": peak,
                "answers": answers,
                "threads": torch.get_num_threads(),
            }
        )
    )


# --- both -------------------------------------------------------------------------------


def measure(work: Work, options: argparse.Namespace) -> Iterator[Result]:
    """Yield one line for each precision and peer."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(work, folder, options.shared)
        for precision in options.precision or work.precisions:

            def run(side: str, rows: int, precision: str = precision) -> Result:
                asked = {
                    "work": work.name,
                    "batch": options.batch,
                    "rows": rows,
                    "natural": options.stops,
                }
                found = child(
                    Path(__file__).name, "--side", side, temporary, precision, json.dumps(asked)
                )
                found["tokens"] = sum(map(len, found["answers"]))
                return found

            ours = run("ours", work.prompts)
            rate = ours["tokens"] / ours["seconds"]
            print(f"  {precision}: {ours['seconds']:.1f} s, {rate:.0f} tokens/s", flush=True)
            for peer in options.peer or PEERS:
                try:
                    theirs = run(peer, min(options.peer_prompts or work.prompts, work.prompts))
                except RuntimeError as cause:
                    print(f"  {peer}: failed: {str(cause).splitlines()[-1]}")
                    continue
                yield compared(work, precision, peer, ours, theirs, options)


def compared(
    work: Work, precision: str, peer: str, ours: Result, theirs: Result, options: argparse.Namespace
) -> Result:
    """Return the line of the results.

    Raises:
        AssertionError: answers differ that must not.
    """
    equal = [a == b for a, b in zip(ours["answers"], theirs["answers"], strict=False)]
    assert equal, "the peer answered nothing"
    if precision == "fp32" and work.shape is None:
        assert all(equal), f"{equal.count(False)} of {len(equal)} greedy answers differ"
    rates = {
        key: (ours["tokens"] / ours[key], theirs["tokens"] / theirs[key])
        for key in ("seconds", "cpu_seconds")
    }
    return {
        "work": work.name,
        "precision": precision,
        "peer": peer,
        "ratio": round(rates["seconds"][0] / rates["seconds"][1], 2),
        "cpu_ratio": round(rates["cpu_seconds"][0] / rates["cpu_seconds"][1], 2),
        "least": work.least if peer == "loop" else "",
        "seconds": f"{ours['seconds']:.2f}/{theirs['seconds']:.2f}",
        "cpu_seconds": f"{ours['cpu_seconds']:.2f}/{theirs['cpu_seconds']:.2f}",
        "most_seconds": work.seconds or "",
        "threads": ours["threads"],
        "prompts": len(ours["answers"]),
        "peer_prompts": len(theirs["answers"]),
        "new_tokens": ours["tokens"],
        "stops": options.stops,
        "batch": options.batch,
        "tokens_per_second": round(rates["seconds"][0]),
        "peer_tokens_per_second": round(rates["seconds"][1]),
        "peak_mb": ours["peak"] >> 20,
        "peer_peak_mb": theirs["peak"] >> 20,
        "equal_answers": round(sum(equal) / len(equal), 3),
    }


def write(line: Result) -> None:
    """Print ``line`` and add it to the results."""
    print("\n".join(f"    {key:22} {value}" for key, value in line.items()), flush=True)
    add_line(RESULTS, line)


def main() -> None:
    """Do every work that this machine can, and fail if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", action="append", choices=list(WORKS))
    parser.add_argument("--precision", action="append", choices=("fp32", "bf16"))
    parser.add_argument("--peer", action="append", choices=PEERS)
    parser.add_argument(
        "--stops", action="store_true", help="answers end where the model ends them"
    )
    parser.add_argument("--batch", type=int, default=200, help="rows that weitiao answers at once")
    parser.add_argument("--peer-prompts", type=int, help="prompts that a peer answers")
    parser.add_argument("--shared", type=Path, default=RESULTS.parents[3] / "shared")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, folder, precision, given = options.side
        run_side(side, Path(folder), precision, given)
        return
    import torch

    place, failed = where(), False
    for work in (WORKS[name] for name in options.work or WORKS):
        if work.device == "cuda" and not torch.cuda.is_available():
            print(f"{work.name}: not run: there is no CUDA device here")
            continue
        print(f"{work.name}: {work.prompts} prompts, {work.tokens} new tokens", flush=True)
        try:
            for line in measure(work, options):
                write(place | line)
        except (RuntimeError, AssertionError) as cause:
            print(f"  FAILED: {cause}")
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()

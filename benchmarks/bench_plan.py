"""What the plan says beforehand against what a training then takes, in memory and time.

    python benchmarks/bench_plan.py [--set table|calibration] [--only NAME ...] [--device cuda]

Each line is a process of its own that goes the way of ``weitiao train``: data file, plan,
plan again after the probe, training. Memory is the highest resident size of the process
(VmHWM), or on a GPU what its allocator reserved at most and the context; time is that of the
training loop. The constants of ``plan/cost.py`` were fitted on the set ``calibration``; the
set ``table`` shares no line with it. One line each is added to ``results/plan.csv``.
"""

# ruff: noqa: E501 (a line of the table is a line)
import argparse
import datetime
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from results_file import add_line

RESULTS = Path(__file__).parent / "results" / "plan.csv"
SHAPES: dict[str, dict[str, Any]] = {
    "7M-8k": {"vocab_size": 8192, "hidden_size": 256, "intermediate_size": 704, "layers": 8},
    "24M-16k": {"vocab_size": 16384, "hidden_size": 384, "intermediate_size": 1280, "layers": 10},
    "100M-32k": {"vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048, "layers": 10},
    "100M-152k": {"vocab_size": 151936, "hidden_size": 512, "intermediate_size": 1408, "layers": 8},
    "60M-64k": {"vocab_size": 64000, "hidden_size": 576, "intermediate_size": 1536, "layers": 6},
    "1.5B-152k": {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "layers": 28},
    "3B-152k": {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "layers": 36},
}  # fmt: skip
WORDS = [
    "river",
    "stone",
    "lamp",
    "window",
    "garden",
    "letter",
    "morning",
    "winter",
    "paper",
    "bread",
    "silver",
    "mountain",
    "door",
    "journey",
    "market",
    "bridge",
    "forest",
    "teacher",
    "answer",
    "question",
    "weather",
    "engine",
    "harbour",
    "island",
    "copper",
    "candle",
    "mirror",
    "thunder",
    "village",
    "station",
    "blanket",
    "pocket",
    "shadow",
    "ladder",
    "orange",
    "violin",
]


@dataclass(frozen=True)
class Line:
    """A model, rows of ``low`` to ``high`` tokens, and what the recipe asks for."""

    name: str
    shape: str
    low: int
    high: int
    settings: str = ""
    rows: int = 160
    steps: int = 8


TABLE = (
    Line("lora-short", "7M-8k", 40, 130, "train.batch_size=32"),
    Line("lora-long", "7M-8k", 300, 900, "train.batch_size=16"),
    Line("lora-fp32", "100M-32k", 100, 300, "precision=fp32 rank=8"),
    Line("lora-bf16", "100M-32k", 100, 300, "train.batch_size=32"),
    Line("lora-vocabulary", "100M-152k", 60, 200, "rank=8 train.batch_size=16"),
    Line("lora-selective", "100M-32k", 200, 500, "gradient_checkpointing=selective train.batch_size=16"),
    Line("lora-full-checkpointing", "100M-152k", 200, 500, "gradient_checkpointing=full train.batch_size=32"),
    Line("lora-dropout", "7M-8k", 60, 250, "lora.dropout=0.1 train.batch_size=32"),
    Line("dora", "100M-32k", 60, 200, "dora=true train.batch_size=16"),
    Line("qlora-nf4", "100M-32k", 60, 200, "method=qlora train.batch_size=8"),
    Line("full-adamw", "24M-16k", 60, 250, "method=full train.batch_size=16"),
    Line("full-adafactor", "100M-32k", 60, 250, "method=full optimizer=adafactor train.batch_size=8"),
    Line("full-checkpointing", "24M-16k", 300, 700, "method=full gradient_checkpointing=full train.batch_size=16"),
    Line("prefix", "100M-32k", 60, 250, "method=prefix train.batch_size=16"),
    Line("ia3", "100M-32k", 60, 250, "method=ia3 train.batch_size=16"),
)  # fmt: skip
CALIBRATION = (
    Line("c-lora-bf16", "24M-16k", 100, 400, "train.batch_size=16"),
    Line("c-lora-fp32", "24M-16k", 60, 250, "precision=fp32 train.batch_size=16"),
    Line("c-lora-wide", "60M-64k", 60, 300, "rank=32 train.batch_size=32"),
    Line("c-lora-one", "60M-64k", 400, 900, "train.batch_size=1", rows=60),
    Line(
        "c-selective", "24M-16k", 100, 400, "gradient_checkpointing=selective train.batch_size=32"
    ),
    Line("c-checkpointing", "60M-64k", 100, 400, "gradient_checkpointing=full train.batch_size=16"),
    Line("c-dropout", "24M-16k", 60, 200, "lora.dropout=0.05 train.batch_size=16"),
    Line("c-dora", "24M-16k", 60, 200, "dora=true train.batch_size=16"),
    Line("c-qlora-nf4", "60M-64k", 100, 250, "method=qlora train.batch_size=16"),
    Line("c-qlora-int8", "60M-64k", 100, 250, "method=qlora qlora.bits=8 train.batch_size=16"),
    Line("c-full", "7M-8k", 100, 400, "method=full train.batch_size=16"),
    Line("c-full-fp32", "60M-64k", 60, 200, "method=full precision=fp32 train.batch_size=8"),
    Line("c-full-adafactor", "60M-64k", 60, 200, "method=full optimizer=adafactor"),
    Line(
        "c-full-checkpointing",
        "60M-64k",
        200,
        500,
        "method=full gradient_checkpointing=full train.batch_size=16",
    ),
    Line("c-prefix", "24M-16k", 60, 250, "method=prefix train.batch_size=16"),
    Line("c-ia3", "24M-16k", 60, 250, "method=ia3 train.batch_size=16"),
)
CUDA = (
    Line("lora", "1.5B-152k", 60, 250, "train.batch_size=16", 800, 20),
    Line("lora-long", "1.5B-152k", 400, 1000, "train.batch_size=16", 400, 10),
    Line("lora-selective", "1.5B-152k", 200, 600, "gradient_checkpointing=selective train.batch_size=32", 400, 10),
    Line("lora-checkpointing", "1.5B-152k", 200, 900, "gradient_checkpointing=full train.batch_size=32", 400, 10),
    Line("lora-fp16", "1.5B-152k", 60, 250, "precision=fp16 train.batch_size=16", 800, 20),
    Line("lora-dropout", "1.5B-152k", 60, 250, "lora.dropout=0.1 train.batch_size=16", 400, 10),
    Line("dora", "1.5B-152k", 60, 250, "dora=true train.batch_size=16", 400, 10),
    Line("qlora-nf4", "3B-152k", 60, 400, "method=qlora train.batch_size=16", 400, 10),
    Line("qlora-int8", "1.5B-152k", 60, 400, "method=qlora qlora.bits=8 train.batch_size=16", 400, 10),
    Line("full-adamw", "1.5B-152k", 60, 250, "method=full train.batch_size=16", 400, 10),
    Line("full-adamw-8bit", "1.5B-152k", 60, 250, "method=full optimizer=adamw_8bit train.batch_size=16", 400, 10),
    Line("full-adafactor", "1.5B-152k", 60, 400, "method=full optimizer=adafactor gradient_checkpointing=full", 400, 10),
    Line("prefix", "1.5B-152k", 60, 400, "method=prefix train.batch_size=16", 400, 10),
    Line("ia3", "1.5B-152k", 60, 400, "method=ia3 train.batch_size=16", 400, 10),
)  # fmt: skip


def write_model(shape: str, folder: Path) -> None:
    """Write random weights of ``shape`` with the embedded model's tokenizer."""
    import shutil

    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = dict(SHAPES[shape])
    heads = max(1, sizes["hidden_size"] // (128 if sizes["hidden_size"] > 1024 else 64))
    torch.manual_seed(7)
    config = Qwen2Config(
        num_hidden_layers=sizes.pop("layers"),
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 4) if heads % 4 == 0 else heads // 3 or 1,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        dtype="bfloat16",
        **sizes,
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    embedded = Path(str(resources.files("weitiao.models") / "embedded"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(embedded / name, folder / name)


def write_rows(line: Line, model: Path, path: Path) -> None:
    """Write rows whose tokens, prompt and answer together, are spread over the line's range."""
    from weitiao.models.load import find_model, load_tokenizer

    tokenizer, draw = load_tokenizer(find_model(str(model))), random.Random(line.name)
    per_word = len(tokenizer(" ".join(WORDS))["input_ids"]) / len(WORDS)
    with path.open("w", encoding="utf-8") as out:
        for number in range(round(line.rows / 0.8)):
            tokens = line.low + (line.high - line.low) * (number % 20) / 19 - 20
            words = draw.choices(WORDS, k=max(6, round(tokens / per_word)))
            cut = max(3, round(len(words) * 0.6))
            row = {"instruction": " ".join(words[:cut]), "output": " ".join(words[cut:])}
            out.write(json.dumps(row) + "\n")


def measure(line: Line, model: Path, data: Path, out: Path, device: str, probed: bool) -> None:
    """Plan and train in this process; print what was said and what came, as JSON."""
    from weitiao.models.runtime import prepare_process

    prepare_process()
    from weitiao import api
    from weitiao.events import read_events

    given = [*line.settings.split(), f"train.device={device}", f"max_steps={line.steps}"]
    fixed = [*given, "data.clean.flags=false", "data.similar.near=ignore", "split=[8,2,0]"]
    if not any(one.startswith("precision") for one in given):
        fixed.append("precision=bf16")
    recipe = api.recipe_for(data, model=str(model), overrides=[*fixed, "eval_every=3"])
    run = api.start(recipe, out)
    settled = api.plan(run, probe=probed)
    cpu = {}
    api.train(run, (lambda event: cpu.setdefault(event.kind, time.process_time()),))
    done = next(event for event in read_events(run.events) if event.kind == "train.done")
    print(json.dumps({
        "tokens_at_once": settled.micro_batch_tokens,
        "predicted_bytes": settled.predicted.peak_memory_bytes,
        # Where there are several processes, the event tells of all.
        "measured_bytes": max(peak_bytes(device), done.data["peak_memory_bytes"]),
        "predicted_seconds": settled.predicted.train_seconds,
        "measured_seconds": done.data["seconds"],
        "cpu_seconds": round(cpu["train.done"] - cpu["train.start"], 1),
        "processes": settled.processes,
    }))  # fmt: skip


def peak_bytes(device: str) -> int:
    """Return the most memory that this process held."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()
        return torch.cuda.max_memory_reserved() + context
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def hardware(device: str) -> str:
    """Return the processor's or the GPU's name."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return f"{(names or [platform.processor()])[0]}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    """Measure every line, print the table, and add it to the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=("table", "calibration"), default="table")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--no-time", action="store_true", help="memory only: no probe")
    parser.add_argument("--no-write", action="store_true", help="leave results/plan.csv alone")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    lines = CUDA if options.device == "cuda" else TABLE if options.set == "table" else CALIBRATION
    if options.one:
        name, *places, probed = options.one
        line = next(line for line in lines if line.name == name)
        measure(line, *map(Path, places), options.device, probed == "1")  # type: ignore[arg-type]
        return
    print(f"{'configuration':26} {'memory GB':>20} {'error':>7} {'seconds':>24} {'errors':>15}")
    with tempfile.TemporaryDirectory() as folder:
        chosen = [line for line in lines if not options.only or line.name in options.only]
        results = [carry_out(line, Path(folder), options) for line in chosen]
    worst = max(abs(one["memory_error"]) for one in results)
    print(f"largest memory error {worst:.1%} of {len(results)}")
    if not options.no_time:
        before = max(abs(one["time_error_before"]) for one in results)
        after = max(abs(one["time_error_probed"]) for one in results)
        print(f"largest time error {before:.0%} before the probe, {after:.0%} after it")


def carry_out(line: Line, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one line in processes of its own; print it and write it down."""
    model, data = folder / line.shape, folder / f"{line.name}.jsonl"
    if not model.exists():
        write_model(line.shape, model)
    write_rows(line, model, data)
    plain = _process(line, model, data, folder / line.name, options, "0")
    error = plain["predicted_bytes"] / plain["measured_bytes"] - 1
    result = asdict(line) | plain | {"memory_error": round(error, 4)}
    times, errors = f"{plain['predicted_seconds']:7.1f} → {plain['measured_seconds']:7.1f}", ""
    if not options.no_time:
        probed = _process(line, model, data, folder / f"{line.name}-probed", options, "1")
        # Both trainings ran on the same rows; the one beside its prediction is compared.
        before = plain["predicted_seconds"] / plain["measured_seconds"] - 1
        after = probed["predicted_seconds"] / probed["measured_seconds"] - 1
        result |= {"time_error_before": round(before, 3), "time_error_probed": round(after, 3)}
        errors = f"{before:+6.0%} {after:+6.0%}"
    sizes = f"{plain['predicted_bytes'] / 2**30:6.2f} → {plain['measured_bytes'] / 2**30:6.2f}"
    errors += f"  cpu {plain['cpu_seconds']} x{plain['processes']}"
    print(f"{line.name:26} {sizes:>20} {error:+7.1%} {times:>24} {errors:>15}", flush=True)
    if not options.no_write:
        _append(result | {"set": options.set, "device": options.device})
    return result


def _process(
    line: Line, model: Path, data: Path, out: Path, options: argparse.Namespace, probed: str
) -> dict[str, Any]:
    places = [str(place) for place in (model, data, out)]
    command = [sys.executable, __file__, "--set", options.set, "--device", options.device]
    done = subprocess.run(
        [*command, "--one", line.name, *places, probed], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{line.name}: {done.stderr.strip() or done.stdout.strip()}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _append(result: dict[str, Any]) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    today = datetime.date.today().isoformat()
    line = {"date": today, "commit": commit, "hardware": hardware(result["device"]), **result}
    add_line(RESULTS, line)


if __name__ == "__main__":
    main()

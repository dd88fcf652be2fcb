"""Training steps of weitiao against its peers: the same rows, weights, steps and losses.

    python benchmarks/bench_training.py [--work NAME ...] [--rounds 3] [--search] [--shared DIR]

qwen-shape      2 cores, a vocabulary of 152k, alpaca rows under a 29-token system prompt
embedded        2 cores, the embedded model and the bundled rows, rows a step as planned
cuda            a GPU, Qwen2.5-1.5B's shape, rows of about 150 tokens, 50 of them shared
cuda-8gb        the same model, LoRA in bf16, in 8 GB, rows of up to 1,024 tokens
cuda-8gb-qlora  Qwen2.5-7B's shape in NF4, likewise

Peers are TRL's ``SFTTrainer`` with its defaults and at its best (the fastest of several
settings: tried in this run on a GPU or with ``--search``, else as found before), and Unsloth
where it is installed. Each side runs in a process of its own, in turns, and times its own
loop; weights are drawn or bundled, never fetched. Every run asserts that no gradient is zero
and that the losses agree in every step. One line for each work and peer is added to
benchmarks/results/training.csv.
"""

import argparse
import datetime
import json
import math
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from results_file import add_line
from training_sides import trl_candidates
from training_works import WORKS, Work

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "training.csv"
LOSS_TOLERANCE = 1e-3

Result = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """``command`` is what training_sides.py is told; ``least`` the ratio that is asked for."""

    label: str
    command: str
    least: float


def child(script: str, *arguments: str) -> Result:
    """Run a script of this folder in a process of its own; return the JSON of its last line.

    Raises:
        RuntimeError: it failed; the end of what it said.
    """
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("\n".join(done.stderr.splitlines()[-8:]))
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}


def why_not(work: Work, shared: Path) -> str | None:
    """Return why this machine cannot do ``work``, or None."""
    import torch

    if work.device == "cuda" and not torch.cuda.is_available():
        return "there is no CUDA device here"
    if work.method == "qlora" and not find_spec("bitsandbytes"):
        return "bitsandbytes is not installed"
    if work.name == "qwen-shape" and not (shared / "tokenizers" / "qwen").is_dir():
        return f"the tokenizer and the alpaca rows are not in {shared} (--shared DIR)"
    if work.targets and not find_spec("trl"):
        return "TRL is not installed (pip install 'weitiao[bench]')"
    return None


def agree(ours: Result, peer: Result) -> float:
    """Return the largest relative difference of a step's losses.

    Raises:
        AssertionError: it is too large, or a gradient is zero or not a number.
    """
    for norm in ours["norms"] + peer["norms"]:
        assert math.isfinite(norm), "a gradient is not a number"
        assert norm > 0, "a gradient is zero"
    pairs = list(zip(ours["losses"], peer["losses"], strict=True))
    assert pairs, "no step was told of"
    gap = max(abs(a - b) / b for a, b in pairs)
    assert gap < LOSS_TOLERANCE, f"the losses differ by {gap:.2%}: {pairs}"
    return gap


def peers(work: Work, folder: Path, batch: int, search: bool) -> Iterator[Peer]:
    """Yield the peers of ``work`` that are installed, TRL's best as it was found."""
    for label, least in work.targets.items():
        if label == "unsloth":
            if find_spec("unsloth"):
                yield Peer(label, label, least)
            else:
                print("  unsloth: not run: not installed")
        elif label == "trl-default":
            yield Peer(label, "{}", least)
        else:
            candidates = trl_candidates(work, batch)
            name = work.trl_best
            if search or name is None:
                name = fastest(candidates, folder, batch)
            yield Peer(f"{label} ({name})", json.dumps(candidates[name]), least)


def fastest(candidates: dict[str, dict[str, Any]], folder: Path, batch: int) -> str:
    """Run each of TRL's settings once; return the name of the fastest ."""
    seconds = {}
    for name, settings in candidates.items():
        try:
            found = child("training_sides.py", json.dumps(settings), str(folder), str(batch))
        except RuntimeError as cause:
            print(f"  {name}: failed: {str(cause).splitlines()[-1]}")
            continue
        seconds[name] = found["seconds"]
        print(f"  {name}: {found['seconds']:.1f} s, {found['cpu_seconds']:.1f} CPU s")
    return min(seconds, key=seconds.__getitem__)


def compare(
    work: Work, peer: Peer, folder: Path, batch: int, rounds: int, rate: float | None
) -> Result:
    """Run both sides in turns; return the line of the results."""
    pairs = []
    for _ in range(rounds):
        ours = child("training_sides.py", "ours", str(folder))
        theirs = child("training_sides.py", peer.command, str(folder), str(batch))
        pairs.append((ours, theirs, agree(ours, theirs)))
        wall, cpu = (theirs[key] / ours[key] for key in ("seconds", "cpu_seconds"))
        print(f"  {peer.label}: {wall:.2f}x, {cpu:.2f}x in CPU seconds", flush=True)
    theirs, runs = pairs[-1][1], [ours for ours, _, _ in pairs]

    def ratio(key: str) -> float:
        return round(median(b[key] / a[key] for a, b, _ in pairs), 2)

    def listed(key: str) -> str:
        return " ".join(f"{a[key]:.2f}/{b[key]:.2f}" for a, b, _ in pairs)

    shares = gpu_shares(runs, rate) if rate else {}
    return (
        our_columns(work, runs)
        | shares
        | {
            "peer": peer.label,
            "ratio": ratio("seconds"),
            "cpu_ratio": ratio("cpu_seconds"),
            "least": peer.least,
            "seconds": listed("seconds"),
            "cpu_seconds": listed("cpu_seconds"),
            "peer_executed_tokens": theirs["executed"],
            "peer_peak_mb": theirs["peak"] >> 20,
            "peer_settings": json.dumps(theirs["settings"]),
            "largest_loss_gap": f"{max(gap for _, _, gap in pairs):.1e}",
            "smallest_norm": min(min(a["norms"] + b["norms"]) for a, b, _ in pairs),
        }
    )


def our_columns(work: Work, runs: list[Result]) -> Result:
    last, seconds = runs[-1], median(run["seconds"] for run in runs)
    return {
        "work": work.name,
        "threads": last["threads"],
        "steps": work.steps,
        "logical_tokens": last["logical"],
        "executed_tokens": last["executed"],
        "scored_tokens": last["scored"],
        "tokens_per_second": round(last["logical"] / seconds),
        "peak_mb": max(run["peak"] for run in runs) >> 20,
        "predicted_peak_mb": last["predicted_peak"] >> 20,
        "settings": json.dumps(last["settings"]),
    }


def gpu_shares(runs: list[Result], rate: float) -> Result:
    """Return which share of the GPU's own rate of bf16 products the needed operations reach."""
    seconds = median(run["seconds"] for run in runs)
    shares = {f"share_{name}": flops / seconds / rate for name, flops in runs[-1]["flops"].items()}
    return {"matmul_tflops": round(rate / 1e12)} | {n: round(x, 3) for n, x in shares.items()}


def measure(work: Work, options: argparse.Namespace) -> Iterator[Result]:
    """Yield one line for each peer of ``work``, or one for the work alone."""
    rate = gpu_checked() if work.name == "cuda" else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        child("training_works.py", work.name, str(folder), str(options.shared))
        first = child("training_sides.py", "ours", str(folder))
        if not work.targets:
            agree(first, first)
            yield our_columns(work, [first]) | {"seconds": f"{first['seconds']:.2f}"}
            return
        batch = first["settings"]["batch_size"]
        for peer in peers(work, folder, batch, options.search):
            yield compare(work, peer, folder, batch, options.rounds, rate)


def gpu_checked() -> float:
    """Return the GPU's own rate, after every path of the engine was found exact on it."""
    found = child("training_cuda.py", "cuda")
    worst = max(p["gradient_error"] for p in found["paths"] if p["precision"] == "float32")
    print(f"  {len(found['paths'])} paths agree with the reference, in fp32 to {worst:.1e}")
    return float(found["matmul_rate"])


COLUMNS = [
    "date",
    "commit",
    "hardware",
    "versions",
    "work",
    "peer",
    "ratio",
    "cpu_ratio",
    "least",
    "seconds",
    "cpu_seconds",
    "threads",
    "steps",
    "logical_tokens",
    "executed_tokens",
    "peer_executed_tokens",
    "scored_tokens",
    "tokens_per_second",
    "peak_mb",
    "predicted_peak_mb",
    "peer_peak_mb",
    "largest_loss_gap",
    "smallest_norm",
    "matmul_tflops",
    "share_computed",
    "share_logical",
    "settings",
    "peer_settings",
]


def where() -> Result:
    """Return date, commit, hardware and the versions of what is compared."""
    import torch

    from weitiao.plan.machine import usable_cores

    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE,
    )
    cpu = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), cpu)
    hardware = f"{cpu}, {usable_cores()} cores"
    if torch.cuda.is_available():
        hardware = f"{torch.cuda.get_device_name()}; {hardware}"
    installed = {d.name.lower(): d.version for d in metadata.distributions()}
    named = ("torch", "transformers", "peft", "trl", "unsloth", "flash-attn", "bitsandbytes")
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip(),
        "hardware": hardware,
        "versions": " ".join(f"{n} {installed[n]}" for n in named if n in installed),
    }


def write(line: Result) -> None:
    """Print ``line`` and add it to the results."""
    print("\n".join(f"    {key:22} {line[key]}" for key in COLUMNS if key in line), flush=True)
    add_line(RESULTS, line, COLUMNS)


def main() -> None:
    """Do every work that this machine can, say why not the others, and fail if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", action="append", choices=list(WORKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--search", action="store_true", help="try TRL's settings on a CPU too")
    parser.add_argument("--shared", type=Path, default=HERE.parent.parent / "shared")
    options = parser.parse_args()
    place, failed = where(), False
    for name in options.work or list(WORKS):
        work = WORKS[name]
        if reason := why_not(work, options.shared):
            print(f"{name}: not run: {reason}")
            continue
        print(f"{name}: {work.steps} steps, after {work.warmup} that are not timed", flush=True)
        try:
            for line in measure(work, options):
                write(place | line)
        except (RuntimeError, AssertionError) as cause:
            print(f"  FAILED: {cause}")
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()

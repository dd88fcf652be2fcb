"""Training steps of weitiao against the plain way to fine-tune, on the same rows.

    python benchmarks/bench_training.py [--steps 12] [--rounds 3]

The peer is the loop of the usual tutorial: rows padded to the longest of the batch,
transformers' own forward pass with labels, the head computed on every token, PEFT LoRA,
autocast to bf16. Both take the same rows in the same optimizer steps from the same adapter,
in turn, in one process; the losses must agree and the gradients must not be zero. One line
with hardware and commit is added to ``benchmarks/results/training.csv``.
"""

import argparse
import csv
import datetime
import os
import platform
import subprocess
import time
from importlib import resources
from pathlib import Path
from statistics import median

from weitiao.models.runtime import prepare_process

prepare_process()

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402

from weitiao.events import EventLog  # noqa: E402
from weitiao.models.adapters import add_lora, transformers_model  # noqa: E402
from weitiao.models.flat import autocast, flat_attention, row_losses  # noqa: E402
from weitiao.models.load import find_model, load_model, load_tokenizer  # noqa: E402
from weitiao.models.lora import lean_lora  # noqa: E402
from weitiao.records.options import DataOptions  # noqa: E402
from weitiao.records.prepare import check, load_samples  # noqa: E402
from weitiao.records.render import ChatFormat, Sample  # noqa: E402
from weitiao.training.batches import micro_batches, samples_of_step  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "training.csv"
BATCH, SEED, BUDGET = 16, 42, 4096
PRECISION = torch.bfloat16


def rows() -> tuple[list[Sample], int]:
    """Return the bundled rows as samples, and the id to pad with."""
    tokenizer = load_tokenizer(find_model("embedded"))
    chat = ChatFormat(tokenizer)
    path = Path(str(resources.files("weitiao.examples") / "bank" / "bank.jsonl"))
    checked = check(path, DataOptions(), chat, EventLog())
    return load_samples(checked.records, chat, DataOptions()), int(tokenizer.pad_token_id)


def tuned_model() -> PeftModel:
    """Return the embedded model with a fresh adapter, the same each time."""
    base = load_model(find_model("embedded"), PRECISION, torch.device("cpu"))
    made = add_lora(base, rank=16, alpha=32, dropout=0.0, targets="all-linear", seed=1)
    return made.train()


def flat_step(model: PeftModel, samples: list[Sample], chosen: list[int], pad: int) -> float:
    """Backward pass of one optimizer step as weitiao does it; return the mean loss."""
    inner, total = transformers_model(model), 0.0
    scored = sum(int(samples[i].scored.sum()) for i in chosen)
    with flat_attention(inner), lean_lora(inner):
        for _, flat in micro_batches(samples, chosen, BUDGET):
            loss = row_losses(inner, flat, PRECISION).sum() / scored
            loss.backward()
            total += loss.item()
    return total


def padded_step(model: PeftModel, samples: list[Sample], chosen: list[int], pad: int) -> float:
    """Backward pass of the same step as tutorials do it; return the mean loss."""
    width = max(len(samples[i].ids) for i in chosen)
    ids = torch.full((len(chosen), width), pad)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, i in enumerate(chosen):
        length = len(samples[i].ids)
        ids[row, :length] = torch.from_numpy(samples[i].ids)
        mask[row, :length] = 1
        scored = torch.from_numpy(samples[i].scored)
        labels[row, :length] = ids[row, :length].masked_fill(~scored, -100)
    with autocast(torch.device("cpu"), PRECISION):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    loss.backward()
    return float(loss.item())


def train(step_of, samples: list[Sample], pad: int, steps: int) -> tuple[float, float, list[float]]:
    """Take ``steps`` optimizer steps; return wall seconds, CPU seconds and the losses."""
    model = tuned_model()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    losses = []
    wall, cpu = time.perf_counter(), time.process_time()
    for step in range(steps):
        chosen = samples_of_step(len(samples), BATCH, SEED, step)
        losses.append(step_of(model, samples, chosen, pad))
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        assert norm > 1e-4, "the gradients are zero"
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - wall, time.process_time() - cpu, losses


def hardware() -> str:
    """Return the processor's name and the cores used."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{(names or [platform.processor()])[0]}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    """Measure, print, and add a line to the results."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--steps", type=int, default=12)
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    samples, pad = rows()
    chosen = [samples_of_step(len(samples), BATCH, SEED, s) for s in range(options.steps)]
    tokens = sum(len(samples[i].ids) for step in chosen for i in step)
    train(flat_step, samples, pad, 2)
    train(padded_step, samples, pad, 2)
    ratios, cpu_ratios, speeds = [], [], []
    for _ in range(options.rounds):
        ours, ours_cpu, our_losses = train(flat_step, samples, pad, options.steps)
        peer, peer_cpu, peer_losses = train(padded_step, samples, pad, options.steps)
        gap = max(abs(a - b) / b for a, b in zip(our_losses, peer_losses, strict=True))
        assert gap < 2e-2, f"the losses differ by {gap:.1%}"
        ratios.append(peer / ours)
        cpu_ratios.append(peer_cpu / ours_cpu)
        speeds.append(tokens / ours)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    result = {
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "hardware": hardware(),
        "torch": torch.__version__,
        "work": f"embedded, LoRA r16, bf16, {BATCH} rows a step, {options.steps} steps",
        "peer": "padded batches, transformers + PEFT",
        "tokens_per_second": round(median(speeds)),
        "wall_ratio": round(median(ratios), 2),
        "cpu_ratio": round(median(cpu_ratios), 2),
        "largest_loss_gap": f"{gap:.1e}",
    }
    print("\n".join(f"{key:20} {value}" for key, value in result.items()))
    RESULTS.parent.mkdir(exist_ok=True)
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, result)
        if new:
            writer.writeheader()
        writer.writerow(result)


if __name__ == "__main__":
    main()

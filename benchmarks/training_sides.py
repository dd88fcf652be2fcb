"""The sides of bench_training.py, each in a process of its own: same files in, one JSON line out.

    python benchmarks/training_sides.py ours|unsloth|'{TRL settings}' FOLDER [ROWS A STEP]

Timed is the training alone, from the end of the last warm-up step to the end of the last one,
through the product's own loop: weitiao's ``train`` and TRL's ``SFTTrainer.train``. What it
times is the whole cycle of a step: fetching rows, forward, backward, clipping, optimizer.
"""

import json
import resource
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from training_works import Work, read_rows, read_work

from weitiao.models.runtime import prepare_process

PACKED = {"padding_free": True, "max_length": None, "gradient_checkpointing": False}
"""All rows of a batch end to end: what TRL's packing gives where a step keeps its rows."""

BF16 = {"model": {"dtype": "bfloat16"}}
FLASH = {"model": {"dtype": "bfloat16", "attn_implementation": "flash_attention_2"}}
FLEX = {"model": {"dtype": "bfloat16", "attn_implementation": "flex_attention"}}


def trl_candidates(work: Work, batch: int) -> dict[str, dict[str, Any]]:
    """Return the settings of TRL among which its best is sought."""
    padded, whole = {"gradient_checkpointing": False}, {"per_device_train_batch_size": batch}
    if work.device == "cpu":
        return {
            "padded": padded,
            "padded, whole steps": padded | whole,
            "padded, whole steps, bf16 weights": padded | whole | BF16,
            "padding-free": PACKED,
            "padding-free, whole steps": PACKED | whole,
            "padding-free, bf16 weights": PACKED | BF16,
            "padding-free, 4 rows": PACKED | {"per_device_train_batch_size": 4},
            "padding-free, 4 rows, bf16 weights": PACKED
            | BF16
            | {"per_device_train_batch_size": 4},
        }
    found = {
        "padded, bf16 weights, sdpa": padded | BF16 | whole,
        "padding-free, bf16 weights, sdpa": PACKED | BF16 | whole,
        "padding-free, bf16 weights, flex": PACKED | FLEX | whole,
    }
    if find_spec("flash_attn"):
        found["padding-free, bf16 weights, flash"] = PACKED | FLASH | whole
    return found


class Watch:
    """Notes each step's end; the seconds between the warm-up's last and the very last."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.executed = 0
        self.peak = 0

    def step(self) -> None:
        self.wall.append(time.perf_counter())
        # Processes made by this one count, too, as long as they live.
        others = [child.cpu_times() for child in psutil.Process().children()]
        self.cpu.append(time.process_time() + sum(one.user + one.system for one in others))

    def result(self, device: str, **more: Any) -> dict[str, Any]:
        import torch

        first = self.warmup - 1
        peak = max(self.peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        if device == "cuda":
            peak = torch.cuda.max_memory_allocated()
        return {
            "seconds": self.wall[-1] - self.wall[first],
            "cpu_seconds": self.cpu[-1] - self.cpu[first],
            "losses": self.losses,
            "norms": self.norms,
            "executed": self.executed,
            "peak": peak,
            "threads": torch.get_num_threads(),
            **more,
        }


# --- weitiao ----------------------------------------------------------------------------


def make_work_plan(work: Work, folder: Path, samples: list[Any]) -> Any:
    """Return the plan of the product for this machine; only what must be equal is asked for."""
    import numpy as np

    from weitiao.models.load import ModelSource, read_config
    from weitiao.plan.cost import measure_rates
    from weitiao.plan.machine import probe
    from weitiao.plan.plan import make_plan
    from weitiao.plan.recipe import load_recipe
    from weitiao.plan.shape import ModelShape

    steps = work.steps + work.warmup
    asked = [
        f"train.method={work.method}",
        f"train.device={work.device}",
        f"lora.rank={work.rank}",
        f"lora.alpha={2 * work.rank}",
        f"learning_rate={work.learning_rate}",
        f"max_steps={steps}",
        f"eval_every={steps + 1}",
        f"save_every={steps + 1}",
        "epochs=1000",
        "warmup_ratio=0",
    ]
    asked += [f"train.batch_size={work.batch}"] if work.batch else []
    asked += ["precision=bf16"] if work.device == "cuda" else []
    recipe = load_recipe(None, asked)
    shape = ModelShape.from_config(read_config(ModelSource("work", str(folder / "model"))))
    machine = probe(folder)
    if work.memory_gb:
        machine = with_gpu_memory(machine, work.memory_gb)
    plan = make_plan(
        recipe,
        shape,
        np.array([len(sample.ids) for sample in samples]),
        np.array([int(sample.scored.sum()) for sample in samples]),
        machine,
        measure_rates(machine, work.device, shape.hidden_size),
    )
    plan.require_fit()
    return plan


def with_gpu_memory(machine: Any, gigabytes: float) -> Any:
    """Return ``machine`` as if its GPU had ``gigabytes``, and hold torch to it."""
    from dataclasses import replace

    import torch

    limit, gpu = int(gigabytes * (1 << 30)), machine.gpus[0]
    torch.cuda.set_per_process_memory_fraction(limit / gpu.memory_bytes)
    free = min(gpu.free_bytes, limit)
    return replace(machine, gpus=(replace(gpu, memory_bytes=limit, free_bytes=free),))


def run_loop(work: Work, plan: Any, model: Any, samples: list[Any], folder: Path) -> Watch:
    """Train with the product's loop; return what its events tell."""
    from weitiao.events import Event, EventLog
    from weitiao.records.record import Origin
    from weitiao.runs import Run
    from weitiao.training import loop
    from weitiao.training.forked import may_fork, train_forked

    watch = Watch(work.warmup)

    def listen(event: Event) -> None:
        if event.kind == "train.done":
            watch.peak = event.data["peak_memory_bytes"]
        if event.kind != "train.step":
            return
        watch.step()
        watch.losses.append(event.data["loss"])
        watch.norms.append(event.data["grad_norm"])
        if len(watch.wall) > work.warmup:
            watch.executed += event.data["executed_tokens"]

    run = Run(Path(tempfile.mkdtemp(dir=folder)))
    train = train_forked if may_fork(plan) else loop.train
    train(
        loop.Work(
            model=model,
            plan=plan,
            train=samples,
            validation=[],
            origins=[Origin("rows", i + 1) for i in range(len(samples))],
            run=run,
            events=EventLog(run.events, (listen,)),
            extras=lambda _: None,
        )
    )
    return watch


def ours(work: Work, folder: Path) -> dict[str, Any]:
    from training_cuda import needed_flops

    samples = read_rows(folder / "rows.npz")
    plan = make_work_plan(work, folder, samples)
    watch = run_loop(work, plan, our_model(work, plan, folder), samples, folder)
    told = (
        "batch_size",
        "precision",
        "micro_batch_tokens",
        "gradient_checkpointing",
        "share_prefixes",
        "quantization",
        "processes",
    )
    timed = rows_in_order(work, samples, plan.batch_size)[work.warmup * plan.batch_size :]
    return watch.result(
        work.device,
        settings={name: getattr(plan, name) for name in told},
        logical=sum(len(sample.ids) for sample in timed),
        scored=sum(int(sample.scored.sum()) for sample in timed),
        flops=needed_flops(plan, timed, watch.executed),
        predicted_peak=plan.predicted.peak_memory_bytes,
    )


def our_model(work: Work, plan: Any, folder: Path) -> Any:
    """Return the base with the adapter that all sides begin with."""
    import torch
    from peft import PeftModel
    from training_cuda import quantized_base

    from weitiao.models.adapters import add_adapter
    from weitiao.models.load import ModelSource, load_model

    if work.method == "qlora":
        return add_adapter(quantized_base(work.shape or {}, work.device), plan)
    dtype = torch.bfloat16 if plan.precision == "bf16" else torch.float32
    source = ModelSource("work", str(folder / "model"))
    base = load_model(source, dtype, torch.device(work.device))
    return PeftModel.from_pretrained(base, str(folder / "adapter"), is_trainable=True)


# --- TRL --------------------------------------------------------------------------------


def rows_in_order(work: Work, samples: list[Any], batch: int) -> list[Any]:
    """Return the rows as weitiao's steps take them, step after step."""
    from weitiao.training.batches import samples_of_step

    steps = range(work.steps + work.warmup)
    return [samples[i] for s in steps for i in samples_of_step(len(samples), batch, 42, s)]


def trl(work: Work, folder: Path, variant: dict[str, Any], batch: int) -> dict[str, Any]:
    """Train with TRL: its defaults but for what must be equal, and ``variant``."""
    from peft import PeftModel
    from trl.trainer.utils import create_model_from_path

    variant = dict(variant)
    base = create_model_from_path(str(folder / "model"), **variant.pop("model", {}))
    model = PeftModel.from_pretrained(base, str(folder / "adapter"), is_trainable=True)
    return trl_training(work, folder, model, variant, batch)


def trl_training(
    work: Work, folder: Path, model: Any, variant: dict[str, Any], batch: int
) -> dict[str, Any]:
    import datasets
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    samples, watch = read_rows(folder / "rows.npz"), Watch(work.warmup)

    class Listener(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            watch.step()

        def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
            if "grad_norm" in logs:
                watch.losses.append(logs["loss"])
                watch.norms.append(float(logs["grad_norm"]))

    settings = equal_settings(work, batch, tempfile.mkdtemp(dir=folder)) | variant
    settings["gradient_accumulation_steps"] = batch // settings["per_device_train_batch_size"]
    rows = rows_in_order(work, samples, batch)
    labels = [
        [int(i) if scored else -100 for i, scored in zip(row.ids, row.scored, strict=True)]
        for row in rows
    ]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**settings),
        train_dataset=datasets.Dataset.from_dict(
            {"input_ids": [row.ids.tolist() for row in rows], "labels": labels}
        ),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[Listener()],
    )
    taken = trainer.training_step

    def counting(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        if len(watch.wall) >= work.warmup:
            watch.executed += inputs["input_ids"].numel()
        return taken(model, inputs, *rest)

    trainer.training_step = counting
    trainer.train()
    told = dict(variant)
    told["per_device_train_batch_size"] = settings["per_device_train_batch_size"]
    told["attention"] = trainer.accelerator.unwrap_model(trainer.model).config._attn_implementation
    told["dtype"] = str(next(p for p in trainer.model.parameters() if not p.requires_grad).dtype)
    told["bf16"] = trainer.args.bf16
    told["gradient_checkpointing"] = trainer.args.gradient_checkpointing
    return watch.result(work.device, settings=told)


def equal_settings(work: Work, batch: int, output: str) -> dict[str, Any]:
    """Return what both sides must have in common, and quiet; the rest is TRL's own default."""
    return {
        "output_dir": output,
        "max_steps": work.steps + work.warmup,
        "learning_rate": work.learning_rate,
        "lr_scheduler_type": "cosine",
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": min(8, batch),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": work.device == "cpu",
    }


def unsloth(work: Work, folder: Path, batch: int) -> dict[str, Any]:
    """Train with Unsloth at its documented fast settings."""
    # Before transformers, PEFT and TRL, all of which it changes.
    fast = import_module("unsloth").FastLanguageModel

    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    base, _ = fast.from_pretrained(
        str(folder / "model"), max_seq_length=work.longest, dtype=None, load_in_4bit=False
    )
    model = fast.get_peft_model(
        base,
        r=work.rank,
        lora_alpha=2 * work.rank,
        lora_dropout=0,
        bias="none",
        target_modules=[f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")],
        use_gradient_checkpointing=False,
    )
    set_peft_model_state_dict(model, load_file(folder / "adapter" / "adapter_model.safetensors"))
    return trl_training(work, folder, model, PACKED | {"per_device_train_batch_size": batch}, batch)


def main() -> None:
    side, folder = sys.argv[1], Path(sys.argv[2])
    work = read_work(folder)
    if side == "ours":
        result = ours(work, folder)
    elif side == "unsloth":
        result = unsloth(work, folder, int(sys.argv[3]))
    else:
        result = trl(work, folder, json.loads(side), int(sys.argv[3]))
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    prepare_process()
    main()

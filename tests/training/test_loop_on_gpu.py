"""The loop on a GPU: the same bytes after a kill, and real shortage of memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_work import events, weights, work
from test_checkpoint import killed_and_resumed

from tiny import random_samples
from weitiao.records.record import Origin
from weitiao.training.loop import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

WAYS = [
    (("precision=bf16", "train.lora.dropout=0.1"), {}),
    ((), {"precision": "fp16"}),
    (("optimizer=paged_adamw_8bit", "method=full", "precision=bf16"), {}),
    (("optimizer=adafactor", "gradient_checkpointing=selective"), {}),
]


@pytest.mark.parametrize(("overrides", "plan"), WAYS)
def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, overrides: tuple[str, ...], plan: dict[str, Any]
) -> None:
    if any("8bit" in text for text in overrides):
        pytest.importorskip("bitsandbytes")
    asked = (*overrides, "train.device=cuda", "save_every=2")
    whole = work(tmp_path / "whole", *asked, plan=plan)
    train(whole)
    resumed = killed_and_resumed(tmp_path / "killed", 5, *asked, plan=plan)
    assert weights(resumed.run) == weights(whole.run)


def test_a_gpu_that_is_too_small_makes_micro_batches_smaller(tmp_path: Path) -> None:
    rows = random_samples([120] * 4000, 3)
    made = work(tmp_path, "train.device=cuda", "precision=bf16", "max_steps=2")
    plan = made.plan.model_copy(update={"batch_size": 4000, "micro_batch_tokens": 1 << 20})
    origins = [Origin("rows.jsonl", i + 1) for i in range(len(rows))]
    job = replace(made, plan=plan, train=rows, origins=origins)
    everything = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((1 << 30) / everything)
    try:
        train(job)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    budgets = [event.data["micro_batch_tokens"] for event in events(job.run, "train.shrunk")]
    assert budgets
    assert budgets == sorted(budgets, reverse=True)
    assert len(events(job.run, "train.step")) == 2
    assert torch.cuda.max_memory_allocated() <= 1 << 30

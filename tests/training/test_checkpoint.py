"""Checkpoints: the same bytes after a kill, and nothing lost where one cannot be used."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_work import SAMPLES, events, weights, work

from weitiao.errors import TrainingError
from weitiao.events import Event, EventLog
from weitiao.plan.resolved import CHANGEABLE
from weitiao.training.checkpoint import _FREE
from weitiao.training.loop import Work, train


class Killed(BaseException):
    """Stands for kill -9: nothing of ours may catch it."""


def kill_at(step: int, kind: str = "train.step") -> EventLog:
    def kill(event: Event) -> None:
        if event.kind == kind and event.data["step"] == step:
            raise Killed

    return EventLog(None, (kill,))


def killed_and_resumed(folder: Path, step: int, *overrides: str, **changes: Any) -> Work:
    """Return a training that was killed at ``step`` and then went on to its end."""
    with pytest.raises(Killed):
        train(work(folder, *overrides, **changes, events=kill_at(step)))
    resumed = work(folder, *overrides, **changes)
    train(resumed)
    return resumed


WAYS = [
    (("train.lora.dropout=0.2",), {}),
    (("precision=bf16", "train.lora.dropout=0.1", "neftune_alpha=5", "share_prefixes=false"), {}),
    (("method=full", "label_smoothing=0.1", "gradient_checkpointing=selective"), {}),
    ((), {"precision": "fp16"}),
    (("optimizer=adafactor", "schedule=linear"), {}),
    (("optimizer=adamw_8bit", "method=full"), {}),
    (("optimizer=paged_adamw", "schedule=constant"), {}),
    (("optimizer=paged_adamw_8bit", "method=full", "precision=bf16"), {}),
]


@pytest.mark.parametrize(("overrides", "plan"), WAYS)
def test_a_killed_run_resumes_to_the_same_bytes(
    tmp_path: Path, overrides: tuple[str, ...], plan: dict[str, Any]
) -> None:
    if any("bit" in text or "paged" in text for text in overrides):
        pytest.importorskip("bitsandbytes")
    # The killed one leaves checkpoints after steps 2, 4, ..., so steps are done again.
    overrides = (*overrides, "save_every=2")
    whole = work(tmp_path / "whole", *overrides, plan=plan)
    train(whole)
    for killed_at in (1, 4, 5) if whole.plan.optimizer == "adamw" else (5,):
        resumed = killed_and_resumed(tmp_path / str(killed_at), killed_at, *overrides, plan=plan)
        assert weights(resumed.run) == weights(whole.run), killed_at
        told = [event.data["step"] for event in events(resumed.run, "train.resumed")]
        assert told == ([] if killed_at == 1 else [4 if killed_at == 5 else 2])
    last = [job.run.checkpoint(6) / "tensors.safetensors" for job in (whole, resumed)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_the_scale_of_fp16_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So large that it overflows at once, and growing so fast that it does so again.
    eager = partial(torch.amp.GradScaler, init_scale=2.0**22, growth_interval=2)
    monkeypatch.setattr(torch.amp, "GradScaler", eager)
    half = {"precision": "fp16"}
    whole = work(tmp_path / "whole", plan=half)
    train(whole)
    resumed = killed_and_resumed(tmp_path / "killed", 4, plan=half)
    overflowed = [event.data for event in events(whole.run, "train.rescaled")]
    assert {told["step"] for told in overflowed} > {1}
    after = [told for told in overflowed if told["step"] > 3]
    assert [event.data for event in events(resumed.run, "train.rescaled")] == after
    ends = [
        json.loads((job.run.checkpoint(6) / "state.json").read_text()) for job in (whole, resumed)
    ]
    assert ends[0]["scaler"] == ends[1]["scaler"]
    assert weights(resumed.run) == weights(whole.run)


def test_checkpoints_hold_no_pickles_and_as_many_are_kept_as_asked(tmp_path: Path) -> None:
    for kept in (1, 3):
        job = work(tmp_path / str(kept), f"keep_checkpoints={kept}", "max_steps=5")
        train(job)
        assert [step for step, _ in job.run.checkpoints()] == [1, 2, 3, 4, 5][-kept:]
    names = {file.name for _, folder in job.run.checkpoints() for file in folder.iterdir()}
    assert names == {"state.json", "tensors.safetensors"}
    assert json.loads((job.run.adapter / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize("damage", ["short", "missing", "state", "header"])
def test_a_torn_checkpoint_is_passed_over_and_said(tmp_path: Path, damage: str) -> None:
    whole = work(tmp_path / "whole")
    train(whole)
    with pytest.raises(Killed):
        train(work(tmp_path / "torn", events=kill_at(5)))
    resumed = work(tmp_path / "torn", "save_every=9")
    tensors, state = (
        resumed.run.checkpoint(4) / name for name in ("tensors.safetensors", "state.json")
    )
    content = tensors.read_bytes()
    if damage == "short":
        tensors.write_bytes(content[:-100])
    elif damage == "missing":
        tensors.unlink()
    elif damage == "state":
        state.write_text(state.read_text()[:200])
    else:
        tensors.write_bytes(b"\0" * len(content))
    train(resumed)
    assert [event.data["step"] for event in events(resumed.run, "train.torn")] == [4]
    assert [event.data["step"] for event in events(resumed.run, "train.resumed")] == [3]
    assert [step for step, _ in resumed.run.checkpoints()] == [3], "of no use, and not counted"
    assert weights(resumed.run) == weights(whole.run)


@pytest.mark.parametrize("form", ["unknown", "closed"])
def test_a_whole_checkpoint_that_cannot_be_used_is_kept(tmp_path: Path, form: str) -> None:
    with pytest.raises(Killed):
        train(work(tmp_path, events=kill_at(3)))
    job = work(tmp_path)
    state = job.run.checkpoint(2) / "state.json"
    if form == "unknown":
        content = json.loads(state.read_text())
        content["progress"]["of_tomorrow"] = 1
        state.write_text(json.dumps(content))
    else:
        state.unlink()
        state.mkdir()
    before = [step for step, _ in job.run.checkpoints()]
    with pytest.raises(TrainingError, match=r"step-0*2"):
        train(job)
    assert [step for step, _ in job.run.checkpoints()] == before


def test_a_checkpoint_of_another_recipe_is_refused_with_what_differs(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(work(tmp_path, events=kill_at(3)))
    same = ("save_every=5", "micro_batch_tokens=64")
    other = work(tmp_path, "learning_rate=0.02", "train.seed=7", *same)
    rows = [replace(s, scored=~s.scored) if s is SAMPLES[0] else s for s in SAMPLES]
    with pytest.raises(TrainingError) as caught:
        train(replace(other, train=rows))
    changes = str(caught.value.values["changes"]).split("; ")
    assert changes[:2] == ["learning_rate: 0.01 → 0.02", "seed: 42 → 7"]
    assert changes[2].startswith("training_rows: 22 (")
    assert len(changes) == 3, f"{same} change no result"
    assert "--resume" in str(caught.value)
    assert "step-2" in str(caught.value)
    with pytest.raises(TrainingError, match="lora_rank: 4 → 8; trained_weights: "):
        train(work(tmp_path, "rank=8", "train.lora.alpha=8"))


def test_the_micro_batch_may_be_lowered_for_a_resumed_run(tmp_path: Path) -> None:
    whole = work(tmp_path / "whole")
    train(whole)
    with pytest.raises(Killed):
        train(work(tmp_path / "killed", events=kill_at(3)))
    resumed = work(tmp_path / "killed", "micro_batch_tokens=40")
    assert train(resumed).micro_batch_tokens == 40
    losses = [event.data["loss"] for event in events(whole.run, "train.step")]
    again = [event.data["loss"] for event in events(resumed.run, "train.step")]
    assert again == pytest.approx(losses[-len(again) :], rel=1e-5)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte of its own, where this process may make one."""
    place = tmp_path / "disk"
    place.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(place)]
    if subprocess.run(asked, capture_output=True, check=False).returncode != 0:
        pytest.skip("making a small disk is not permitted here")
    yield place
    # Lazily: tensors that an error still holds may be mapped from a file there.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, small_disk: Path) -> None:
    whole = work(tmp_path / "whole", "keep_checkpoints=9", validation=[])
    train(whole)
    one = sum(file.stat().st_size for file in whole.run.checkpoint(1).iterdir())
    folder = small_disk / "run"

    def fill(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 3:
            free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            (small_disk / "film").write_bytes(b"x" * (free - one // 2))

    doomed = work(folder, validation=[], events=EventLog(None, (fill,)))
    with pytest.raises(TrainingError, match=r"disk is full.*step 3 .*step 2 is whole"):
        train(doomed)
    assert [step for step, _ in doomed.run.checkpoints()] == [1, 2]
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step-1", "step-2"]
    (small_disk / "film").unlink()
    resumed = work(folder, validation=[])
    train(resumed)
    assert events(resumed.run, "train.resumed")[0].data["step"] == 2
    assert weights(resumed.run) == weights(whole.run)


def test_what_can_be_changed_in_the_midst_is_what_a_checkpoint_leaves_free() -> None:
    assert {name for name in CHANGEABLE.values() if name} < _FREE

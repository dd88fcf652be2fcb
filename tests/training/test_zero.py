"""DeepSpeed's ZeRO ends with the weights of one process, where it is installed."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_work import events, weights, work
from team_member import do, job

from weitiao.errors import TrainingError
from weitiao.runs import Run
from weitiao.training.loop import train
from weitiao.training.team import Team
from weitiao.training.work import begin

STILL = ("train.lora.dropout=0", "micro_batch_tokens=60", "learning_rate=0.001")
NOISY = ("train.lora.dropout=0.2", "micro_batch_tokens=60")
STAGES = ("deepspeed.stage=2", "deepspeed.stage=3")
METHODS = ("lora", "full")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have done all jobs."""
    pytest.importorskip("deepspeed")
    home, jobs = tmp_path_factory.mktemp("zero"), []
    for stage in STAGES:
        for method in METHODS:
            folder = home / f"{method}-{stage}"
            jobs.append(job(folder, "deepspeed", *STILL, f"method={method}", stage))
        killed = home / f"killed-{stage}"
        jobs += [
            job(home / f"whole-{stage}", "deepspeed", *NOISY, stage),
            job(killed, "deepspeed", *NOISY, stage, happens=(0, 3, "killed")),
            job(killed, "deepspeed", *NOISY, stage),
            job(home / f"bf16-{stage}", "deepspeed", *STILL, "precision=bf16", stage),
        ]
    do(home, jobs)
    return home


def tensors(run: Run) -> dict[str, torch.Tensor]:
    folder = run.adapter if run.adapter.exists() else run.model
    return load_file(next(folder.glob("*.safetensors")))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", METHODS)
def test_it_ends_with_the_weights_of_one_process(
    home: Path, tmp_path: Path, method: str, stage: str
) -> None:
    alone = work(tmp_path, *STILL, f"method={method}")
    train(alone)
    expected, found = tensors(alone.run), tensors(Run(home / f"{method}-{stage}"))
    assert expected.keys() == found.keys()
    apart = sum((found[name] - expected[name]).square().sum() for name in expected)
    size = sum(expected[name].square().sum() for name in expected)
    assert apart**0.5 < 1e-5 * size**0.5


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_training_resumes_to_the_same_bytes(home: Path, stage: str) -> None:
    killed = Run(home / f"killed-{stage}")
    assert weights(killed) == weights(Run(home / f"whole-{stage}"))
    assert [e.data["step"] for e in events(killed, "train.resumed")] == [2]


@pytest.mark.parametrize("stage", STAGES)
def test_an_adapter_stays_fp32_whatever_the_products_are(home: Path, stage: str) -> None:
    found = tensors(Run(home / f"bf16-{stage}"))
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_without_the_package_the_next_step_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    team = Team(0, 2, "deepspeed")
    with pytest.raises(TrainingError, match=r"weitiao\[deepspeed"):
        begin(work(tmp_path, plan={"strategy": "deepspeed"}, team=team))

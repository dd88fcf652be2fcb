"""Trackers: what they are given, and that none of them stops a training."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from weitiao.errors import RecipeError
from weitiao.events import Event, EventLog
from weitiao.training.trackers import require_trackers, tracked

CONFIG = {"method": "lora", "lora": {"rank": 8, "targets": ("q", "v"), "init": None}, "dora": True}


def train(names: list[str], folder: Path, steps: int = 3) -> list[Event]:
    """Go through a training that is told to ``names``; return what the run's log was told."""
    told: list[Event] = []
    log = EventLog(None, (told.append,))
    with tracked(names, "tea", folder, CONFIG, log) as listeners:
        events = EventLog(None, (told.append, *listeners))
        events.emit("train.start", steps=steps)
        for step in range(1, steps + 1):
            events.emit("train.step", step=step, steps=steps, loss=1 / step, epoch=step / 2)
        events.emit("train.eval", step=steps, loss=0.25, best=True, best_loss=None)
    return told


@pytest.fixture
def tensorboard() -> Any:
    return pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_tensorboard_shows_steps_evaluations_and_settings(tmp_path: Path, tensorboard: Any) -> None:
    told = train(["tensorboard"], tmp_path)
    assert "train.tracker_failed" not in {event.kind for event in told}
    home = tmp_path / "tensorboard" / "tea"
    shown = tensorboard.EventAccumulator(str(home))
    shown.Reload()
    assert shown.Tags()["scalars"] == ["train/loss", "train/epoch", "eval/loss"]
    losses = [(point.step, point.value) for point in shown.Scalars("train/loss")]
    assert losses == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [(p.step, p.value) for p in shown.Scalars("eval/loss")] == [(3, 0.25)]
    (settings,) = home.glob("*/hparams.yml")
    assert settings.read_text().splitlines() == [
        "dora: true", "lora.rank: 8", "lora.targets: ('q', 'v')", "method: lora",
    ]  # fmt: skip


def failures(told: list[Event]) -> list[dict[str, Any]]:
    return [dict(event.data) for event in told if event.kind == "train.tracker_failed"]


def test_one_that_fails_in_mid_run_is_told_once_and_dropped(
    tmp_path: Path, tensorboard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    asked: list[int] = []

    def no_network(self: Any, name: str, value: float, global_step: int) -> None:
        asked.append(global_step)
        if global_step == 2:
            raise ConnectionError("no network\nand a trace")

    monkeypatch.setattr(SummaryWriter, "add_scalar", no_network)
    told = train(["tensorboard"], tmp_path, steps=4)
    assert failures(told) == [{"tracker": "tensorboard", "cause": "no network"}]
    assert max(asked) == 2
    assert [event.data["step"] for event in told if event.kind == "train.step"] == [1, 2, 3, 4]


def test_one_that_cannot_begin_is_told_and_the_training_goes_on(
    tmp_path: Path, tensorboard: Any
) -> None:
    (tmp_path / "tensorboard").write_text("a file where its folder would be")
    told = train(["tensorboard"], tmp_path)
    assert [failure["tracker"] for failure in failures(told)] == ["tensorboard"]
    assert told[-1].kind == "train.eval"


def test_what_stops_the_training_passes_through(tmp_path: Path, tensorboard: Any) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        tracked(["tensorboard"], "tea", tmp_path, CONFIG, EventLog()) as (listener,),
    ):
        raise KeyboardInterrupt
    assert listener._tracker.writer.all_writers is None, "it is closed"


@pytest.mark.skipif(find_spec("swanlab") is not None, reason="swanlab is installed")
def test_one_that_is_not_installed_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="pip install swanlab") as told:
        require_trackers(["swanlab"])
    assert "pip install swanlab" in told.value.sentence("zh")
    with pytest.raises(RecipeError, match="swanlab"):
        train(["swanlab"], tmp_path)
    (tmp_path / "swanlab").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match="swanlab"):
        require_trackers(["swanlab"])


def test_without_trackers_nothing_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert failures(train([], tmp_path)) == []
    assert not list(tmp_path.iterdir())

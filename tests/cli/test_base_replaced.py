"""Other weights in the base's folder: no door puts what was trained on them, or goes on there."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from conftest import QUICK, Weitiao, break_off, one_sentence
from weitiao import api


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def replace_base(base: Path) -> None:
    """Put other weights of the same shape into the folder; done twice, the old ones are there."""
    file = base / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.0.mlp.up_proj.weight"] *= -1
    save_file(weights, file, metadata={"format": "pt"})


DOORS = {
    "chat": ("chat", "tea"),
    "eval": ("eval", "tea"),
    "export": ("export", "tea", "--to", "adapter"),
    "serve": ("serve", "tea", "--port", "0"),
}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_is_not_used_with_other_weights(
    weitiao: Weitiao, data: Path, base: Path, method: str
) -> None:
    line = ("train", data, "--model", base, f"method={method}", *QUICK)
    assert weitiao(*line).code == 0
    replace_base(base)
    for door in DOORS.values():
        said = one_sentence(weitiao(*door))
        assert "runs/tea" in said, door
        assert str(base) in said, door
        assert "other weights" in said, door
    # In its own folder nothing was changed: the old weights are all that is needed.
    replace_base(base)
    assert weitiao("eval", "tea").code == 0


def test_an_adapter_of_a_run_knows_its_base(weitiao: Weitiao, data: Path, base: Path) -> None:
    assert weitiao("train", data, "--model", base, *QUICK).code == 0
    replace_base(base)
    assert weitiao("train", data, "--model", base, "--out", "second", *QUICK).code == 0
    said = weitiao("serve", "second", "--adapter", "first=runs/tea/adapter", "--port", "0")
    assert "another model" in one_sentence(said)
    assert "another model" in one_sentence(weitiao("serve", "runs/tea/adapter", "--port", "0"))


def test_a_training_does_not_go_on_with_other_weights(
    weitiao: Weitiao, data: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(monkeypatch, weitiao, 3, "train", data, "--model", base, *QUICK)
    replace_base(base)
    said = one_sentence(weitiao("train", "tea", "--resume"))
    assert "runs/tea" in said
    assert str(base) in said
    replace_base(base)
    assert weitiao("train", "tea", "--resume").code == 0


def test_a_run_that_noted_no_base_goes_on_and_notes_it(
    weitiao: Weitiao, data: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(monkeypatch, weitiao, 3, "train", data, "--model", base, *QUICK)
    run = api.open_run("tea")
    noted = run.base.read_text()
    run.base.unlink()
    assert weitiao("train", "tea", "--resume").code == 0
    assert run.base.read_text() == noted
    run.base.unlink()
    replace_base(base)
    api.chat(run)  # nobody can tell

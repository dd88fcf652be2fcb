"""What people get wrong, and what goes wrong: one sentence, a non-zero exit, nothing lost."""

import errno
import hashlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from conftest import QUICK, Weitiao, one_sentence
from weitiao import cli
from weitiao.events import EventLog


def contents(folder: Path) -> dict[str, str]:
    """Return path → hash of everything in ``folder``."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_missing_file(weitiao: Weitiao, data: Path) -> None:
    assert "There is no file nowhere.json" in one_sentence(weitiao("run", "nowhere.json"))
    assert "tea.jsonl" in one_sentence(weitiao("run", data.parent / "teas.jsonl"))
    assert "neither a data file nor a run" in one_sentence(weitiao("train", "nowhere"))
    assert not (data.parent / "runs").exists()


def test_an_empty_file(weitiao: Weitiao, tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "empty.json").write_bytes(b"")
    said = weitiao("run", "empty.json", "--model", tiny_base)
    assert "empty.json is empty" in one_sentence(said)
    assert not list((tmp_path / "runs").iterdir()), "no run is left without data"


def test_a_folder_without_data(weitiao: Weitiao, tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "pictures").mkdir()
    said = weitiao("run", "pictures", "--model", tiny_base)
    assert ".jsonl" in one_sentence(said)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "near"),
    [("deepseek-llm-1.5b", "deepseek-llm-7b-chat"), ("./no/such/folder", "./no/such/folder")],
)
def test_a_wrong_model(weitiao: Weitiao, data: Path, name: str, near: str) -> None:
    assert near in one_sentence(weitiao("run", data, "--model", name))
    assert not (data.parent / "runs").exists(), "found out before a directory was made"


def test_an_unknown_key(weitiao: Weitiao, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("train:\n  epochs: 2\n  lora:\n    alpah: 32\n", encoding="utf-8")
    told = one_sentence(weitiao("run", data, "--recipe", recipe))
    assert "mine.yaml:4:5" in told
    assert "did you mean alpha?" in told
    assert "epochs" in one_sentence(weitiao("run", data, "epoch=2"))


def test_a_value_of_the_wrong_type(weitiao: Weitiao, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("train:\n  epochs: many\n", encoding="utf-8")
    told = one_sentence(weitiao("run", data, "--recipe", recipe))
    assert "mine.yaml:2:11" in told
    assert "a whole number" in told
    assert "key=value" in one_sentence(weitiao("run", data, "three-epochs"))


def test_a_model_without_a_chat_template(
    weitiao: Weitiao, data: Path, tiny_base: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(tiny_base, plain)
    (plain / "chat_template.jinja").unlink()
    assert "no chat template" in one_sentence(weitiao("run", data, "--model", plain))
    assert not list((tmp_path / "runs").iterdir())


def test_a_run_that_exists(weitiao: Weitiao, data: Path, tiny_base: Path, tmp_path: Path) -> None:
    asked = ("plan", data, "--model", tiny_base, "--out", "mine", *QUICK)
    assert weitiao(*asked).code == 0
    before = contents(tmp_path / "mine")
    told = one_sentence(weitiao(*asked))
    assert "--resume" in told
    assert "--overwrite" in told
    assert contents(tmp_path / "mine") == before
    assert weitiao(*asked, "--resume").code == 0
    assert contents(tmp_path / "mine") == before
    assert "train.max_steps" in one_sentence(weitiao(*asked, "max_steps=5", "--resume"))
    assert weitiao(*asked, "--overwrite").code == 0
    assert contents(tmp_path / "mine.old-1") == before
    assert "one of the two" in one_sentence(weitiao(*asked, "--overwrite", "--resume"))
    assert "mine is a run" in one_sentence(weitiao("train", "mine", "--overwrite"))
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "today.txt").write_text("dear", encoding="utf-8")
    other = weitiao("run", data, "--model", tiny_base, "--out", "diary", "--overwrite")
    assert "not a run of weitiao" in one_sentence(other)


def test_a_run_that_is_not_trained(weitiao: Weitiao, data: Path, tiny_base: Path) -> None:
    weitiao("data", "split", data, "--model", tiny_base, *QUICK)
    assert "weitiao train runs/tea" in one_sentence(weitiao("chat", "tea"))
    assert "did you mean tea?" in one_sentence(weitiao("chat", "tee"))


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("rnu data.json", "did you mean run"),
        ("run data.json --modle x", "did you mean --model"),
        ("run", "DATA|RUN is missing"),
        ("run data.json --model", "--model has no value"),
        ("runs here", "does not know what to do with: here"),
        ("data", "check, split, show"),
        ("data chekc", "did you mean check"),
        ("--lang fr runs", "en or zh"),
    ],
)
def test_a_line_that_cannot_be_understood(weitiao: Weitiao, line: str, part: str) -> None:
    told = one_sentence(weitiao(*line.split()))
    assert part in told


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_rust(*_: object, **__: object) -> None:
    from safetensors import SafetensorError

    raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")


def no_space_for(kind: str) -> Any:
    emit = EventLog.emit

    def refuse(self: EventLog, what: str, **values: Any) -> None:
        if what == kind:
            no_space()
        emit(self, what, **values)

    return refuse


@pytest.mark.parametrize(
    ("place", "refuse"),
    [
        ("os.fsync", no_space),
        ("weitiao.events.EventLog.emit", no_space_for("train.step")),
        ("weitiao.training.checkpoint.save_file", no_space_in_rust),
        ("weitiao.training.checkpoint.save_file", no_space),
        ("weitiao.evaluation.evaluate.write_atomic", no_space),
        ("weitiao.evaluation.report.write.write_atomic", no_space),
    ],
)
def test_a_full_disk(
    weitiao: Weitiao, data: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch,
    place: str, refuse: Any, finished: Path,
) -> None:  # fmt: skip
    asked = ("run", data, "--model", tiny_base, *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(place, refuse)
        assert "disk is full" in one_sentence(weitiao(*asked))
    again = weitiao(*asked, "--resume")
    assert again.code == 0, again.err
    adapter = Path("runs/tea/adapter/adapter_model.safetensors")
    assert (data.parent / adapter).read_bytes() == (finished / adapter).read_bytes()


def test_a_fault_of_ours_is_owned_up_to(
    weitiao: Weitiao, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("this cannot happen")

    monkeypatch.setattr("weitiao.api.runs", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = weitiao("runs")
    assert said.code == cli.DEFECT
    assert "this cannot happen" in said.err
    assert "Traceback" not in said.err
    (trace,) = tmp_path.glob("weitiao-*.txt")
    assert "in broken" in trace.read_text(encoding="utf-8")
    monkeypatch.setenv("WEITIAO_DEBUG", "1")
    assert "Traceback" in weitiao("runs").err


def test_ctrl_c_and_sigterm_are_one_sentence(
    weitiao: Weitiao, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        monkeypatch.setattr("weitiao.api.runs", lambda _, n=number: os.kill(os.getpid(), n))
        said = weitiao("runs")
        assert said.code == code
        assert "--resume" in one_sentence(said)

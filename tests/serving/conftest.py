"""A stand-in for vLLM in an environment of its own, and engines that start it."""

import json
import shutil
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving import vllm_stand_in
from serving.vllm_use import VERSION
from weitiao.serving.vllm import VllmEngine, VllmOptions
from weitiao.serving.vllm_process import find_vllm


@pytest.fixture(scope="session")
def vllm_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with a vLLM in it."""
    folder = tmp_path_factory.mktemp("vllm-env")
    venv.create(folder)
    [packages] = folder.glob("lib/python*/site-packages")
    cli = packages / "vllm" / "entrypoints" / "cli"
    cli.mkdir(parents=True)
    (packages / "vllm" / "__init__.py").write_text(
        f'print("INFO: hello")\n__version__ = "{VERSION}"'
    )
    shutil.copy(vllm_stand_in.__file__, cli / "main.py")
    return folder


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Any]]:
    """What the stand-in was told under a name, in order."""
    path = tmp_path / "told.jsonl"
    monkeypatch.setenv("STAND_IN", str(path))

    def read(name: str) -> list[Any]:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [row[name] for row in map(json.loads, lines) if name in row]

    return read


@pytest.fixture
def make(vllm_environment: Path, tmp_path: Path, told: object) -> Callable[..., VllmEngine]:
    model = tmp_path / "model"
    model.mkdir()

    def made(models: dict[str, Path | None] | None = None, **options: Any) -> VllmEngine:
        python = find_vllm(vllm_environment)
        assert python is not None
        return VllmEngine(
            python, model, models or {"tuned": None}, 128, tmp_path / "run" / "vllm.log",
            VllmOptions(**options),
        )  # fmt: skip

    return made

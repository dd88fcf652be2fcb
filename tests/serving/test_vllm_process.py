"""vLLM as a process: started, watched, ended and found, by a stand-in for it."""

import asyncio
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import psutil
import pytest

import weitiao
from serving import vllm_stand_in as stand_in
from serving.vllm_use import VERSION, all_of, ask, gone, ids_of, run
from serving.waiting import until
from weitiao.errors import ModelError
from weitiao.serving.engine import EngineError
from weitiao.serving.vllm import VllmEngine
from weitiao.serving.vllm_process import check_vllm, find_vllm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM runs on Linux")


def test_it_is_started_again_when_it_dies(make: Any, told: Any, tmp_path: Path) -> None:
    silent = tmp_path / "model" / "silent"

    async def use(engine: VllmEngine) -> None:
        beside = asyncio.create_task(all_of(engine, ask(5, stand_in.WAITS)))
        await until(lambda: engine.load().running)
        silent.touch()  # it is not to be back before it was asked
        with pytest.raises(EngineError, match=r"middle of the answer.*vllm\.log"):
            await all_of(engine, ask(5, stand_in.DIES))
        with pytest.raises(EngineError, match="middle of the answer"):
            await beside
        await until(lambda: engine._server is None)
        with pytest.raises(EngineError, match="started again"):
            await all_of(engine, ask(5))
        silent.unlink()
        await until(lambda: engine._server is not None)
        assert ids_of(await all_of(engine, ask(5))) == [5] * 4
        first, second = told("worker")
        assert gone(first)
        assert not gone(second)

    run(make(), use)
    assert gone(*told("pid"), *told("worker"))


def test_it_is_not_started_again_for_ever(make: Any, told: Any, tmp_path: Path) -> None:
    async def use(engine: VllmEngine) -> None:
        # From now on it does not come up any more.
        (tmp_path / "model" / "broken").touch()
        with pytest.raises(EngineError):
            await all_of(engine, ask(stand_in.DIES))
        await until(lambda: engine._gave_up)
        with pytest.raises(EngineError, match="ended too often"):
            await all_of(engine, ask(5))

    run(make(restarts=2), use)
    assert len(told("pid")) == 3


def test_closing_ends_everything(make: Any, told: Any, tmp_path: Path) -> None:
    async def use(engine: VllmEngine) -> None:
        running = asyncio.create_task(all_of(engine, ask(5, stand_in.WAITS)))
        await until(lambda: engine.load().running)
        await engine.close()
        with pytest.raises(EngineError):
            await running
        with pytest.raises(EngineError):
            await all_of(engine, ask(5))

    run(make(), use)
    [given] = told("arguments")
    assert gone(*told("pid"), *told("worker"))
    assert not Path(given[-1]).parent.exists()
    assert "startup complete" in (tmp_path / "run" / "vllm.log").read_text()


def test_nobody_else_can_reach_it(make: Any, told: Any) -> None:
    async def use(_: VllmEngine) -> None:
        [given] = told("arguments")
        assert given[-2] == "--uds"
        assert Path(given[-1]).parent.stat().st_mode & 0o077 == 0
        [pid] = told("pid")
        assert psutil.Process(pid).net_connections("inet") == []

    run(make(), use)


def test_it_ends_when_we_are_killed(
    vllm_environment: Path, told: Any, tmp_path: Path, make: Any
) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from weitiao.serving.vllm import VllmEngine\n"
        "python, model, log = map(pathlib.Path, sys.argv[1:])\n"
        "async def main():\n"
        "    await VllmEngine(python, model, {'tuned': None}, 128, log).start()\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    source = Path(weitiao.__file__).parents[1]
    ours = subprocess.Popen(
        [
            *(sys.executable, "-c", script, vllm_environment / "bin" / "python"),
            *(tmp_path / "model", tmp_path / "vllm.log"),
        ],
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    try:
        log = tmp_path / "vllm.log"
        asyncio.run(until(lambda: log.exists() and "complete" in log.read_text()))
    finally:
        ours.send_signal(signal.SIGKILL)
        ours.wait()
    pids = (*told("pid"), *told("worker"))
    assert len(pids) == 2
    asyncio.run(until(lambda: gone(*pids)))


def test_a_worker_does_not_outlive_a_command_that_ignores_to_be_asked(tmp_path: Path) -> None:
    folder, pids = tmp_path / "folder", tmp_path / "pids"
    folder.mkdir()
    stubborn = f"trap '' TERM; sleep 600 & echo $$ $! > {pids}; wait; sleep 600"
    started = (
        "import sys, weitiao.serving.vllm_guard as guard\n"
        "guard.GRACE = 0.2\n"
        "sys.exit(guard.guard(sys.argv[1], sys.argv[2:]))\n"
    )
    guard = subprocess.Popen(
        [sys.executable, "-c", started, folder, "sh", "-c", stubborn],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(weitiao.__file__).parents[1])},
    )
    asyncio.run(until(lambda: pids.exists() and pids.read_text().strip()))
    assert guard.stdin is not None
    guard.stdin.close()
    assert guard.wait(100) == 128 + signal.SIGKILL
    assert gone(*map(int, pids.read_text().split()))
    assert not folder.exists()


def _with_old_log(folder: Path, model: str) -> Path:
    """Let the stand-in's model be ``model``, beside the log of an earlier start."""
    (folder / "model" / model).touch()
    log = folder / "run" / "vllm.log"
    log.parent.mkdir()
    log.write_text("KeyError: of another day\n")
    return log


def test_a_start_that_fails_says_why(make: Any, told: Any, tmp_path: Path) -> None:
    log = _with_old_log(tmp_path, "broken")
    with pytest.raises(ModelError) as raised:
        asyncio.run(make().start())
    assert raised.value.key == "error.vllm_ended"
    assert raised.value.values["cause"] == "ValueError: Free memory on"
    assert raised.value.values["code"] == 1
    assert str(log) in str(raised.value)
    assert log.read_text().startswith("KeyError: of another day\n")
    assert gone(*told("pid"), *told("worker"))


def test_a_flag_that_its_vllm_does_not_know_is_told(make: Any) -> None:
    with pytest.raises(ModelError, match="invalid choice: 'fp4'"):
        asyncio.run(make(dtype="fp4").start())


def test_a_start_that_takes_too_long_is_ended(make: Any, told: Any, tmp_path: Path) -> None:
    _with_old_log(tmp_path, "silent")
    with pytest.raises(ModelError) as raised:
        asyncio.run(make(start_seconds=2).start())
    assert raised.value.key == "error.vllm_slow"
    assert raised.value.values["cause"] == "…"
    assert gone(*told("pid"), *told("worker"))


def test_nothing_of_ours_leaks_into_it(
    make: Any, told: Any, vllm_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "vllm.py").write_text("raise ValueError('the wrong vLLM')")
    monkeypatch.chdir(trap)
    ours = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", f"{ours}:/usr/bin:/bin")
    leaks = ("PYTHONPATH", "PYTHONHOME_", "VIRTUAL_ENV", "VLLM_API_KEY", "WEITIAO_API_KEY")
    for name in leaks:
        monkeypatch.setenv(name, str(trap))

    async def use(engine: VllmEngine) -> None:
        assert ids_of(await all_of(engine, ask(5))) == [5] * 4

    run(make(), use)
    [theirs], [path] = told("environment"), told("path")
    assert not {*leaks} & {*theirs}
    assert theirs["PATH"] == f"{vllm_environment}/bin:/usr/bin:/bin"
    assert theirs["VLLM_NO_USAGE_STATS"] == "1"
    assert not any(place.startswith((str(trap), sys.prefix + "/")) for place in path)


def test_the_environment_is_found(
    vllm_environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = vllm_environment / "bin" / "python"
    monkeypatch.delenv("WEITIAO_VLLM", raising=False)
    assert find_vllm() is None
    assert find_vllm(vllm_environment) == find_vllm(python) == python
    monkeypatch.setenv("WEITIAO_VLLM", str(vllm_environment))
    assert find_vllm() == python
    # What is said on the command line comes first.
    with pytest.raises(ModelError) as raised:
        find_vllm(tmp_path)
    assert raised.value.key == "error.vllm_not_found"


def test_an_environment_without_vllm(tmp_path: Path) -> None:
    venv.create(tmp_path / "empty")
    with pytest.raises(ModelError, match=r"No module named 'vllm'.*-m pip install vllm"):
        check_vllm(tmp_path / "empty" / "bin" / "python")
    not_a_program = tmp_path / "text"
    not_a_program.write_text("\0")
    not_a_program.chmod(0o755)
    with pytest.raises(ModelError) as raised:
        check_vllm(not_a_program)
    assert raised.value.key == "error.vllm_missing"


@pytest.mark.parametrize("version", ["0.9.2", "0.11.0rc1", "0.2.dev3"])
def test_a_vllm_that_is_too_old(tmp_path: Path, version: str) -> None:
    venv.create(tmp_path / "old")
    [packages] = (tmp_path / "old").glob("lib/python*/site-packages")
    (packages / "vllm.py").write_text(f"__version__ = '{version}'")
    with pytest.raises(ModelError) as raised:
        check_vllm(tmp_path / "old" / "bin" / "python")
    assert raised.value.values["version"] == version
    assert "0.12" in str(raised.value)


def test_the_version_is_read(vllm_environment: Path) -> None:
    assert check_vllm(vllm_environment / "bin" / "python") == VERSION

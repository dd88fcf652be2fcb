"""vLLM as a process, by a stand-in that is started and asked as the real one is."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest
import vllm_stand_in as stand_in

import weitiao
from weitiao.errors import ModelError
from weitiao.serving.engine import Ask, EngineError, Load, Logprob, Sampling, Step
from weitiao.serving.vllm import VllmEngine, VllmOptions
from weitiao.serving.vllm_process import check_vllm, find_vllm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM runs on Linux")

VERSION = "0.30.0"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with a vLLM in it."""
    folder = tmp_path_factory.mktemp("vllm-env")
    venv.create(folder)
    [packages] = folder.glob("lib/python*/site-packages")
    cli = packages / "vllm" / "entrypoints" / "cli"
    cli.mkdir(parents=True)
    (packages / "vllm" / "__init__.py").write_text(
        f'print("INFO: hello")\n__version__ = "{VERSION}"'
    )
    shutil.copy(stand_in.__file__, cli / "main.py")
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
def make(environment: Path, tmp_path: Path, told: object) -> Callable[..., VllmEngine]:
    model = tmp_path / "model"
    model.mkdir()

    def made(models: dict[str, Path | None] | None = None, **options: Any) -> VllmEngine:
        python = find_vllm(environment)
        assert python is not None
        return VllmEngine(
            python, model, models or {"tuned": None}, 128, tmp_path / "run" / "vllm.log",
            VllmOptions(**options),
        )  # fmt: skip

    return made


def run(engine: VllmEngine, use: Callable[[VllmEngine], Awaitable[None]]) -> None:
    """Start the engine, use it and end it, within a time that no test needs."""

    async def whole() -> None:
        await engine.start()
        await use(engine)

    async def bounded() -> None:
        try:
            await asyncio.wait_for(whole(), 60)
        finally:
            await engine.close()

    asyncio.run(bounded())


def ask(*ids: int, model: str = "tuned", stop: tuple[int, ...] = (9,), **sampling: Any) -> Ask:
    return Ask(model, ids, Sampling(**{"max_new_tokens": 4, **sampling}), stop)


async def all_of(engine: VllmEngine, question: Ask) -> list[Step]:
    return [step async for step in engine.stream(question)]


def ids_of(steps: list[Step]) -> list[int]:
    return [token for step in steps for token in step.ids]


async def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.02)


def gone(*pids: int) -> bool:
    alive = (psutil.Process(pid) for pid in pids if psutil.pid_exists(pid))
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def adapter(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    whole = {"peft_type": "LORA", "r": 8, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(whole))
    return folder


def test_token_ids_go_in_and_come_out(make: Any, told: Any) -> None:
    async def use(engine: VllmEngine) -> None:
        steps = await all_of(engine, ask(5, 6, 7, seed=3, temperature=0.7, top_p=0.9))
        assert ids_of(steps) == [5, 6, 7, 5]
        assert [step.finish for step in steps] == [None, None, None, "length"]
        assert (engine.version, engine.load()) == (VERSION, Load(0, 0))

    run(make(), use)
    assert told("asked") == [
        {
            "model": "base", "prompt": [5, 6, 7], "stream": True, "max_tokens": 4,
            "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.0, "seed": 3,
            "logprobs": None, "stop_token_ids": [9], "ignore_eos": True,
            "skip_special_tokens": False, "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
    ]  # fmt: skip


def test_only_the_stop_ids_end_an_answer_and_are_not_in_it(make: Any) -> None:
    async def use(engine: VllmEngine) -> None:
        steps = await all_of(engine, ask(5, stand_in.EOS, 9, 5))
        assert ids_of(steps) == [5, stand_in.EOS]
        assert steps[-1] == Step((), "stop")
        # The last token that fits is the stop token: the model ended, it was not cut off.
        steps = await all_of(engine, ask(5, 6, 7, 9))
        assert (ids_of(steps), steps[-1].finish) == ([5, 6, 7], "stop")

    run(make(), use)


@pytest.mark.parametrize(
    ("count", "top"), [(0, ()), (1, ((6, -0.25),)), (2, ((6, -0.25), (5, -0.5)))]
)
def test_logprobs_are_told_likeliest_first(make: Any, count: int, top: Any) -> None:
    async def use(engine: VllmEngine) -> None:
        steps = await all_of(engine, ask(5, 9, logprobs=count))
        assert [step.logprobs for step in steps] == [(Logprob(5, -0.5, top),), ()]

    run(make(), use)


def test_adapters_are_served_by_their_names(make: Any, told: Any, tmp_path: Path) -> None:
    folders = {
        "my = tuned, model": adapter(tmp_path / "a=b,c"),
        "base": None,
        "--other": adapter(tmp_path / "other", r=33),
    }

    async def use(engine: VllmEngine) -> None:
        assert engine.models == ("my = tuned, model", "base", "--other")
        answers = await asyncio.gather(
            *(all_of(engine, ask(10, model=name, max_new_tokens=1)) for name in engine.models)
        )
        assert [ids_of(answer) for answer in answers] == [[18], [10], [43]]

    run(make(folders), use)
    [given] = told("arguments")
    after = {flag: given[given.index(flag) + 1] for flag in given if flag.startswith("--")}
    assert (after["--max-lora-rank"], after["--max-loras"]) == ("64", "2")
    assert (after["--max-model-len"], after["--generation-config"]) == ("128", "vllm")


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True}, {"bias": "all"}, {"modules_to_save": ["lm_head"]},
        {"peft_type": "IA3", "r": None}, {"r": 1024}, {"rank_pattern": {"q_proj": 4}},
    ],
)  # fmt: skip
def test_an_adapter_that_vllm_cannot_serve(make: Any, tmp_path: Path, config: Any) -> None:
    engine = make({"tuned": adapter(tmp_path / "adapter", **config)})
    with pytest.raises(ModelError) as raised:
        asyncio.run(engine.start())
    assert raised.value.key == "error.vllm_adapter"


def test_a_folder_without_an_adapter(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        asyncio.run(make({"tuned": tmp_path / "none"}).start())
    assert raised.value.key == "error.adapter_missing"


def test_many_at_once_each_get_their_own(make: Any) -> None:
    async def use(engine: VllmEngine) -> None:
        answers = await asyncio.gather(*(all_of(engine, ask(n, n + 1)) for n in range(10, 160)))
        assert [ids_of(one) for one in answers] == [[n, n + 1] * 2 for n in range(10, 160)]
        assert engine.load() == Load(0, 0)

    run(make(), use)


def test_a_request_that_is_closed_is_taken_out(make: Any, told: Any) -> None:
    async def use(engine: VllmEngine) -> None:
        async with aclosing(engine.stream(ask(5, 6, max_new_tokens=120))) as steps:
            async for _ in steps:
                assert engine.load() == Load(1, 0)
                break
        assert engine.load() == Load(0, 0)
        await until(lambda: told("aborted") == [[5, 6]])
        task = asyncio.create_task(all_of(engine, ask(7, 8, max_new_tokens=120)))
        await until(lambda: engine.load().running)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: told("aborted") == [[5, 6], [7, 8]])

    run(make(), use)


def test_what_vllm_refuses_is_an_error(make: Any) -> None:
    async def use(engine: VllmEngine) -> None:
        with pytest.raises(EngineError, match=r"400.*maximum context length is 128"):
            await all_of(engine, ask(5, max_new_tokens=500))
        with pytest.raises(EngineError, match=r"500.*the engine has died"):
            await all_of(engine, ask(5, stand_in.REFUSES_LATE))
        with pytest.raises(EngineError, match="middle of the answer"):
            await all_of(engine, ask(5, stand_in.CUTS))
        with pytest.raises(EngineError, match=r"without token ids.*0\.12"):
            await all_of(engine, ask(5, stand_in.TEXT_ONLY))
        assert ids_of(await all_of(engine, ask(5))) == [5] * 4

    run(make(), use)


def test_it_is_started_again_when_it_dies(make: Any, told: Any) -> None:
    async def use(engine: VllmEngine) -> None:
        beside = asyncio.create_task(all_of(engine, ask(5, max_new_tokens=120)))
        await until(lambda: engine.load().running)
        with pytest.raises(EngineError, match=r"middle of the answer.*vllm\.log"):
            await all_of(engine, ask(5, stand_in.DIES))
        with pytest.raises(EngineError, match="middle of the answer"):
            await beside
        await until(lambda: engine._server is None)
        with pytest.raises(EngineError, match="started again"):
            await all_of(engine, ask(5))
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
        running = asyncio.create_task(all_of(engine, ask(5, max_new_tokens=120)))
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
    environment: Path, told: Any, tmp_path: Path, make: Any
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
            *(sys.executable, "-c", script, environment / "bin" / "python"),
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
    assert guard.wait(20) == 128 + signal.SIGKILL
    assert gone(*map(int, pids.read_text().split()))
    assert not folder.exists()


def test_a_start_that_fails_says_why(make: Any, told: Any, tmp_path: Path) -> None:
    (tmp_path / "model" / "broken").touch()
    log = tmp_path / "run" / "vllm.log"
    log.parent.mkdir()
    log.write_text("KeyError: of another day\n")
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
    (tmp_path / "model" / "silent").touch()
    log = tmp_path / "run" / "vllm.log"
    log.parent.mkdir()
    log.write_text("KeyError: of another day\n")
    with pytest.raises(ModelError) as raised:
        asyncio.run(make(start_seconds=2).start())
    assert raised.value.key == "error.vllm_slow"
    assert raised.value.values["cause"] == "…"
    assert gone(*told("pid"), *told("worker"))


def test_nothing_of_ours_leaks_into_it(
    make: Any, told: Any, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert theirs["PATH"] == f"{environment}/bin:/usr/bin:/bin"
    assert theirs["VLLM_NO_USAGE_STATS"] == "1"
    assert not any(place.startswith((str(trap), sys.prefix + "/")) for place in path)


def test_the_environment_is_found(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment / "bin" / "python"
    monkeypatch.delenv("WEITIAO_VLLM", raising=False)
    assert find_vllm() is None
    assert find_vllm(environment) == find_vllm(python) == python
    monkeypatch.setenv("WEITIAO_VLLM", str(environment))
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


def test_the_version_is_read(environment: Path) -> None:
    assert check_vllm(environment / "bin" / "python") == VERSION

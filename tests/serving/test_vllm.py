"""vLLM as an engine, by a stand-in that is asked as the real one is."""

import asyncio
import json
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from serving import vllm_stand_in as stand_in
from serving.vllm_use import VERSION, all_of, ask, ids_of, run
from serving.waiting import until
from weitiao.errors import ModelError
from weitiao.serving.engine import EngineError, Load, Logprob, Step
from weitiao.serving.vllm import VllmEngine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="vLLM runs on Linux")


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
        async with aclosing(engine.stream(ask(5, stand_in.WAITS))) as steps:
            async for _ in steps:
                assert engine.load() == Load(1, 0)
                break
        assert engine.load() == Load(0, 0)
        await until(lambda: told("aborted") == [[5, stand_in.WAITS]])
        task = asyncio.create_task(all_of(engine, ask(7, stand_in.WAITS)))
        await until(lambda: engine.load() == Load(1, 0))
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: told("aborted") == [[5, stand_in.WAITS], [7, stand_in.WAITS]])

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

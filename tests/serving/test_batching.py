"""The transformers engine: many requests at once, against each of them alone."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

from serving.waiting import until
from tiny import tiny_model
from weitiao.errors import ModelError
from weitiao.models import generate as generating
from weitiao.models.generate import generate
from weitiao.models.load import ModelSource, find_model, load_model
from weitiao.models.pair import Voice
from weitiao.models.voices import load_voices
from weitiao.serving.batching import TransformersEngine
from weitiao.serving.engine import Ask, EngineError, Load, Sampling, Step

PROMPT = tuple(range(40, 60))
CPU = torch.device("cpu")


def lively(seed: int = 1) -> Any:
    """A random model whose answers are not its last token again and again."""
    model = tiny_model(tied=False)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.15)
    return model


def alone(model: Any, ask: Ask) -> list[int]:
    sampling = generating.Sampling(
        max_new_tokens=ask.sampling.max_new_tokens,
        repetition_penalty=ask.sampling.repetition_penalty,
    )
    return generate(model, [ask.ids], sampling, ask.stop_ids, 0)[0].ids


async def steps_of(engine: TransformersEngine, ask: Ask) -> list[Step]:
    return [step async for step in engine.stream(ask)]


async def answer(engine: TransformersEngine, ask: Ask) -> list[int]:
    return [token for step in await steps_of(engine, ask) for token in step.ids]


def ask_for(ids: Any, model: str = "tuned", stop: tuple[int, ...] = (), **sampling: Any) -> Ask:
    return Ask(model, tuple(ids), Sampling(**{"max_new_tokens": 12, **sampling}), stop)


def with_engine(
    use: Callable[[TransformersEngine], Coroutine[Any, Any, None]],
    voices: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Run ``use`` with a started engine, closed whatever happens, in a few minutes at most."""
    models = {"tuned": lively()} if voices is None else voices
    load = {k: v if isinstance(v, Voice) else Voice(v) for k, v in models.items()}

    async def whole() -> None:
        engine = TransformersEngine(lambda: load, context=options.pop("context", 128), **options)
        try:
            await engine.start()
            await use(engine)
        finally:
            await engine.close()
        assert engine.load() == Load(0, 0)

    asyncio.run(asyncio.wait_for(whole(), 300))


@pytest.mark.parametrize("kept", [0, 300])
def test_many_at_random_times_are_answered_as_alone(kept: int) -> None:
    """Each prompt is marked by a token of its own; two models, some requests given up."""
    draw = random.Random(3)
    voices = {"tuned": lively(1), "base": lively(2)}
    asks = []
    for marker in range(5, 35):
        ids = [*PROMPT[: draw.randrange(20)], marker, *draw.choices(range(60, 97), k=marker % 7)]
        new = draw.randrange(1, 25)
        asks.append(ask_for(ids, draw.choice(["tuned", "base"]), (3, 4), max_new_tokens=new))

    # Not while the engine runs: only its thread may use the models.
    expected = [alone(voices[ask.model], ask) for ask in asks]

    async def one(engine: TransformersEngine, number: int, ask: Ask) -> None:
        await asyncio.sleep(0.01 * number * random.Random(number).random())
        if number % 9 == 4:
            stream = engine.stream(ask)
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
            return
        assert await answer(engine, ask) == expected[number]

    async def use(engine: TransformersEngine) -> None:
        assert engine.models == ("tuned", "base")
        await asyncio.gather(*(one(engine, i, ask) for i, ask in enumerate(asks)))

    with_engine(use, voices, max_running=6, kept_tokens=kept)


def test_a_seed_gives_the_same_whoever_runs_beside() -> None:
    chance = {"temperature": 1.3, "top_p": 0.9, "repetition_penalty": 1.2}

    async def use(engine: TransformersEngine) -> None:
        seeded = ask_for(PROMPT, seed=7, **chance)
        first = await answer(engine, seeded)
        others = [ask_for([5, i], seed=i, **chance) for i in range(6)]
        found = await asyncio.gather(*(answer(engine, a) for a in (*others, seeded, *others)))
        assert found[6] == first
        assert found[:6] == found[7:]
        assert await answer(engine, ask_for(PROMPT, seed=8, **chance)) != first
        free = [await answer(engine, ask_for(PROMPT, **chance)) for _ in range(3)]
        assert free[0] != free[1] or free[1] != free[2]

    with_engine(use)


def test_log_probabilities_are_those_of_the_model() -> None:
    model = lively()

    async def use(engine: TransformersEngine) -> None:
        ask = ask_for(PROMPT, temperature=2.0, repetition_penalty=1.5, seed=1, logprobs=3)
        steps, _ = await asyncio.gather(steps_of(engine, ask), answer(engine, ask_for([5])))
        ids = [token for step in steps for token in step.ids]
        told = [logprob for step in steps for logprob in step.logprobs]
        with torch.no_grad():
            logits = model(torch.tensor([[*PROMPT, *ids]])).logits[0, len(PROMPT) - 1 : -1]
        expected = logits.log_softmax(-1)
        assert [x.id for x in told] == ids
        for at, logprob in enumerate(told):
            assert logprob.logprob == pytest.approx(float(expected[at, logprob.id]), abs=1e-4)
            top = expected[at].topk(3)
            assert [i for i, _ in logprob.top] == top.indices.tolist()
            assert [p for _, p in logprob.top] == pytest.approx(top.values.tolist(), abs=1e-4)

    with_engine(use, {"tuned": model})


def test_how_answers_end() -> None:
    async def use(engine: TransformersEngine) -> None:
        whole = await steps_of(engine, ask_for(PROMPT))
        assert [step.finish for step in whole] == [None] * 11 + ["length"]
        ids = [step.ids[0] for step in whole]
        stopped = await steps_of(engine, ask_for(PROMPT, stop=(ids[4],)))
        assert stopped[-1] == Step((), "stop")
        assert [i for step in stopped for i in step.ids] == ids[: ids.index(ids[4])]
        # The context has room for twelve more.
        assert await steps_of(engine, ask_for(PROMPT, max_new_tokens=50)) == whole
        assert await steps_of(engine, ask_for(range(5, 37))) == [Step((), "length")]

    with_engine(use, context=32)


def test_a_token_that_the_model_does_not_know_is_refused_alone() -> None:
    async def use(engine: TransformersEngine) -> None:
        for bad in ((), (5, 97), (5, -1)):
            with pytest.raises(EngineError, match="token"):
                await answer(engine, ask_for(bad))
        assert len(await answer(engine, ask_for([5]))) == 12

    with_engine(use)


def test_who_leaves_makes_room_at_once() -> None:
    async def use(engine: TransformersEngine) -> None:
        endless = engine.stream(ask_for([5], max_new_tokens=10_000))
        await anext(endless)
        waits = asyncio.create_task(answer(engine, ask_for([6])))
        await until(lambda: engine.load() == Load(1, 1))
        await endless.aclose()  # type: ignore[attr-defined]
        assert len(await waits) == 12
        # One that gives up while it waits, or while its prompt is read, is not answered either.
        endless = engine.stream(ask_for([5], max_new_tokens=10_000))
        await anext(endless)
        given_up = asyncio.create_task(answer(engine, ask_for([6] * 3000)))
        await until(lambda: engine.load() == Load(1, 1))
        given_up.cancel()
        await endless.aclose()  # type: ignore[attr-defined]
        await until(lambda: engine.load() == Load(0, 0))
        reading = asyncio.create_task(answer(engine, ask_for([6] * 9000)))
        await until(lambda: engine.load().running or reading.done())
        reading.cancel()
        assert len(await answer(engine, ask_for([7]))) == 12
        assert engine.load() == Load(0, 0)

    with_engine(use, max_running=1, context=20_000)


def test_memory_for_tokens_settles_who_runs() -> None:
    model, at_once = lively(), []
    model.lm_head.register_forward_hook(lambda _m, inputs, _o: at_once.append(len(inputs[0])))

    async def use(engine: TransformersEngine) -> None:
        # 32 tokens each: two together have 64, three would need a block of four.
        await asyncio.gather(*(answer(engine, ask_for(PROMPT)) for _ in range(5)))
        assert max(at_once) == 2
        # One alone is answered whatever it needs.
        assert len(await answer(engine, ask_for(PROMPT, max_new_tokens=80))) == 80

    with_engine(use, {"tuned": model}, block_tokens=100)


class Failing:
    """Makes passes of a layer fail: with ``what``, when ``when`` says so of the inputs' number."""

    def __init__(self, layer: Any, what: Exception, when: Callable[[int], bool]) -> None:
        self.failed = 0
        self._what, self._when = what, when
        layer.register_forward_hook(self)

    def __call__(self, _module: Any, inputs: Any, _output: Any) -> None:
        if self._when(len(inputs[0])):
            self.failed += 1
            raise self._what


def test_a_broken_pass_fails_its_own_requests_only() -> None:
    model, other = lively(1), lively(2)
    failing = Failing(model.lm_head, ValueError("a wire is loose"), lambda _: failing.failed == 0)

    async def use(engine: TransformersEngine) -> None:
        fine = asyncio.create_task(answer(engine, ask_for([5, 6], "base")))
        with pytest.raises(EngineError, match="a wire is loose"):
            await answer(engine, ask_for(PROMPT))
        assert await fine == alone(other, ask_for([5, 6]))
        assert await answer(engine, ask_for(PROMPT)) == alone(model, ask_for(PROMPT))

    with_engine(use, {"tuned": model, "base": other})
    assert failing.failed == 1


@pytest.mark.parametrize("message", ["CUDA out of memory", "DefaultCPUAllocator: can't allocate"])
def test_short_memory_halves_the_batch_and_loses_nothing(message: str) -> None:
    model = lively()
    chance = {"temperature": 1.2, "seed": 5, "max_new_tokens": 30}
    asks = [ask_for([5, i], **(chance if i % 2 else {"max_new_tokens": 30})) for i in range(5, 13)]
    expected: list[list[int]] = []

    async def one_by_one(engine: TransformersEngine) -> None:
        expected.extend([await answer(engine, ask) for ask in asks])

    async def use(engine: TransformersEngine) -> None:
        assert await asyncio.gather(*(answer(engine, ask) for ask in asks)) == expected

    with_engine(one_by_one, {"tuned": model})
    failing = Failing(model.lm_head, RuntimeError(message), lambda rows: rows >= 4)
    with_engine(use, {"tuned": model})
    assert failing.failed > 0


def test_a_request_for_which_memory_never_suffices_is_told() -> None:
    model = lively()
    many = len(PROMPT)
    Failing(model.get_input_embeddings(), torch.OutOfMemoryError(), lambda n: n == many)

    async def use(engine: TransformersEngine) -> None:
        with pytest.raises(EngineError, match="memory"):
            await answer(engine, ask_for(PROMPT))
        assert len(await answer(engine, ask_for([5]))) == 12

    with_engine(use, {"tuned": model})


def test_what_is_not_a_number_is_told_and_harms_nobody() -> None:
    model = lively()
    with torch.no_grad():
        model.get_input_embeddings().weight[96] = float("nan")

    good = ask_for([*PROMPT, 5])
    expected = alone(model, good)

    async def use(engine: TransformersEngine) -> None:
        bad = asyncio.create_task(answer(engine, ask_for([*PROMPT, 96])))
        assert await answer(engine, good) == expected
        with pytest.raises(EngineError, match="not a number"):
            await bad
        assert await answer(engine, good) == expected

    with_engine(use, {"tuned": model})


def test_loading_that_fails_is_told_at_the_start() -> None:
    for cause, told in (
        (ModelError("error.adapter_missing", path="x"), "error.adapter_missing"),
        (MemoryError(), "error.serving_memory"),
    ):

        def load(cause: Exception = cause) -> Mapping[str, Voice]:
            raise cause

        with pytest.raises(ModelError) as raised:
            asyncio.run(TransformersEngine(load, 128).start())
        assert raised.value.key == told


def test_closing_tells_who_still_waits() -> None:
    async def whole() -> None:
        engine = TransformersEngine(lambda: {"tuned": Voice(lively())}, 20_000, max_running=1)
        await engine.start()
        tasks = [
            asyncio.create_task(answer(engine, ask_for([i], max_new_tokens=10_000))) for i in (5, 6)
        ]
        await until(lambda: engine.load() == Load(1, 1))
        await engine.close()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(found, EngineError)
        with pytest.raises(EngineError):
            await answer(engine, ask_for([5]))

    asyncio.run(asyncio.wait_for(whole(), 300))


def saved_adapter(folder: Path, config: Any, seed: int, model: Any) -> Path:
    torch.manual_seed(seed)
    made = get_peft_model(model, config)
    for name, parameter in made.named_parameters():
        if "lora_B" in name or "ia3" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    made.save_pretrained(str(folder))
    return folder


def lora(rank: int = 4) -> LoraConfig:
    return LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")


@pytest.fixture
def base(tmp_path: Path) -> ModelSource:
    lively().save_pretrained(tmp_path / "base")
    return find_model(str(tmp_path / "base"))


def test_several_adapters_on_one_base(base: ModelSource, tmp_path: Path) -> None:
    folders = {
        name: saved_adapter(tmp_path / f"a{seed}", lora(seed), seed, lively())
        for seed, name in ((2, "tea-0.5B"), (3, "poems"))
    }
    voices = load_voices(base, folders, torch.float32, CPU, base="base")
    whole = {
        name: load_voices(base, {name: folder}, torch.float32, CPU)[name].model
        for name, folder in folders.items()
    } | {"base": load_model(base, torch.float32, CPU)}
    asks = [ask_for([*PROMPT, i], name) for name in whole for i in (5, 6)]
    expected = [alone(whole[ask.model], ask) for ask in asks]
    assert len({tuple(e) for e in expected[::2]}) == 3

    async def use(engine: TransformersEngine) -> None:
        assert engine.models == ("tea-0.5B", "poems", "base")
        assert await asyncio.gather(*(answer(engine, ask) for ask in asks)) == expected

    with_engine(use, voices)


def test_adapters_that_do_not_fit_are_refused(base: ModelSource, tmp_path: Path) -> None:
    good = saved_adapter(tmp_path / "good", lora(), 2, lively())
    ia3 = IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    other = saved_adapter(tmp_path / "other", ia3, 2, lively())
    deep = lively()
    deep.model.layers.append(deepcopy(deep.model.layers[0]))
    deeper = saved_adapter(tmp_path / "deeper", lora(), 2, deep)
    for wrong, key in (
        (other, "error.adapters_mixed"),
        (deeper, "error.adapter_other_layers"),
        (tmp_path, "error.adapter_missing"),
    ):
        with pytest.raises(ModelError) as raised:
            load_voices(base, {"good": good, "wrong": wrong}, torch.float32, CPU)
        assert raised.value.key == key


def test_the_embedded_model() -> None:
    """The model that comes with the package, eight prompts at once."""
    model = load_model(find_model("embedded"), torch.float32, CPU)
    asks = [ask_for([*range(300, 300 + 5 * i), 400 + i], max_new_tokens=16) for i in range(8)]
    expected = [alone(model, ask) for ask in asks]

    async def use(engine: TransformersEngine) -> None:
        assert await asyncio.gather(*(answer(engine, ask) for ask in asks)) == expected

    with_engine(use, {"tuned": model}, context=512)

"""OpenVINO's engine, with real OpenVINO: its answers, its processes and what it keeps."""

import asyncio
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from weitiao.errors import ModelError
from weitiao.models.load import find_model
from weitiao.records.render import ChatFormat
from weitiao.serving.engine import Ask, EngineError, Load, Sampling, Step

# Looked for, not imported: imported here it would count its use in the home folder.
if find_spec("openvino_genai") is None or find_spec("gguf") is None:
    pytest.skip("OpenVINO GenAI or gguf is not installed", allow_module_level=True)

from weitiao.export.gguf_file import write_gguf
from weitiao.serving.openvino import OpenVinoEngine

EMBEDDED = Path(find_model("embedded").location)
TOKENIZER = AutoTokenizer.from_pretrained(EMBEDDED)
CONTEXT = 512
QUESTIONS = ("你好", "信用卡丢了怎么办？", "绿茶怎么泡？请说详细一点。", "What is tea?", "写一首诗")
Result = TypeVar("Result")


def gguf_of(folder: Path, out: Path, kind: Any = "f16") -> Path:
    write_gguf(folder, out, kind, ChatFormat(TOKENIZER), "test")
    return out


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_of(EMBEDDED, tmp_path_factory.mktemp("gguf") / "model.gguf")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OpenVINO's form of ``gguf`` is made once for all tests."""
    return tmp_path_factory.mktemp("cache")


@dataclasses.dataclass(frozen=True)
class Served:
    """An engine, and the loop that its processes belong to."""

    engine: OpenVinoEngine
    run: Callable[[Awaitable[Any]], Any]

    def answers(self, *asks: Ask) -> list[list[Step]]:
        async def together() -> list[list[Step]]:
            return await asyncio.gather(*(steps(self.engine, ask) for ask in asks))

        return self.run(together())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def served(gguf: Path, cache: Path) -> Iterator[Served]:
    with asyncio.Runner() as runner:
        engine = OpenVinoEngine({"tuned": gguf}, cache, CONTEXT)
        runner.run(engine.start())
        yield Served(engine, runner.run)  # type: ignore[arg-type]
        runner.run(engine.close())
        assert processes() == []


@pytest.fixture(scope="module")
def model() -> Any:
    """The embedded model in fp32, its matrices rounded as the GGUF file has them."""
    found = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).eval()
    for weight in found.parameters():
        if weight.ndim == 2:
            weight.data = weight.data.half().float()
    return found


async def steps(engine: OpenVinoEngine, ask: Ask) -> list[Step]:
    return [step async for step in engine.stream(ask)]


def ids_of(answer: list[Step]) -> list[int]:
    return [id for step in answer for id in step.ids]


def ask(question: str = QUESTIONS[1], tokens: int = 24, **how: Any) -> Ask:
    stop_ids = how.pop("stop_ids", ())
    model = how.pop("model", "tuned")
    ids = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False
    )
    return Ask(model, tuple(ids), Sampling(tokens, **how), stop_ids)


def processes() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [p for p in found if "weitiao.serving.openvino.worker" in p.cmdline()]


@pytest.fixture
def workers() -> Callable[[], list[psutil.Process]]:
    """The processes of the test's own engines."""
    before = processes()
    return lambda: [process for process in processes() if process not in before]


def greedy(model: Any, ask: Ask) -> list[int]:
    prompt = torch.tensor([ask.ids])
    out = model.generate(
        prompt, max_new_tokens=ask.sampling.max_new_tokens, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    return out[0, len(ask.ids) :].tolist()  # type: ignore[no-any-return]


def test_answers_are_those_of_transformers_alone_and_together(served: Served, model: Any) -> None:
    asks = [ask(question, 12 + 5 * n) for n, question in enumerate(QUESTIONS)]
    alone = [served.answers(one)[0] for one in asks]
    assert [ids_of(answer) for answer in alone] == [greedy(model, one) for one in asks]
    together = served.answers(*asks)
    assert [ids_of(answer) for answer in together] == [ids_of(answer) for answer in alone]
    assert all(answer[-1].finish == "length" for answer in together)
    assert all(step.finish is None for answer in together for step in answer[:-1])
    assert all(len(answer) > 1 for answer in together), "the answer comes in steps"


def test_the_stop_token_ends_the_answer_and_is_not_in_it(served: Served) -> None:
    said = ids_of(served.answers(ask())[0])
    stop = next(id for id in said if id not in said[:3])
    answer = served.answers(ask(stop_ids=(7, stop)))[0]
    assert ids_of(answer) == said[: said.index(stop)]
    assert answer[-1].finish == "stop"


def test_a_seed_gives_one_answer_whoever_else_asks(served: Served) -> None:
    drawn = ask(temperature=1.5, top_p=0.95, seed=11)
    alone = ids_of(served.answers(drawn)[0])
    other = ask(temperature=1.5, top_p=0.95, seed=12)
    free = [ask(temperature=1.5) for _ in range(2)]
    together = [ids_of(answer) for answer in served.answers(other, *free, drawn)]
    assert together[3] == alone
    assert together[0] != alone
    assert together[1] != together[2]
    least = ids_of(served.answers(ask(temperature=1.5, top_p=0.0))[0])
    assert least == ids_of(served.answers(ask())[0])


def test_repetition_is_punished_as_transformers_does_it(served: Served, model: Any) -> None:
    asked = ask(repetition_penalty=1.4)
    out = model.generate(
        torch.tensor([asked.ids]), max_new_tokens=24, do_sample=False, repetition_penalty=1.4,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert ids_of(served.answers(asked)[0]) == out[0, len(asked.ids) :].tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_logprobs_are_those_before_sampling(served: Served, model: Any, temperature: float) -> None:
    asked = ask(temperature=temperature, seed=3, logprobs=0)
    answer = served.answers(asked)[0]
    told = [one for step in answer for one in step.logprobs]
    ids = ids_of(answer)
    assert [one.id for one in told] == ids
    with torch.inference_mode():
        logits = model(torch.tensor([[*asked.ids, *ids]])).logits[0, len(asked.ids) - 1 : -1]
    expected = logits.log_softmax(-1)[range(len(ids)), ids]
    assert [one.logprob for one in told] == pytest.approx(expected.tolist(), abs=0.02)
    assert served.engine.top_logprobs == 0


def test_leaving_gives_the_place_to_the_next(gguf: Path, cache: Path) -> None:
    async def scenario() -> None:
        engine = OpenVinoEngine({"tuned": gguf}, cache, CONTEXT, max_running=1)
        await engine.start()
        expected = await steps(engine, ask(tokens=4))
        async with aclosing(engine.stream(ask("写一首诗", 400))) as long:
            await anext(long)
            next_one = asyncio.create_task(steps(engine, ask(tokens=4)))
            await asyncio.sleep(0.05)
            assert engine.load() == Load(running=1, waiting=1)
        begun = time.monotonic()
        assert ids_of(await next_one) == ids_of(expected)
        assert time.monotonic() - begun < 10
        assert engine.load() == Load(0, 0)
        await engine.close()

    asyncio.run(scenario())


def test_more_requests_than_memory_are_all_answered(gguf: Path, cache: Path) -> None:
    async def scenario() -> None:
        engine = OpenVinoEngine({"tuned": gguf}, cache, CONTEXT, cache_bytes=1)
        one = ask(tokens=CONTEXT - 40)
        expected = ids_of(await steps(engine, one))
        asks = (dataclasses.replace(one, ids=one.ids) for _ in range(4))
        answers = await asyncio.gather(*(steps(engine, one) for one in asks))
        assert [ids_of(answer) for answer in answers] == [expected] * 4
        await engine.close()

    asyncio.run(scenario())


def test_a_request_that_openvino_refuses_is_not_the_others_fault(served: Served) -> None:
    async def scenario() -> None:
        good = asyncio.create_task(steps(served.engine, ask()))
        with pytest.raises(EngineError, match="tuned"):
            await steps(served.engine, ask(temperature=1.0, repetition_penalty=-1.0))
        assert len(ids_of(await good)) == 24

    served.run(scenario())


def test_a_killed_process_is_begun_again_but_not_for_ever(
    gguf: Path, cache: Path, workers: Any
) -> None:
    async def scenario() -> None:
        engine = OpenVinoEngine({"tuned": gguf}, cache, CONTEXT)
        await engine.start()
        expected = ids_of(await steps(engine, ask()))
        for _ in range(2):
            async with aclosing(engine.stream(ask(tokens=400))) as long:
                await anext(long)
                workers()[0].kill()
                with pytest.raises(EngineError, match="tuned"):
                    async for _step in long:
                        pass
            assert engine.load() == Load(0, 0)
            assert ids_of(await steps(engine, ask())) == expected
        workers()[0].kill()
        await asyncio.sleep(0.5)
        with pytest.raises(EngineError, match="3"):
            await steps(engine, ask())
        await engine.close()

    asyncio.run(scenario())


def test_each_model_has_a_process_begun_when_it_is_asked(
    gguf: Path, cache: Path, tmp_path: Path, workers: Any
) -> None:
    other = gguf_of(EMBEDDED, tmp_path / "other.gguf", "q4_0")

    async def scenario() -> None:
        engine = OpenVinoEngine({"tuned": gguf, "base": other}, cache, CONTEXT)
        assert engine.models == ("tuned", "base")
        await engine.start()
        assert len(workers()) == 1
        asks = [ask(model=name, logprobs=0) for name in engine.models]
        tuned, base = await asyncio.gather(*(steps(engine, one) for one in asks))
        assert len(workers()) == 2
        assert [s.logprobs for s in tuned] != [s.logprobs for s in base]
        await engine.close()
        assert workers() == []

    asyncio.run(scenario())


def test_closing_ends_what_runs(gguf: Path, cache: Path, workers: Any) -> None:
    async def scenario() -> None:
        engine = OpenVinoEngine({"tuned": gguf}, cache, CONTEXT)
        loading = asyncio.create_task(engine.start())
        await asyncio.sleep(0.2)
        await engine.close()
        with pytest.raises(ModelError):
            await loading
        await engine.start()
        running = asyncio.create_task(steps(engine, ask(tokens=400)))
        await asyncio.sleep(0.2)
        await engine.close()
        with pytest.raises(EngineError):
            await running
        assert workers() == []

    asyncio.run(scenario())


def in_a_process(gguf: Path, cache: Path, *lines: str) -> list[str]:
    """The command of a process that has an engine and does what the lines say."""
    code = (
        "import asyncio, psutil, resource",
        "from pathlib import Path",
        "from weitiao.serving.openvino import OpenVinoEngine",
        "async def main():",
        f"    engine = OpenVinoEngine({{'m': Path({str(gguf)!r})}}, Path({str(cache)!r}), 512)",
        *(f"    {line}" for line in lines),
        "asyncio.run(main())",
    )
    return [sys.executable, "-c", "\n".join(code)]


@pytest.mark.skipif(os.name == "nt", reason="there is no kill -9")
def test_the_process_ends_with_its_parent(gguf: Path, cache: Path) -> None:
    told = "print(*[p.pid for p in psutil.Process().children()], flush=True)"
    command = in_a_process(gguf, cache, "await engine.start()", told, "await asyncio.sleep(600)")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        (worker,) = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
        parent.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs([worker], timeout=10)[1]


@pytest.mark.skipif(sys.platform != "linux", reason="the system sets no limit of memory")
def test_too_little_memory_to_load_is_one_sentence(gguf: Path, cache: Path) -> None:
    # Python takes 100 MB of addresses, OpenVINO's libraries 500, the model some more.
    limit = "resource.setrlimit(resource.RLIMIT_AS, (300 << 20,) * 2)"
    start = "(error,) = await asyncio.gather(engine.start(), return_exceptions=True)"
    told = "print(error.sentence('en'))"
    command = in_a_process(gguf, cache, limit, start, told, "await engine.close()")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    (said,) = done.stdout.splitlines()
    assert said.startswith("OpenVINO ended while it loaded 'm'")
    assert "memory was too short" in said
    assert "code -9" not in said, "why, and not that it was ended by us"


def test_the_form_is_kept_for_this_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    left = cache / ".new-4194399"
    left.mkdir(parents=True)

    def answer() -> tuple[list[int], dict[Path, int]]:
        async def once() -> list[int]:
            engine = OpenVinoEngine({"tuned": gguf}, cache, CONTEXT)
            await engine.start()
            said = ids_of(await steps(engine, ask()))
            await engine.close()
            return said

        said = asyncio.run(once())
        return said, {path: path.stat().st_mtime_ns for path in cache.rglob("*")}

    gguf = gguf_of(EMBEDDED, tmp_path / "model.gguf")
    first, made = answer()
    assert sorted(path.suffix for path in made) == ["", ".bin", ".xml"], "nothing is left over"
    again, kept = answer()
    assert (again, kept) == (first, made)
    weights = tmp_path / "noise"
    noise_model(weights)
    gguf_of(weights, gguf)
    other, remade = answer()
    assert other != first
    assert len(remade) == len(made)
    assert not set(remade) & set(made)
    assert list(home.iterdir()) == [], "nothing is written to the home folder, nothing measured"


def noise_model(folder: Path, family: str = "qwen2", **shape: Any) -> Any:
    """Write a random model with the embedded tokenizer to ``folder``; return it."""
    torch.manual_seed(5)
    config = AutoConfig.for_model(
        family,
        **{
            "vocab_size": 8192, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 512, "initializer_range": 0.3, "tie_word_embeddings": False,
            **shape,
        },
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data = weight.data.half().float()
    return model


@pytest.mark.parametrize(
    ("family", "shape"),
    [("llama", {}), ("qwen3", {"head_dim": 32}), ("qwen2", {"tie_word_embeddings": True})],
)
def test_families_answer_as_transformers_does(
    tmp_path: Path, family: str, shape: dict[str, Any]
) -> None:
    expected = greedy(noise_model(tmp_path / "model", family, **shape), ask())
    gguf = gguf_of(tmp_path / "model", tmp_path / "model.gguf")

    async def once() -> list[int]:
        engine = OpenVinoEngine({"tuned": gguf}, tmp_path / "cache", CONTEXT)
        answer = ids_of(await steps(engine, ask()))
        await engine.close()
        return answer

    assert asyncio.run(once()) == expected

"""Times, by a clock of our own and with a real model."""

import mmap
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from made_pair import made_pair

from weitiao.errors import RunError
from weitiao.evaluation import speed
from weitiao.evaluation.beside import Both
from weitiao.evaluation.notes import notes
from weitiao.evaluation.speed import load_speed, measure_speed


class Clock:
    """Stands still but for what the models take."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def timed(monkeypatch):
    """Return a function that measures models with these seconds to the first and each token."""
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)

    def stream(model, prompt, sampling, stop_ids):
        for i in range(sampling.max_new_tokens):
            clock.now += model.each if i else model.first
            yield 1

    def greedy(self, voice, prompts, new_tokens, on_batch=None, *, stops=True):
        clock.now += new_tokens * voice.model.each * 2
        return []

    monkeypatch.setattr("weitiao.models.generate.stream", stream)
    monkeypatch.setattr(Both, "greedy", greedy)

    def measure(path, base, tuned):
        cpu = torch.device("cpu")
        voices = (
            SimpleNamespace(
                model=SimpleNamespace(device=cpu, first=first, each=each), speaking=nullcontext
            )
            for first, each in (base, tuned)
        )
        chat = SimpleNamespace(prompt_ids=lambda messages: [1] * len(messages[0].content))
        return measure_speed(Both(*voices, chat, batch_size=8, budget=100), path)

    return measure


def test_a_fast_model_is_measured_to_the_end(timed, tmp_path):
    base = timed(tmp_path / "speed.json", (0.01, 0.001), (0.02, 0.002)).base
    assert base.first_token_seconds == pytest.approx(0.01)
    assert base.tokens_per_second == pytest.approx(1000)
    assert base.long_seconds == pytest.approx(0.01 + 199 * 0.001)
    assert (base.extrapolated, base.streams) == (False, 2)
    assert base.batch_tokens_per_second == pytest.approx(8 * 32 / (32 * 0.002))


def test_a_slow_model_is_extrapolated_and_asked_little(timed, tmp_path):
    tuned = timed(tmp_path / "speed.json", (0.01, 0.001), (1.0, 0.1)).tuned
    assert (tuned.extrapolated, tuned.streams) == (True, 1)
    assert tuned.first_token_seconds == pytest.approx(1)
    assert tuned.long_seconds == pytest.approx(1 + 199 * 0.1)
    ((sentence, _),) = notes(tmp_path, "en")
    assert "about 20.9 s" in sentence


def test_a_real_model(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    both = replace(made_pair(), batch_size=3)
    path = tmp_path / "speed.json"
    found = measure_speed(both, path)
    assert load_speed(path) == found
    assert (found.device, found.batch_size) == ("cpu", 3)
    for pace in (found.base, found.tuned):
        assert min(pace.first_token_seconds, pace.tokens_per_second, pace.memory_bytes) > 0
        assert pace.extrapolated
        assert pace.batch_tokens_per_second > 0


def test_a_file_of_another_version_is_a_sentence(tmp_path):
    (tmp_path / "speed.json").write_text("[]")
    with pytest.raises(RunError, match="weitiao eval"):
        load_speed(tmp_path / "speed.json")


def test_the_memory_is_the_most_that_was_held_meanwhile(timed, tmp_path, monkeypatch):
    if not speed._begin_peak(torch.device("cpu")):
        pytest.skip("this system does not begin its count of the most memory anew")
    size = 200 << 20

    def hold(count: int) -> None:
        # Pages of their own: the heap may have as many that it was given back.
        with mmap.mmap(-1, count) as held:
            for page in range(0, count, mmap.PAGESIZE):
                held[page] = 1

    # What was held and given back before is no part of it.
    hold(3 * size)
    greedy = Both.greedy

    def hungry(self, voice, *given, **more):
        hold(size if voice is self.tuned else 1)
        return greedy(self, voice, *given, **more)

    monkeypatch.setattr(Both, "greedy", hungry)
    found = timed(tmp_path / "speed.json", (0.01, 0.001), (0.01, 0.001))
    rise = found.tuned.memory_bytes - found.base.memory_bytes
    assert 0.9 * size < rise < 1.5 * size


def test_where_the_most_cannot_be_told_it_is_what_is_held(timed, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "_begin_peak", lambda device: False)
    found = timed(tmp_path / "speed.json", (0.01, 0.001), (0.01, 0.001))
    assert found.base.memory_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)

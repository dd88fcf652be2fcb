"""Answers drawn at random are remembered where that is asked for, and only there."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from serving.counting import CountingEngine, encode, service, serving
from serving.test_cache import cache


@contextmanager
def drawing(path: Path, **options: object) -> Iterator[str]:
    """A server whose every answer is another number."""
    numbers = itertools.count(100)
    made = service(CountingEngine(lambda _: encode(str(next(numbers)))))
    with cache(path, made.served, **options) as kept, serving(replace(made, cache=kept)) as address:
        yield address


def said(address: str, **more: object) -> list[str]:
    asked = {"messages": [{"role": "user", "content": "你好"}], "temperature": 0.8, **more}
    told: Any = httpx.post(f"{address}/v1/chat/completions", json=asked).json()
    return [choice["message"]["content"] for choice in told["choices"]]


def test_they_are_not_unless_that_is_asked_for(tmp_path: Path) -> None:
    with drawing(tmp_path / "c.sqlite") as address:
        assert said(address) != said(address)


def test_the_same_question_gets_the_same_answer(tmp_path: Path) -> None:
    with drawing(tmp_path / "c.sqlite", cache_sampled=True) as address:
        assert said(address) == said(address)
        assert said(address, temperature=0.9) == said(address, temperature=0.9) != said(address)
        assert said(address, top_p=0.5) != said(address)
        seeds = [said(address, seed=seed) for seed in (0, 1, 0)]
        assert seeds[0] == seeds[2] != seeds[1]


def test_several_answers_to_one_question_stay_different(tmp_path: Path) -> None:
    with drawing(tmp_path / "c.sqlite", cache_sampled=True) as address:
        first = said(address, n=3)
        assert len(set(first)) == 3
        assert said(address, n=3) == first

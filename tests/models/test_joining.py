"""Rows that join and leave, against rows that are answered alone."""

import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from small import adapted, lively

from weitiao.models import joining
from weitiao.models.beginnings import Beginnings
from weitiao.models.generate import Sampling, generate
from weitiao.models.joining import Apart, Joined, Rows, joining_rows

BEGINNING = list(range(40, 60))
PROMPTS = [
    [5, 6, 7],
    [*BEGINNING, 5, 6],
    BEGINNING,
    [8, 9, 10, 11, 12, 13, 14, 15],
    [*BEGINNING, 7],
    [20],
    [*BEGINNING, *range(60, 80), 9],
    [*BEGINNING, 7],
]


def alone(model: Any, new: Mapping[int, int]) -> dict[int, list[int]]:
    """The answer to each prompt by itself; ``new``: how many tokens, by the prompt's number."""
    return {
        i: generate(model, [PROMPTS[i % len(PROMPTS)]], Sampling(max_new_tokens=n), (), 0)[0].ids
        for i, n in new.items()
    }


@torch.inference_mode()
def together(rows: Rows, new: Mapping[int, int], seed: int) -> dict[int, list[int]]:
    """Greedy answers of rows that join when ``seed`` has it, and leave when they are done."""
    draw, waiting = random.Random(seed), list(new)
    answers: dict[int, list[int]] = {i: [] for i in new}
    chosen: dict[int, int] = {}
    running = 0
    while waiting or running:
        while waiting and (not running or draw.random() < 0.4):
            number = waiting.pop(0)
            prompt = PROMPTS[number % len(PROMPTS)]
            rows.join(number, prompt, len(prompt) + new[number])
            running += 1
        found, logits_MV = rows.step(chosen)
        assert len(found) == len(logits_MV)
        for number, token in zip(found, logits_MV.argmax(-1).tolist(), strict=True):
            answers[number].append(token)
            chosen[number] = token
            if len(answers[number]) == new[number]:
                rows.leave(number)
                del chosen[number]
                running -= 1
    return answers


@cache
def _alone_lively() -> dict[int, list[int]]:
    return alone(lively(), NEW)


NEW = {i: 3 + 7 * i % 19 for i in range(3 * len(PROMPTS))}


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral", "olmo2"])
def test_every_family_answers_as_it_does_alone(family: str) -> None:
    model = lively(family)
    rows = joining_rows(model, context=128, kept_tokens=100)
    assert type(rows) is (Apart if family == "olmo2" else Joined)
    assert together(rows, NEW, 1) == alone(model, NEW)


@pytest.mark.parametrize("piece", [1, 5, 256])
@pytest.mark.parametrize("kept", [0, 60, 10_000])
def test_pieces_and_kept_beginnings_change_nothing(piece: int, kept: int) -> None:
    model = lively()
    expected = _alone_lively()
    assert together(Joined(model, kept, piece), NEW, piece + kept) == expected


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_adapters_on_and_off(kind: str) -> None:
    model = adapted(kind)
    tuned = together(Joined(model, 200, 7), NEW, 3)
    assert tuned == alone(model, NEW)
    with model.disable_adapter():
        assert together(Joined(model, 200, 7), NEW, 3) == _alone_lively() != tuned


def test_a_window_shorter_than_the_context_is_left_to_transformers() -> None:
    model = lively("mistral", window=16)
    assert type(joining_rows(model, 16, 0)) is Joined
    rows = joining_rows(model, 17, 0)
    assert type(rows) is Apart
    assert together(rows, NEW, 2) == alone(model, NEW)


def tokens_read(model: Any) -> list[int]:
    seen: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _m, x, _y: seen.append(x[0].numel()))
    return seen


@torch.inference_mode()
def test_what_is_known_is_not_read_again() -> None:
    model = lively()
    seen, rows = tokens_read(model), Joined(model, 1000)
    first, second = [*BEGINNING, 5, 6], [*BEGINNING, 7]
    rows.join(1, first, 30)
    rows.join(2, second, 30)
    found, logits_MV = rows.step({})
    # The second waits for the beginning that the first reads.
    assert (found, seen) == ([1], [22])
    token = int(logits_MV[0].argmax())
    assert rows.step({1: token})[0] == [1, 2]
    assert seen == [22, 2]
    rows.leave(1)
    # The next turn of the first conversation: its answer's last token was never read.
    rows.join(3, [*first, token, 33, 34], 40)
    rows.step({2: 9})
    assert seen == [22, 2, 1 + 2]


@torch.inference_mode()
def test_a_long_prompt_does_not_keep_the_others_waiting() -> None:
    model = lively()
    seen, rows = tokens_read(model), Joined(model, 0, piece=8)
    rows.join(1, [5, 6, 7], 60)
    rows.step({})
    rows.join(2, list(range(5, 5 + 30)), 60)
    for _ in range(3):
        assert rows.step({1: 9})[0] == [1]
    assert rows.step({1: 9})[0] == [1, 2]
    assert seen == [3, 9, 9, 9, 7]


@torch.inference_mode()
def test_the_block_grows_by_doubling_and_is_given_back() -> None:
    rows = Joined(lively(), 0)
    shapes = set()
    for number in range(5):
        rows.join(number, PROMPTS[0], 100)
        rows.step(dict.fromkeys(range(number), 9))
        shapes.add(tuple(rows._block.shape[2:4]))
    assert shapes == {(1, 64), (2, 64), (4, 64), (8, 64)}
    assert (rows.tokens(), rows.tokens(120), rows.tokens(99)) == (800, 960, 800)
    for number in (4, 0, 2, 1, 3):
        rows.leave(number)
    assert rows._block.numel() == rows.tokens() == 0


def test_rows_of_little_use_are_dropped_first() -> None:
    kept = Beginnings(50)
    a, b, c = (list(range(n, n + 20)) for n in (0, 100, 200))
    keys = [torch.full((1,), float(i)) for i in range(4)]
    kept.put(a, keys[0])
    kept.put(b, keys[1])
    assert kept.longest(np.array([*a[:17], 99])) == (17, keys[0])
    kept.put(c, keys[2])
    assert kept.longest(np.array(b)) == (0, None)
    kept.put([*a, 5], keys[3])
    assert kept.longest(np.array(a)) == (20, keys[3])
    kept.put(list(range(300, 351)), keys[0])
    assert kept.longest(np.array(c))[0] == 20
    # Fifteen tokens are soon read.
    assert kept.longest(np.array(c[:15])) == (0, None)


@torch.inference_mode()
def test_what_is_not_a_number_stays_with_its_row() -> None:
    model = lively()
    expected = alone(model, {0: 8})[0]
    rows = Joined(model, 1000)
    with torch.no_grad():
        model.get_input_embeddings().weight[96] = float("nan")
    rows.join(1, [*BEGINNING, 96], 60)
    assert not rows.step({})[1].isfinite().any()
    rows.join(0, PROMPTS[0], 60)
    logits_MV = rows.step({1: 4})[1]
    rows.leave(1, keep=False)
    answer = []
    for _ in range(8):
        answer.append(int(logits_MV[-1].argmax()))
        logits_MV = rows.step({0: answer[-1]})[1]
    assert answer == expected
    assert rows._kept.longest(np.array(BEGINNING)) == (0, None)


def test_it_is_the_block_that_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask that shows a column too many must be seen by these tests."""
    model = lively()
    real = joining._Attending.__init__

    def wrong(self: Any, block: Any, columns_M: Any, parts: Any) -> None:
        real(self, block, columns_M, parts)
        if len(columns_M):
            self._mask_M11S = torch.zeros_like(self._mask_M11S)

    monkeypatch.setattr(joining._Attending, "__init__", wrong)
    assert together(Joined(model, 0), NEW, 1) != _alone_lively()

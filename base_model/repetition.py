"""Documents in which what comes is what was there before: random words, said again.

A small model learns to copy from its context late, if ever, where real text gives it little
reason to. Here nothing else helps: the words are drawn at random, so only looking back pays.
"""

import random
from collections.abc import Callable, Iterator

from sources import chatml

HAN = [
    bytes([row, cell]).decode("gb2312")
    for row in range(0xB0, 0xD8)
    for cell in range(0xA1, 0xFF if row < 0xD7 else 0xFA)
]
"""The 3,755 common characters: GB 2312, level 1."""

LATIN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
SEPARATORS = ("\n", " ", "，", "；", "|", " / ", "。")
SIGNS = (("=", "；"), (":", ", "), ("：", "，"), (" -> ", "\n"), ("是", "。"))
ASK_TO_REPEAT = (
    "请重复：{}", "跟我说：{}", "复述一遍\n{}", "{}\n把上面这行再说一次", "照抄：{}",
    "Repeat: {}", "Say this again: {}", "Copy the line.\n{}",
)  # fmt: skip


def word(rng: random.Random) -> str:
    """Return a random word: one to four characters, a number, or letters."""
    kind = rng.random()
    if kind < 0.55:
        return "".join(rng.choices(HAN, k=rng.randint(1, 4)))
    if kind < 0.85:
        return "".join(rng.choices("0123456789", k=rng.randint(1, 6)))
    return "".join(rng.choices(LATIN, k=rng.randint(2, 6)))


def line(rng: random.Random) -> str:
    """Return a random line: a run of characters or digits, or several words."""
    if rng.random() < 0.5:
        return "".join(rng.choices(HAN, k=rng.randint(4, 30)))
    return rng.choice(("", " ", "，", "、")).join(word(rng) for _ in range(rng.randint(2, 9)))


def loop(rng: random.Random) -> str:
    """Return a few units said over and over, to about 48 characters.

    Most loops are short. In a long one, attending anywhere helps next to nothing, and the
    model never finds out where to look; in a loop of three, every guess at it pays.
    """
    size = rng.choice((2, 3, 3, 4, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24))
    if rng.random() < 0.7:
        units = rng.choices(HAN, k=size)
    else:
        units = [rng.choice((*"0123456789", *LATIN, *rng.sample(HAN, 30))) for _ in range(size)]
    joint = rng.choice(("", "", *SEPARATORS))
    return joint.join(["".join(units)] * max(2, 48 // size))


def pairs(rng: random.Random) -> str:
    """Return names with values, then the same pairs in other orders."""
    sign, joint = rng.choice(SIGNS)
    names = list({word(rng): None for _ in range(rng.randint(3, 7))})
    told = [f"{name}{sign}{word(rng)}" for name in names]
    rounds = [rng.sample(told, len(told)) for _ in range(rng.randint(2, 3))]
    return joint.join(pair for told_again in rounds for pair in told_again)


def request(rng: random.Random) -> str:
    """Return a dialogue that asks for a line to be repeated."""
    said = line(rng)
    question = rng.choice(ASK_TO_REPEAT).format(said)
    return chatml([{"role": "user", "content": question}, {"role": "assistant", "content": said}])


FAMILIES: tuple[Callable[[random.Random], str], ...] = (*[loop] * 6, pairs, request)


def documents(seed: int, count: int) -> Iterator[str]:
    """Yield ``count`` documents, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        yield rng.choice(FAMILIES)(rng)

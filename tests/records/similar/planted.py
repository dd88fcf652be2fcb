"""Random Chinese texts with near duplicates among them, and all near pairs found plainly."""

import random
from itertools import combinations


def planted(rows: int, seed: int, length: int = 40) -> list[str]:
    """Return texts of which a fifth repeat an earlier one with a character changed."""
    draw = random.Random(seed)
    texts: list[str] = []
    for _ in range(rows):
        if texts and draw.random() < 0.2:
            text = list(draw.choice(texts))
            text[draw.randrange(length)] = chr(draw.randrange(0x4E00, 0x9000))
        else:
            text = [chr(draw.randrange(0x4E00, 0x9000)) for _ in range(length)]
        texts.append("".join(text))
    return texts


def near_pairs(texts: list[str], threshold: float = 0.85) -> list[tuple[int, int]]:
    """Return every pair of rows whose sets of character pairs are as similar as that."""
    sets = [{text[i : i + 2] for i in range(len(text))} for text in texts]
    return [
        (a, b)
        for a, b in combinations(range(len(texts)), 2)
        if len(sets[a] & sets[b]) >= threshold * len(sets[a] | sets[b])
    ]

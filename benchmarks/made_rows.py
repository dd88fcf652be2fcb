"""Short Chinese rows made from Tang poems, with known duplicates.

    python benchmarks/made_rows.py rows.jsonl [--rows 1000000] [--seed 1] [--poems FOLDER]

Each row {"prompt", "response"} asks for a verse of four lines and gives one whose lines are
drawn from all poems of the corpus. Of the rows, 5% are exact duplicates of an earlier one and
5% near duplicates: the earlier row's prompt, and its verse with one or two characters changed, in
verses long enough that their similarity stays over 0.85. Beside ``rows.jsonl`` stands
``rows.truth.jsonl``: for each made duplicate {"row", "of", "changed"}, rows counted from 0.
"""

import argparse
import json
import random
import re
from functools import cache
from pathlib import Path

POEMS = Path(__file__).resolve().parents[2] / "shared" / "data"
EXACT = NEAR = 0.05
FORMS = (((7, 4), "七言绝句"), ((7, 8), "七言律诗"), ((5, 8), "五言律诗"))
"""(characters a line, lines), and what the form is called; half of the verses are of the first."""

TWO_CHANGES = 56
"""The fewest characters of a verse of which two may change: 52 of 60 pairs stay the same."""

REMEMBERED = 200_000


@cache
def lines_by_length(folder: Path) -> dict[int, list[str]]:
    """Return length (5 or 7) → the different lines of that length, sorted."""
    found: dict[int, set[str]] = {5: set(), 7: set()}
    with (folder / "tang_poems_corpus.jsonl").open(encoding="utf-8") as poems:
        for poem in poems:
            _, _, verses = json.loads(poem)["text"].partition("\n")
            for line in re.split(r"[，。！？；、：\s]+", verses):
                if len(line) in found and all("\u4e00" <= char <= "\u9fff" for char in line):
                    found[len(line)].add(line)
    return {length: sorted(lines) for length, lines in found.items()}


def authors(folder: Path) -> list[str]:
    """Return the different poets of the quatrains, sorted."""
    with (folder / "tang_quatrains.jsonl").open(encoding="utf-8") as rows:
        return sorted({json.loads(row)["input"].partition("风格：")[2] for row in rows})


def write(path: Path, rows: int = 1_000_000, seed: int = 1, folder: Path = POEMS) -> Path:
    """Write ``rows`` rows to ``path``; return the path of the truth beside it."""
    draw = random.Random(seed)
    lines, poets = lines_by_length(folder), authors(folder)
    truth = path.with_suffix(".truth.jsonl")
    made: list[tuple[int, str, str]] = []
    with path.open("w", encoding="utf-8") as out, truth.open("w", encoding="utf-8") as known:
        for number in range(rows):
            kind, changed = draw.random(), 0
            if made and kind < EXACT + NEAR:
                of, prompt, response = made[int(draw.random() * len(made))]
                if kind < NEAR:
                    response, changed = changed_verse(response, lines, draw)
                known.write(json.dumps({"row": number, "of": of, "changed": changed}) + "\n")
            else:
                prompt, response = new_row(lines, poets, draw)
            if len(made) < REMEMBERED:
                made.append((number, prompt, response))
            else:
                made[int(draw.random() * REMEMBERED)] = (number, prompt, response)
            row = {"prompt": prompt, "response": response}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return truth


def new_row(lines: dict[int, list[str]], poets: list[str], draw: random.Random) -> tuple[str, str]:
    """Return a prompt and a verse of 28, 40 or 56 characters."""
    (length, count), form = FORMS[int(draw.random() * 4) % 3]
    verse = [lines[length][int(draw.random() * len(lines[length]))] for _ in range(count)]
    poet = poets[int(draw.random() * len(poets))]
    ends = "，。" * (count // 2)
    return (
        f"以“{verse[0]}”开头，仿{poet}写一首{form}",
        "".join(line + end for line, end in zip(verse, ends, strict=True)),
    )


def changed_verse(verse: str, lines: dict[int, list[str]], draw: random.Random) -> tuple[str, int]:
    """Return the verse with one or two of its characters changed, and how many."""
    places = [i for i, char in enumerate(verse) if char not in "，。"]
    changes = 2 if len(places) >= TWO_CHANGES and draw.random() < 0.5 else 1
    letters = list(verse)
    for place in draw.sample(places, changes):
        other = letters[place]
        while other == letters[place]:
            other = draw.choice(draw.choice(lines[7]))
        letters[place] = other
    return "".join(letters), changes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--poems", type=Path, default=POEMS)
    asked = parser.parse_args()
    print(write(asked.path, asked.rows, asked.seed, asked.poems))

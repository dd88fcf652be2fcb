"""Rows a second of `ChatFormat.batch` against the tokenizer library's own batch call.

    python benchmarks/records_render.py TOKENIZER_FOLDER DATA_FILE [--rows 100000] [--rounds 3]

The peer gets the same rows as texts that are rendered already, and only encodes them:
``encode_batch``, and the faster ``encode_batch_fast`` that keeps no offsets. Ours begins
with records, and ends with ids, a loss mask and a length check. All take each block of rows
in turn, in one process, and of each block the best of several rounds counts. ``samples``,
one record after the other, is measured on some of the rows. The data file is JSON lines with
instruction, input, output.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

# Both cores, for both sides; without it the library asks whether the process was forked.
os.environ["TOKENIZERS_PARALLELISM"] = "true"

from transformers import AutoTokenizer

from weitiao.records.record import Message, Origin, Record
from weitiao.records.render import ChatFormat

BLOCK = 2000
PLAIN_ROWS = 1000


def measure(tokenizer_folder: Path, path: Path, rows: int, rounds: int = 3) -> dict[str, float]:
    """Return rows a second of each way, ratios, and the share of rows on the fast way."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder)
    library = tokenizer.backend_tokenizer
    chat = ChatFormat(tokenizer)
    records = made_rows(path, rows)
    texts = [rendered(tokenizer, record) for record in records]
    plain: list[int] = []
    one_by_one = chat.samples
    chat.samples = lambda *row, **options: plain.append(1) or one_by_one(*row, **options)  # type: ignore[method-assign]
    ways: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
        "encode_batch": (lambda b: library.encode_batch(b, add_special_tokens=False), texts),
        "encode_batch_fast": (
            lambda b: library.encode_batch_fast(b, add_special_tokens=False),
            texts,
        ),
        "batch": (chat.batch, records),
        "samples": (lambda b: [one_by_one(r) for r in b], records[:PLAIN_ROWS]),
    }
    best = {name: [float("inf")] * -(-len(given) // BLOCK) for name, (_, given) in ways.items()}
    for _ in range(rounds):
        for block in range(len(best["batch"])):
            for name, (way, given) in ways.items():
                if part := given[block * BLOCK : (block + 1) * BLOCK]:
                    best[name][block] = min(best[name][block], seconds(way, part))
    speed = {name: len(ways[name][1]) / sum(times) for name, times in best.items()}
    return {
        **speed,
        "ratio": speed["batch"] / speed["encode_batch"],
        "ratio_fast": speed["batch"] / speed["encode_batch_fast"],
        "ratio_samples": speed["batch"] / speed["samples"],
        "fast_share": 1 - len(plain) / (rounds * len(records)),
        "tokens_a_row": sum(len(library.encode(t).ids) for t in texts[:1000]) / 1000,
    }


def seconds(way: Callable[[Any], Any], part: Any) -> float:
    """Return how long ``way`` takes for a block of rows, as the data stage gives them."""
    begun = time.perf_counter()
    way(part)
    return time.perf_counter() - begun


def made_rows(path: Path, rows: int) -> list[Record]:
    """Return so many records; where the file has fewer, questions and answers pair up anew."""
    with path.open(encoding="utf-8") as lines:
        data = [json.loads(line) for line in lines]
    asked = [f"{row['instruction']}\n{row['input']}" for row in data]
    # An odd shift in each round: no question meets the same answer twice.
    said = (data[(i + 7 * (i // len(data))) % len(data)]["output"] for i in range(rows))
    return [
        Record(
            Origin(path.name, i),
            (Message("user", f"{question}（{i}）"), Message("assistant", f"{answer}{i}")),
        )
        for i, (question, answer) in enumerate(zip(islice(cycle(asked), rows), said, strict=True))
    ]


def rendered(tokenizer: Any, record: Record) -> str:
    """Return the record's text as the model sees it."""
    turns = [{"role": m.role, "content": m.content} for m in record.messages]
    return str(tokenizer.apply_chat_template(turns, tokenize=False)).removesuffix("\n")


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for name, value in measure(given.tokenizer, given.data, given.rows, given.rounds).items():
        print(f"{name:20} {value:12.3f}")


if __name__ == "__main__":
    main()

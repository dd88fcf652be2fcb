"""Print the embedded model's bits per character on the held-out texts: lower is better.

python base_model/measure.py src/weitiao/models/embedded base_model/build
"""

import argparse
import json
import math
from pathlib import Path

import torch

from weitiao.models.flat import answer_losses
from weitiao.models.load import find_model, load_model, load_tokenizer
from weitiao.records.record import Origin, Record
from weitiao.records.render import ChatFormat, Sample

HELD_OUT = ("heldout_poems", "heldout_modern", "heldout_english", "heldout_synthetic")


def bits_per_character(model_folder: str, file: Path) -> tuple[int, float]:
    """Return (characters, bits per character) over all texts of ``file``.

    Every token of a text is predicted, its end included, but for the first, which nothing
    precedes; dialogues count with their markers, as they are trained on.
    """
    source = find_model(model_folder)
    tokenizer = load_tokenizer(source)
    model = load_model(source, torch.float32, torch.device("cpu"), len(tokenizer))
    chat = ChatFormat(tokenizer)
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    samples: list[Sample] = []
    for row, text in enumerate(texts):
        made = chat.samples(Record(Origin(file.name, row + 1), text=text), row, max_tokens=512)
        samples += made if isinstance(made, list) else []
    nats = sum(loss for loss, _ in answer_losses(model, samples))
    characters = sum(map(len, texts))
    return characters, nats / math.log(2) / characters


def main() -> None:
    """Print one line a held-out file."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("model")
    arguments.add_argument("held_out", type=Path)
    options = arguments.parse_args()
    for name in HELD_OUT:
        characters, bits = bits_per_character(options.model, options.held_out / f"{name}.jsonl")
        print(f"{name:18} {characters:9,} characters  {bits:.3f} bits per character")


if __name__ == "__main__":
    main()

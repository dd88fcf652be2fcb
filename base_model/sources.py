"""The shared data files as plain poems, dialogues and passages.

A dialogue is a list of ``{"role", "content"}`` messages, a poem is its title line and its
body. What may be trained on is decided in ``make_corpus.py``, not here.
"""

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Dialogue = list[dict[str, str]]

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
PLACEHOLDERS = {"{{author}}": "weitiao", "{{作者}}": "weitiao"}
TURN_ROLES = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True)
class Poem:
    """One poem of the corpus: ``《title》author`` and the verses below it."""

    head: str
    body: str

    @property
    def text(self) -> str:
        """The poem as one document."""
        return f"{self.head}\n{self.body}"


def han_only(text: str) -> str:
    """Return the Han characters of ``text``: a poem's identity, whatever its punctuation."""
    return "".join(HAN.findall(text))


def bucket(text: str, buckets: int) -> int:
    """Return a number in [0, buckets) that depends on ``text`` alone, on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") % buckets


def chatml(dialogue: Dialogue) -> str:
    """Render a dialogue as the embedded model's chat template does, up to the last end token."""
    turns = (f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>" for turn in dialogue)
    return "\n".join(turns)


def ask(question: str, answer: str, system: str | None = None) -> Dialogue:
    """Return a dialogue of one question and one answer."""
    opening = [{"role": "system", "content": system}] if system else []
    return [
        *opening,
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def json_lines(path: Path) -> Iterator[Any]:
    """Yield the objects of a JSONL file; only ``\\n`` ends a line."""
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            yield json.loads(line)


def poems(data: Path) -> Iterator[Poem]:
    """Yield the Tang poems."""
    for row in json_lines(data / "tang_poems_corpus.jsonl"):
        yield Poem(*row["text"].split("\n", 1))


def quatrain_rows(data: Path) -> Iterator[dict[str, str]]:
    """Yield the alpaca rows of the quatrain task."""
    return json_lines(data / "tang_quatrains.jsonl")


def named(text: str) -> str:
    """Put this project's names where the identity rows have placeholders."""
    for placeholder, name in PLACEHOLDERS.items():
        text = text.replace(placeholder, name)
    return text.replace("{{name}}", "微调小模型" if HAN.search(text) else "Weitiao")


def alpaca(path: Path) -> Iterator[Dialogue]:
    """Yield the dialogues of an alpaca file."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        question = "\n".join(part for part in (row["instruction"], row["input"]) if part)
        yield ask(named(question), named(row["output"]))


def v1_messages(path: Path) -> Iterator[Dialogue]:
    """Yield the dialogues of a file whose message contents are lists of typed parts."""
    for row in json_lines(path):
        yield [
            {
                "role": turn["role"],
                "content": named("".join(part["value"] for part in turn["content"])),
            }
            for turn in row["messages"]
        ]


def tool_free_dialogues(path: Path) -> Iterator[Dialogue]:
    """Yield the conversations of a tool-call file, each cut before its first tool call.

    A model of this size learns nothing from a call without the tool's description, so only
    the ordinary turns in front of it are natural dialogue.
    """
    for row in json.loads(path.read_text(encoding="utf-8")):
        turns: Dialogue = []
        for turn in row["conversations"]:
            if turn["from"] not in TURN_ROLES:
                turns = turns[:-1]
                break
            turns.append({"role": TURN_ROLES[turn["from"]], "content": turn["value"]})
        if len(turns) >= 2 and turns[-1]["role"] == "assistant":
            yield turns


def medical(path: Path) -> Iterator[Dialogue]:
    """Yield question and answer of the medical file (GBK)."""
    with path.open(encoding="gb18030", newline="") as file:
        for row in csv.DictReader(file):
            if row["ask"].strip() and row["answer"].strip():
                yield ask(row["ask"].strip(), row["answer"].strip())


def passages(path: Path, size: int = 1200) -> Iterator[str]:
    """Yield passages of whole sentences, about ``size`` characters, of the articles of a file."""
    for article in path.read_text(encoding="utf-8").split("\n"):
        passage = ""
        # The file glues paragraphs together without a space: "... socialism.Humans lived ..."
        for sentence in re.split(r"(?<=[.!?])\s*(?=[A-Z])", article.strip()):
            passage = f"{passage} {sentence}".strip()
            if len(passage) >= size:
                yield passage
                passage = ""
        if passage:
            yield passage

"""The general probe: questions of our own over five fields in two languages."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import orjson

from weitiao.words import Language

PROBE_VERSION = 1
"""Raised whenever a question changes: results of two versions are not to be compared."""

Category = Literal["knowledge", "reasoning", "instruction", "chat", "safety"]


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt. ``id`` is ``category-language-NN``, counted from 01 in each."""

    id: str
    category: Category
    language: Language
    prompt: str


def load_probe(count: int | None = None) -> list[Question]:
    """Return the probe, or a fixed part of ``count`` with as many of each kind as there can be."""
    found = [Question(**orjson.loads(line)) for line in _content().splitlines()]
    return sorted(found, key=lambda question: question.id[-2:])[:count]


def probe_digest() -> str:
    """Return the SHA-256 of the probe's file."""
    return hashlib.sha256(_content()).hexdigest()


def _content() -> bytes:
    return (resources.files(__package__) / "probe.jsonl").read_bytes()

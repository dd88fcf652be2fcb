"""Common graphics cards, and machines that are not here: what a plan must know of them."""

import re
import tomllib
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib import resources

from weitiao.errors import PlanError
from weitiao.plan.machine import Gpu, Machine

DESKTOP_TAKES = 0.5
"""GB of a card that the screen, its windows and a browser hold; none in a data centre."""

CONTEXT_TAKES = 0.4
"""GB of a card that a program takes before it has stored anything: the CUDA context."""

USABLE_SHARE = 0.98
"""The share of the memory as sold that the driver shows."""

COMPUTER_TAKES = 0.25
"""The share of a computer's memory that its system and what else is open hold."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card of the table: memory in GB of 2^30 bytes, rates in operations a second, bytes/s."""

    name: str
    memory: float
    half: float
    fp32: float
    bandwidth: float
    bf16: bool

    def gpu(self, name: str | None = None, memory: float | None = None) -> Gpu:
        """Return the card as a device whose memory nothing but the desktop holds."""
        shown = (self.memory if memory is None else memory) * USABLE_SHARE
        home = self.name.startswith(("RTX 2", "RTX 3", "RTX 4", "RTX 5", "GTX", "TITAN"))
        free = max(0.0, shown - CONTEXT_TAKES - (DESKTOP_TAKES if home else 0.0))
        return Gpu(name or self.name, int(shown * 2**30), int(free * 2**30), self.bf16)


@cache
def cards() -> dict[str, Card]:
    """Return the table: name → card."""
    text = (resources.files(__package__) / "cards.toml").read_text(encoding="utf-8")
    return {
        name: Card(
            name,
            float(row["memory"]),
            row["half"] * 1e12,
            row["fp32"] * 1e12,
            row["bandwidth"] * 1e9,
            row["bf16"],
        )
        for name, row in tomllib.loads(text)["cards"].items()
    }


def card_of(device: str) -> Card | None:
    """Return the card that a driver calls ``device``: NVIDIA GeForce RTX 4060 Laptop GPU."""
    words = set(re.split(r"[^a-z0-9]+", device.lower()))
    found = [card for name, card in cards().items() if words.issuperset(name.lower().split())]
    return max(found, key=lambda card: len(card.name), default=None)


def card_named(name: str) -> Gpu:
    """Return the device that a person calls ``name``: a card, or a size such as 8GB.

    Of a size it is as fast as the slowest card of that size in the table.

    Raises:
        PlanError: there is no such card; the sentence names near ones.
    """
    if (size := _gigabytes(name)) is not None:
        alike = min(
            (card for card in cards().values() if card.bf16),
            key=lambda card: (abs(card.memory - size), card.half),
        )
        return alike.gpu(f"{size:g} GB ({alike.name})", size)
    short = {_short(known): card for known, card in cards().items()}
    wanted = _short(name)
    if wanted in short:
        return short[wanted].gpu()
    if sized := re.fullmatch(r"(.*\S)\s+(\S+)", name.strip()):
        card = short.get(_short(sized[1]))
        if card is not None and card.memory == _gigabytes(sized[2]):
            return card.gpu()
    near = [short[one].name for one in get_close_matches(wanted, short, n=4, cutoff=0.4)]
    raise PlanError("error.gpu_unknown", name=name, near=", ".join(near or list(cards())[9:45:5]))


def elsewhere(here: Machine, gpu: str | None = None, memory: str | None = None) -> Machine:
    """Return a machine with ``gpu``, or with none, and so much ``memory``; ``here`` for the rest.

    Raises:
        PlanError: the card is not known, or the memory is not a size.
    """
    made = replace(
        here, gpus=() if gpu is None else (card_named(gpu),), process_bytes=0, elsewhere=True
    )
    if memory is None:
        # What is open here now says nothing of the other machine; a GPU's host is large enough.
        return replace(made, available_bytes=int(here.memory_bytes * (1 - COMPUTER_TAKES)))
    size = _gigabytes(memory)
    if size is None:
        raise PlanError("error.memory_size", value=memory)
    total = int(size * 2**30)
    return replace(made, memory_bytes=total, available_bytes=int(total * (1 - COMPUTER_TAKES)))


def _gigabytes(text: str) -> float | None:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:g|gb|gib)\s*", text.lower())
    return float(found[1]) if found and float(found[1]) > 0 else None


def _short(name: str) -> str:
    """Return the name as it is compared: ``NVIDIA GeForce RTX 4060`` and ``4060`` are one."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return re.sub(r"^(?:nvidia|geforce|tesla|quadro)*(?:rtx|gtx)?", "", plain).removesuffix("gpu")

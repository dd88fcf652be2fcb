"""Speed: how soon and how fast base and tuned model answer, and the memory that takes."""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from weitiao.evaluation.beside import Both, reader, write_measure
from weitiao.evaluation.forgetting.probe import load_probe
from weitiao.records.record import Message

if TYPE_CHECKING:
    import torch

    from weitiao.models.pair import Voice

STREAMS = 2
"""Questions of the probe that are streamed, one in each language; the same ones in every run."""

LONG = 200
"""Tokens of the answer whose time is told."""

FEWEST_TOKENS, SECONDS = 32, 0.5
"""A stream may end after so many tokens, once it has taken so long: the rest is extrapolated."""

BATCH_TOKENS = 32
BATCHES = 3
"""The fastest of so many counts; a slow model is asked once, and its streams are fewer, too."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast one model answers.

    ``first_token_seconds``: from the question to the first token, and ``tokens_per_second``
    after it, both the median of ``streams`` answers given one at a time without an end;
    ``long_seconds``: for an answer of :data:`LONG` tokens, by these two where ``extrapolated``
    (from at least 32 tokens), else measured. ``batch_tokens_per_second``: with several answers
    at once. ``memory_bytes``: the most held meanwhile, of a GPU's memory or by the process on a
    CPU (where the system is not Linux: what it held at the end); the other model is in it where
    the two share no weights.
    """

    first_token_seconds: float
    tokens_per_second: float
    long_seconds: float
    extrapolated: bool
    streams: int
    batch_tokens_per_second: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Speed:
    """The content of ``speed.json``.

    ``device``: the GPU's name, or ``cpu``. ``prompt_tokens``: of the longest question.
    ``batch_size`` answers of ``batch_tokens`` tokens each are a batch. ``long_tokens``: the
    length that ``long_seconds`` is about.
    """

    base: Pace
    tuned: Pace
    device: str
    prompt_tokens: int
    batch_size: int
    batch_tokens: int
    long_tokens: int


load_speed = reader(Speed)
"""Read ``speed.json``; RunError where it is missing or is not of this version."""


def measure_speed(both: Both, path: Path) -> Speed:
    """Time both models on a few questions of the probe, and write ``path``.

    Raises:
        RunError: the file cannot be written.
    """
    asked = [Message("user", question.prompt) for question in load_probe(STREAMS)]
    prompts = [both.chat.prompt_ids([message]) for message in asked]
    speed = Speed(
        base=_pace(both, both.base, prompts),
        tuned=_pace(both, both.tuned, prompts),
        device=_name(both.base.model.device),
        prompt_tokens=max(map(len, prompts)),
        batch_size=both.batch_size,
        batch_tokens=BATCH_TOKENS,
        long_tokens=LONG,
    )
    write_measure(path, speed)
    return speed


def _pace(both: Both, voice: "Voice", prompts: list[list[int]]) -> Pace:
    device = voice.model.device
    most = _begin_peak(device)
    # What is made once, such as kernels and buffers, is no part of the pace.
    both.greedy(voice, prompts[:1], 2, stops=False)
    streams: list[list[float]] = []
    while not streams or (
        len(streams) < len(prompts) and sum(s[-1] for s in streams) < STREAMS * SECONDS
    ):
        streams.append(_stream(voice, prompts[len(streams)]))
    first = median(s[0] for s in streams)
    rate = median((len(s) - 1) / max(s[-1] - s[0], 1e-9) for s in streams)
    whole = all(len(s) == LONG for s in streams)
    long = median(s[-1] for s in streams) if whole else first + (LONG - 1) / rate
    batch = _batch_rate(both, voice, prompts)
    return Pace(first, rate, long, not whole, len(streams), batch, _held(device, most=most))


def _stream(voice: "Voice", prompt: list[int]) -> list[float]:
    """Return the seconds after which each token came."""
    from weitiao.models.generate import Sampling, stream

    came: list[float] = []
    with voice.speaking():
        started = time.perf_counter()
        for _ in stream(voice.model, prompt, Sampling(LONG), ()):
            came.append(time.perf_counter() - started)
            if len(came) >= FEWEST_TOKENS and came[-1] > SECONDS:
                break
    return came


def _batch_rate(both: Both, voice: "Voice", prompts: list[list[int]]) -> float:
    """Return the tokens a second of the fastest batch."""
    batch = [prompts[i % len(prompts)] for i in range(both.batch_size)]
    spent: list[float] = []
    while not spent or (len(spent) < BATCHES and sum(spent) < 2 * SECONDS):
        started = time.perf_counter()
        both.greedy(voice, batch, BATCH_TOKENS, stops=False)
        spent.append(time.perf_counter() - started)
    return len(batch) * BATCH_TOKENS / min(spent)


def _begin_peak(device: "torch.device") -> bool:
    """Forget the most memory held so far; return whether the most from now on can be told."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        # The kernel's count of the most pages begins anew; Linux alone has this.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _held(device: "torch.device", *, most: bool) -> int:
    """Return the bytes held: the most since :func:`_begin_peak`, or now."""
    import psutil  # type: ignore[import-untyped]
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not most:
        return int(psutil.Process().memory_info().rss)
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.split("VmHWM:")[1].split(maxsplit=1)[0]) << 10


def _name(device: "torch.device") -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

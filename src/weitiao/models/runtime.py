"""What must be set in the process before torch is imported."""

import ctypes
import logging
import os
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

KEPT_BLOCKS = 264 << 20
"""Larger blocks go back when they are freed. The head's logits, at most 256 MB
(``head.CHUNK_LOGITS`` in fp32), are kept: they come each time."""


def prepare_process() -> None:
    """Let OpenMP threads sleep while they wait, and let glibc keep freed memory.

    Spinning threads slow everything down once another process holds a core, but a few
    microseconds of it save two sleepers a wake-up: measured, 1.23 times the tokens a second on
    two free cores. Half the time of a training step on a CPU can go into the page faults of
    mmap and munmap. oneDNN and its binding keep the last 1,024 products each, and a new number
    of tokens makes some 26 others: 20 MB a step, scattered so that the heap cannot be used again.
    With 32 of a few sizes (see ``flat.SIZES_OF``) a small model's steps are 1.25 times as fast as
    with 16; 128 add a tenth to that, and 10 to 25% to the memory after 200 steps. All of it takes
    effect only before torch is loaded, so the doors call this first. What the user has
    set in the environment stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "32")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # compressed-tensors draws bars of its own.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # PEFT loads bitsandbytes wherever it is installed, and it warns of what only answers use.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    keep_blocks(KEPT_BLOCKS)
    _tell_malloc(_M_TRIM_THRESHOLD, 2**31 - 1)


def keep_blocks(largest: int) -> None:
    """Let glibc keep freed blocks of up to ``largest`` bytes, and give larger ones back at once.

    Blocks of many sizes that seldom come again in the same order leave holes.
    """
    _tell_malloc(_M_MMAP_THRESHOLD, largest)


def _tell_malloc(what: int, value: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(what, value)


def leave_out_bitsandbytes() -> None:
    """Let no import find bitsandbytes from now on: for a process that quantizes nothing.

    PEFT loads it wherever it is installed, and with it comes torch's compiler: 2 of the 6 CPU
    seconds that importing PEFT takes.
    """
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]

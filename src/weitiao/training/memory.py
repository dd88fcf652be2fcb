"""How much memory is held, and whether an error says that there is too little of it."""

import gc
import sys

import psutil  # type: ignore[import-untyped]
import torch

_SAYINGS = ("out of memory", "can't allocate", "alloc_failed", "bad_alloc", "not enough memory")


def short_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that memory is short: PyTorch's, its libraries', Python's."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(saying in text for saying in _SAYINGS)


def give_back() -> None:
    """Return what is not in use to the GPU, so that smaller pieces can be cut from it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_now(device: torch.device) -> int:
    """Return the bytes held now: of the GPU's memory by PyTorch, or by the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    return int(psutil.Process().memory_info().rss)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held so far: of the GPU's memory, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    # The kernel counts in KiB on Linux and in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

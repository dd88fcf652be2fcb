"""How much memory is held."""

import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch


def memory_now(device: torch.device, born_bytes: int = 0) -> int:
    """Return the bytes held now: of the GPU's memory by PyTorch, or by the process on a CPU.

    Of a process made by fork, what it holds beyond the ``born_bytes`` that it was given.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    if born_bytes:
        return max(0, own_bytes() - born_bytes)
    return int(psutil.Process().memory_info().rss)


def own_bytes() -> int:
    """Return the bytes of this process's memory that no file backs (Linux)."""
    return _kernel_says("RssAnon")


def _kernel_says(name: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(status.split(f"{name}:")[1].split(maxsplit=1)[0]) << 10


def peak_memory(device: torch.device, born_bytes: int = 0) -> int:
    """Return the most bytes held so far; see :func:`memory_now`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if born_bytes:
        # Libraries, which a file backs, are the same pages in all processes.
        return max(0, _kernel_says("VmHWM") - _kernel_says("RssFile") - born_bytes)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    # The kernel counts in KiB on Linux and in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

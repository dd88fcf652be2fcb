"""The machine as a value: what this process may really use of it, not what the box holds."""

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from weitiao.plan.recipe import Device

CpuBf16 = Literal["none", "emulated", "fast"]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device; memory in bytes, ``free_bytes`` at the time of the look."""

    name: str
    memory_bytes: int
    free_bytes: int
    bf16: bool

    @property
    def half_name(self) -> Literal["bfloat16", "float16"]:
        """The 16-bit format that its tensor cores multiply, as torch calls it."""
        return "bfloat16" if self.bf16 else "float16"


@dataclass(frozen=True, slots=True)
class Machine:
    """Cores and bytes that this process may use; limits of containers are taken into account.

    ``cpu_bf16``: the processor multiplies bf16 itself (fast), by way of fp32 (emulated),
    or it is not known (none). ``process_bytes``: what this process holds already, torch and
    tokenizer included, or 0 where it was not looked at. ``bitsandbytes``: the library
    for weights and optimizer states of few bits is installed; ``deepspeed`` likewise.
    ``elsewhere``: it is not this machine.
    """

    cores: int
    memory_bytes: int
    available_bytes: int
    gpus: tuple[Gpu, ...]
    cpu_bf16: CpuBf16
    disk_free_bytes: int
    os: str
    python: str
    torch: str | None
    process_bytes: int = 0
    bitsandbytes: bool = True
    deepspeed: bool = True
    elsewhere: bool = False

    def free_on(self, device: Device) -> int:
        """Return the bytes that a training on ``device`` may take: what is free, what it holds."""
        if device == "cuda":
            return self.gpus[0].free_bytes
        return self.available_bytes + self.process_bytes


def probe(path: Path = Path(), torch_allowed: bool = True, for_training: bool = True) -> Machine:
    """Look at this machine; ``path`` says whose disk is meant and need not exist yet.

    Without ``torch_allowed`` torch is not imported, and GPUs are not seen. ``for_training``:
    all that a training imports is imported, to tell what it holds.
    """
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    limit, used = cgroup_memory()
    total, available = int(memory.total), int(memory.available)
    if limit is not None and limit < total:
        total, available = limit, min(available, max(0, limit - used))
    return Machine(
        cores=usable_cores(),
        memory_bytes=total,
        available_bytes=available,
        gpus=_gpus() if torch_allowed else (),
        cpu_bf16=cpu_bf16(),
        disk_free_bytes=shutil.disk_usage(_existing(path)).free,
        os=platform.platform(terse=True),
        python=platform.python_version(),
        torch=_version("torch"),
        process_bytes=_held() if torch_allowed and for_training else 0,
        bitsandbytes=_version("bitsandbytes") is not None,
        deepspeed=_version("deepspeed") is not None,
    )


def _held() -> int:
    """Return the bytes that this process holds, with all that a training imports."""
    import peft  # noqa: F401
    import psutil

    return int(psutil.Process().memory_info().rss)


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores this process may keep busy: its affinity, cut by the container's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    for folder in _cgroups(root, "cpu"):
        quota = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and quota[0] not in ("max", "-1"):
            cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def cgroup_memory(root: Path = Path("/")) -> tuple[int | None, int]:
    """Return (limit, in use) of the tightest memory limit on this process, in bytes.

    Pages that only cache files count as in use to the kernel, but are given back when
    needed, so they are left out here. No limit: (None, 0).
    """
    tightest: tuple[int | None, int] = (None, 0)
    for folder in _cgroups(root, "memory"):
        limit = _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")
        if not limit or not limit[0].isdigit():
            continue
        used = _words(folder / "memory.current") or _words(folder / "memory.usage_in_bytes")
        stat = _words(folder / "memory.stat")
        counts = dict(zip(stat[::2], stat[1::2], strict=False))
        cached = int(counts.get("total_inactive_file", counts.get("inactive_file", "0")))
        held = max(0, int(used[0]) - cached) if used else 0
        if tightest[0] is None or int(limit[0]) - held < tightest[0] - tightest[1]:
            tightest = (int(limit[0]), held)
    return tightest


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups (v2 and v1), innermost first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, names, inside = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if names else "")
        folder = top / inside.lstrip("/")
        while folder != top:
            yield folder
            folder = folder.parent
        yield top


def cpu_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> CpuBf16:
    """Return how the processor multiplies bf16, by the flags that the kernel lists."""
    flags: set[str] = set()
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    flags = set(value.split())
                    break
    except OSError:
        return "none"
    if flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        return "fast"
    return "emulated" if flags else "none"


def _gpus() -> tuple[Gpu, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    found = []
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        # torch also counts emulated bf16 as supported; the tensor cores have it from Ampere on.
        native = torch.cuda.get_device_capability(i) >= (8, 0)
        found.append(Gpu(torch.cuda.get_device_name(i), total, free, native))
    return tuple(found)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

"""What the process that computes is told of memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from weitiao.serving.openvino.engine import large_pages

KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")

ASKED = """
held = [b"x" * (64 << 20) for _ in range(4)]
flags = [line.split() for line in open("/proc/self/smaps") if line.startswith("VmFlags:")]
print(sum("hg" in of_one for of_one in flags))
"""
"""Prints for how many ranges of its memory a process has asked for large pages."""


def test_what_the_user_set_stays() -> None:
    assert large_pages({}) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    given = large_pages({"GLIBC_TUNABLES": "glibc.malloc.check=3", "A": "b"})
    assert given == {"GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.hugetlb=1", "A": "b"}
    own = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert large_pages(own) == own


@pytest.mark.skipif(
    not KERNEL.exists() or "[madvise]" not in KERNEL.read_text(encoding="ascii"),
    reason="this system gives large pages to all, or to nobody",
)
def test_a_process_begun_so_asks_for_large_pages() -> None:
    def asking(environment: dict[str, str]) -> int:
        command = [sys.executable, "-c", ASKED]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert asking({}) == 0
    assert asking(large_pages({})) > 0

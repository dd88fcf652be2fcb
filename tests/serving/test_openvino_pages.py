"""What the process that computes is told of memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from weitiao.serving.openvino.engine import large_pages

KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")

MANY_MB = """
held = [b"x" * (64 << 20) for _ in range(4)]
print(open("/proc/self/smaps_rollup").read().split("AnonHugePages:")[1].split()[0])
"""


def test_what_the_user_set_stays() -> None:
    assert large_pages({}) == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    given = large_pages({"GLIBC_TUNABLES": "glibc.malloc.check=3", "A": "b"})
    assert given == {"GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.malloc.hugetlb=1", "A": "b"}
    own = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    assert large_pages(own) == own


@pytest.mark.skipif(
    not KERNEL.exists() or "[never]" in KERNEL.read_text(encoding="ascii"),
    reason="this system has no large pages to give",
)
def test_a_process_begun_so_has_large_pages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MANY_MB],
        env=large_pages({}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) > 64 << 10, "KiB"

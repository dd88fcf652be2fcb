"""The memory of several processes is counted once where they share it."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from weitiao.api.replay_served import peak_memory_of

SHARED = 200 << 20
PROGRAM = f"""
import mmap, os, sys
pages = mmap.mmap(-1, {SHARED})
for at in range(0, {SHARED}, 4096):
    pages[at] = 1
told, done = os.pipe()
if not os.fork():
    for at in range(0, {SHARED}, 4096):
        pages[at]
    os.write(done, b".")
    sys.stdin.read()
    os._exit(0)
os.read(told, 1)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system tells no PSS")
def test_what_two_processes_share_counts_once() -> None:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        with peak_memory_of(psutil.Process(parent.pid)) as peak:
            assert parent.stdout.readline() == b"held\n"
        assert len(psutil.Process(parent.pid).children()) == 1
        assert SHARED <= peak() < 1.5 * SHARED

"""Runs a command and sees to it that nothing of it outlives the one who wanted it.

vLLM's workers go on, and keep the GPU's memory, where its server is killed
(vllm-project/vllm#55510). So this small process stands between: it runs the command in a process
group of its own and ends the whole group when the command ends, or when its own standard input
does, which the system closes whatever its parent died of. Run as a script, with nothing imported
but Python's own: ``python -I -S vllm_guard.py FOLDER COMMAND…``; FOLDER is removed at the end.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

GRACE = 10.0
"""Seconds that the command gets to end by itself when it is asked to."""


def guard(folder: str, command: Sequence[str]) -> int:
    """Run ``command`` and return its exit status (128 and more: it was ended by a signal)."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    signal.signal(signal.SIGTERM, lambda *_: _send(process.pid, signal.SIGTERM))
    threading.Thread(target=_end_with_parent, args=(process.pid,), daemon=True).start()
    # It is only looked at here: as long as it is not reaped, no other group can get its number.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    _send(process.pid, signal.SIGKILL)
    code = process.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return code if code >= 0 else 128 - code


def _end_with_parent(group: int) -> None:
    # Not sys.stdin.read(), whose lock would still be held when the interpreter ends.
    while os.read(0, 4096):
        pass
    _send(group, signal.SIGTERM)
    time.sleep(GRACE)
    _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1], sys.argv[2:]))

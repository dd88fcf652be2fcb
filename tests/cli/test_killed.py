"""A run that is killed goes on with --resume and ends with the same bytes."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from conftest import QUICK, Weitiao, break_off

LONGER = ("max_steps=12", "eval_every=4", "save_every=4", *QUICK[3:])
DRAWING = {
    precision: (*LONGER, f"precision={precision}", "train.lora.dropout=0.1")
    for precision in ("fp32", "bf16")
}

# Sends itself the signal where it is asked to, so that the place is exact: at an event, or
# while the files of a checkpoint, or of the best weights, are being written.
KILLER = """
import os, sys
from weitiao import cli
from weitiao.events import EventLog
from weitiao.training import checkpoint, loop
place, step, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def kill_self():
    os.kill(os.getpid(), number)

emit, save_file = EventLog.emit, checkpoint.save_file
written, trained = loop.write_checkpoint, loop.save_trained

def and_kill(self, what, **values):
    emit(self, what, **values)
    if what == place and values.get("step") == step:
        kill_self()

def half_a_file(tensors, path):
    save_file(tensors, path)
    if place == "half" and path.parent.name == f".step-{step}.new":
        os.truncate(path, path.stat().st_size // 2)
        kill_self()
    if place == "one of two" and path.parent.name == f".step-{step}.new":
        kill_self()

def whole_but_not_renamed(folder, *rest):
    written(folder, *rest)
    if place == "before the rename" and folder.name == f".step-{step}.new":
        kill_self()

looks = 0
def best_weights(*given):
    global looks
    trained(*given)
    looks += 1
    if place == "best weights" and looks * 4 == step:
        kill_self()

EventLog.emit, checkpoint.save_file = and_kill, half_a_file
loop.write_checkpoint, loop.save_trained = whole_but_not_renamed, best_weights
sys.exit(cli.main(sys.argv[4:]))
"""

QUICKLY = [
    ("train.step", 6, 9, "fp32"),
    ("train.step", 7, 15, "bf16"),
    ("half", 8, 9, "bf16"),
    ("before the rename", 8, 9, "fp32"),
]
WRITING = ("half", "one of two", "before the rename", "best weights")
SLOWLY = [
    *(("train.step", n, number, "fp32") for n in range(1, 13) for number in (9, 15)),
    *(("train.step", n, 9, "bf16") for n in (2, 5, 11)),
    *((kind, 8, 9, "bf16") for kind in ("train.eval", "train.checkpoint")),
    *((where, n, 9, how) for where in WRITING for n in (4, 8, 12) for how in ("fp32", "bf16")),
]
EVERY = [
    *QUICKLY,
    *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOWLY if case not in QUICKLY),
]


@pytest.fixture(scope="module")
def whole(
    tiny_base: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], bytes]:
    """The adapter of the run that nothing stopped, by precision."""
    from weitiao import cli

    @cache
    def made(precision: str) -> bytes:
        out = tmp_path_factory.mktemp("whole") / "run"
        line = ["train", str(finished / "tea.jsonl"), "--model", str(tiny_base), "--out", str(out)]
        assert cli.main([*line, *DRAWING[precision]]) == 0
        return (out / "adapter" / "adapter_model.safetensors").read_bytes()

    return made


@pytest.mark.parametrize(("place", "step", "number", "precision"), EVERY)
def test_killed_and_resumed(
    weitiao: Weitiao, data: Path, tiny_base: Path, whole: Callable[[str], bytes],
    place: str, step: int, number: int, precision: str,
) -> None:  # fmt: skip
    line = ["train", str(data), "--model", str(tiny_base), *DRAWING[precision]]
    killed = subprocess.run(
        [sys.executable, "-c", KILLER, place, str(step), str(number), *line],
        cwd=data.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    run = data.parent / "runs" / "tea"
    if number == 9:
        assert killed.returncode == -9
    elif step < 12:
        assert killed.returncode == 3
        assert f"after step {step} of 12" in killed.stderr
    else:
        assert killed.returncode == 0, "nothing was left to do"
    said = weitiao(*line, "--resume")
    assert said.code == 0, said.err
    assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == whole(precision)
    assert not list(run.rglob(".*")), "nothing half-written is left"


def test_without_resume_a_broken_off_training_is_left_alone(
    weitiao: Weitiao, data: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_off(monkeypatch, weitiao, 6, "train", data, "--model", tiny_base, *LONGER)
    said = weitiao("train", "tea")
    assert said.code == 2
    assert "broken off after step 4" in said.err
    assert "broken off" in weitiao("runs").out
    assert weitiao("train", "tea", "--resume").code == 0


class Screen:
    """What a program shows on its terminal, read piece by piece."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.unread = ""

    def wait_for(self, wanted: str, seconds: float = 60) -> None:
        """Read up to ``wanted``."""
        until = time.monotonic() + seconds
        while wanted not in self.unread and time.monotonic() < until:
            if select.select([self.handle], [], [], 1)[0]:
                self.unread += os.read(self.handle, 65536).decode(errors="replace")
        assert wanted in self.unread, self.unread
        self.unread = self.unread.partition(wanted)[2]


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_ctrl_c_stops_the_answer_and_not_the_conversation(finished: Path) -> None:
    ours, theirs = pty.openpty()
    code = "import sys; from weitiao.cli import main; sys.exit(main())"
    chat = subprocess.Popen(
        [sys.executable, "-c", code, "chat", "tea", "--max-new-tokens", "100000"],
        cwd=finished, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm", "WEITIAO_LANG": "en"},
        # Its own session with this terminal, so that Ctrl-C reaches it as a signal.
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    screen = Screen(ours)
    try:
        screen.wait_for("you> ")
        os.write(ours, "泡几分钟？\n".encode())
        screen.wait_for("tuned> ")
        time.sleep(0.5)
        os.write(ours, b"\x03")
        screen.wait_for("[stopped]")
        screen.wait_for("you> ")
        # Python itself misses a signal between the prompt and its wait for a key.
        time.sleep(0.5)
        os.write(ours, b"\x03")
        screen.wait_for("To leave: /quit")
        os.write(ours, b"/quit\n")
        assert chat.wait(20) == 0
    finally:
        chat.kill()
        os.close(ours)

"""Ctrl-C and SIGTERM: once is a checkpoint and an end, said at once; twice is at once."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from small_work import events, weights, work

from weitiao.errors import TrainingError
from weitiao.events import Event
from weitiao.training.interrupt import stop_requested
from weitiao.training.loop import train


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_told_while_the_step_still_runs(number: int) -> None:
    told = threading.Event()
    before = signal.getsignal(number)
    with stop_requested(told.set) as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert told.wait(5), "said while the block still runs"
        assert stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert signal.getsignal(number) is before


def test_under_nohup_a_lost_terminal_changes_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requested(lambda: pytest.fail("nobody asked")) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_second_ctrl_c_interrupts_at_once() -> None:
    def ask_twice() -> None:
        with stop_requested(lambda: None):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        ask_twice()


def test_nothing_is_left_behind_where_no_signal_came() -> None:
    threads = threading.active_count()
    with stop_requested(lambda: pytest.fail("nobody asked")):
        pass
    assert threading.active_count() == threads


def test_a_training_that_is_stopped_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole = work(tmp_path / "whole", "save_every=5")
    train(whole)
    folder = tmp_path / "stopped"

    def ask(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    doomed = work(folder, "save_every=5")
    doomed.events.listeners = (ask,)
    with pytest.raises(TrainingError, match="after step 3 of 6"):
        train(doomed)
    assert [step for step, _ in doomed.run.checkpoints()] == [3]
    assert len(events(doomed.run, "train.stopping")) == 1
    resumed = work(folder, "save_every=5")
    train(resumed)
    assert weights(resumed.run) == weights(whole.run)


def test_asked_to_stop_in_the_last_step_it_is_done(tmp_path: Path) -> None:
    def ask(event: Event) -> None:
        if event.kind == "train.step" and event.data["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    job = work(tmp_path, "max_steps=2")
    job.events.listeners = (ask,)
    assert train(job).step == 2
    assert job.run.stage_done("train")

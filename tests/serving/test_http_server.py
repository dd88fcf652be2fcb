"""The process: its address, a taken port, an engine that does not start, and its end."""

import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from serving.counting import CountingEngine, service
from weitiao.errors import ModelError, RunError
from weitiao.serving.app import create_app
from weitiao.serving.desk import LOG
from weitiao.serving.options import ServeOptions
from weitiao.serving.running import log_to_stderr, run_server

PROGRAM = """
from serving.counting import CountingEngine, saying, service
from weitiao.serving.app import create_app
from weitiao.serving.running import log_to_stderr, run_server

engine = CountingEngine(saying("字" * 50), pace=0.02)
made = service(engine, port=0)
with log_to_stderr():
    run_server(create_app(made), made.options, lambda address: print(address, flush=True))
print("closed" if engine.closed else "left open", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise on Windows")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_lets_running_answers_end_and_closes_the_engine(number: int) -> None:
    paths = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        for _ in range(100):
            if httpx.get(f"{address}/ready").status_code == 200:
                break
            time.sleep(0.05)
        asked = {"messages": [{"role": "user", "content": "a"}], "stream": True}
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=asked) as reply:
            lines = reply.iter_lines()
            next(lines)
            process.send_signal(number)
            assert list(lines)[-2] == "data: [DONE]"
        said, log = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, said.strip()) == (0, "closed")
    assert '"event": "request"' in log
    assert "Traceback" not in log


def test_the_log_goes_on_where_stderr_was_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    with log_to_stderr():
        LOG.warning("one")
        said = first.getvalue()
        first.close()
        monkeypatch.setattr(sys, "stderr", second)
        LOG.warning("two")
    assert [json.loads(line)["event"] for line in (said + second.getvalue()).splitlines()] == [
        "one",
        "two",
    ]


def test_the_log_is_everybodys_again_afterwards(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    loggers = (LOG, logging.getLogger("uvicorn.error"))
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    with log_to_stderr():
        LOG.warning("ours")
    LOG.warning("theirs")
    assert [(logger.handlers, logger.propagate, logger.level) for logger in loggers] == before
    assert [record.message for record in caplog.records] == ["theirs"]
    assert "theirs" not in capsys.readouterr().err


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunError, match=str(port)):
            run_server(create_app(service(port=port)), ServeOptions(port=port))


def test_an_address_that_is_not_ours() -> None:
    options = ServeOptions(host="192.0.2.1", auth=False)
    with pytest.raises(RunError, match=r"192\.0\.2\.1"):
        run_server(create_app(service()), options)


def test_an_engine_that_does_not_start_ends_the_server() -> None:
    class Heavy(CountingEngine):
        async def start(self) -> None:
            raise ModelError("error.no_chat_template", model="heavy")

    engine = Heavy()
    with pytest.raises(ModelError, match="heavy"):
        run_server(create_app(service(engine)), ServeOptions(port=0))
    assert engine.closed

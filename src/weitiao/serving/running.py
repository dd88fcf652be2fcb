"""The server's process: its port, its log, and its end."""

import errno
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TextIO

import uvicorn
from fastapi import FastAPI

from weitiao.errors import RunError
from weitiao.serving.desk import LOG, Desk
from weitiao.serving.keys import check_exposure
from weitiao.serving.options import ServeOptions
from weitiao.serving.protocol import BoundedHttp


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and the fields that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["trace"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what stderr is now: what it was when the log began may be closed since."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Write the server's log to stderr inside the block, a JSON object a line."""
    handler = _Stderr()
    handler.setFormatter(JsonLines())
    loggers = (LOG, logging.getLogger("uvicorn.error"))
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, handlers, propagate, level in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def run_server(
    app: FastAPI, options: ServeOptions, opened: Callable[[str], None] = lambda address: None
) -> None:
    """Serve until SIGINT or SIGTERM; answers under way get ``grace_seconds``.

    ``opened`` is told the address once connections are taken, while the engine still loads.

    Raises:
        RunError: the port is taken, the address cannot be listened on, or others could reach
            it without a key.
        ModelError: the engine cannot be started.
    """
    check_exposure(options)
    desk: Desk = app.state.desk
    listening = _listen(options)
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=options.grace_seconds,
    )
    server = _Server(config)

    def give_up() -> None:
        server.should_exit = True

    desk.on_failure = give_up
    host, port = listening.getsockname()[:2]
    opened(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    with listening:
        server.run(sockets=[listening])
    if desk.failure is not None:
        raise desk.failure


class _Server(uvicorn.Server):
    """Ends without killing its own process by the signal that stopped it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # A second signal leaves the application's own shutting down out.
        await self.config.app.state.desk.close()  # type: ignore[union-attr]


def require_port(options: ServeOptions) -> None:
    """Raise where the server could not listen as it is asked to, before work is done for it.

    Raises:
        RunError: the port is taken, or the address cannot be listened on.
    """
    _listen(options).close()


def _listen(options: ServeOptions) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM
        )[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            # From here on connections wait for the server instead of being refused.
            made.listen(2048)
        except OSError:
            made.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RunError("serve.error.port", port=options.port) from error
        raise RunError(
            "serve.error.address", host=options.host, port=options.port, cause=error
        ) from error
    return made

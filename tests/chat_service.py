"""A service on this machine that speaks OpenAI's protocol, as the tests tell it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """``body``: text to answer with, or bytes to send as they are."""

    body: str | bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Service:
    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    most_at_once: int = 0


Script = Callable[[dict[str, Any]], Reply | str]
"""From the request's JSON to what is answered."""


@contextmanager
def serving(script: Script, models: tuple[str, ...] = ()) -> Iterator[Service]:
    lock = threading.Lock()
    at_once = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, json.dumps({"data": [{"id": m} for m in models]}).encode(), {})

        def do_POST(self) -> None:
            nonlocal at_once
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                at_once += 1
                service.most_at_once = max(service.most_at_once, at_once)
                service.requests.append(asked)
                service.headers.append({k.lower(): v for k, v in self.headers.items()})
            try:
                said = script(asked)
            finally:
                with lock:
                    at_once -= 1
            reply = said if isinstance(said, Reply) else Reply(said)
            if self.path != "/v1/chat/completions":
                reply = Reply(b"no such page", 404)
            body = reply.body
            if isinstance(body, str):
                choice = {
                    "message": {"role": "assistant", "content": body},
                    "finish_reason": "stop",
                }
                usage = {"prompt_tokens": 7, "completion_tokens": 3}
                body = json.dumps({"choices": [choice], "usage": usage}).encode()
            self._send(reply.status, body, reply.headers)

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            with suppress(BrokenPipeError, ConnectionResetError):  # whoever asked has given up
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service = Service(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def last_user(asked: dict[str, Any]) -> str:
    return str(asked["messages"][-1]["content"])

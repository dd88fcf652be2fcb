"""What comes before a body: in however many pieces, and never without an end."""

import socket
import time
from contextlib import suppress

import httpx
import pytest

from serving.counting import CountingEngine, service, serving


def connect(address: str) -> socket.socket:
    url = httpx.URL(address)
    return socket.create_connection((url.host, url.port or 0), timeout=20)


def reply(talk: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    told = b""
    with suppress(ConnectionError):
        while part := talk.recv(1 << 16):
            told += part
    return told


@pytest.mark.parametrize("endless", [b"x-a: b\r\n" * 100, b"a" * 1000])
def test_a_head_without_an_end_is_refused(endless: bytes) -> None:
    with serving(service(CountingEngine())) as address, connect(address) as talk:
        talk.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n")
        if endless.startswith(b"a"):
            talk.sendall(b"x-endless: ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 10_000_000:
                talk.sendall(endless)
                sent += len(endless)
        assert sent < 10_000_000
        assert httpx.get(f"{address}/health").status_code == 200


def test_a_long_body_is_no_long_head() -> None:
    with serving(service(CountingEngine(), max_body_bytes=1 << 20)) as address:
        asked = {"prompt": "一" * 100_000, "max_tokens": 1}
        told = httpx.post(f"{address}/generate", json=asked)
        assert (told.status_code, told.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_two_requests_on_one_connection_in_small_pieces() -> None:
    asked = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-long: " + b"v" * 40_000 + b"\r\n\r\n"
    last = asked.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    with serving(service(CountingEngine())) as address, connect(address) as talk:
        for piece in (asked[:10], asked[10:30_000], asked[30_000:], last[:50], last[50:]):
            talk.sendall(piece)
            time.sleep(0.02)
        assert reply(talk).count(b"HTTP/1.1 200 OK") == 2

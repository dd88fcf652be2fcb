"""The page's own server: this computer only, a token on every request, nothing read by name."""

import errno
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from weitiao.errors import RunError
from weitiao.evaluation.people.review import LONGEST_COMMENT, LONGEST_NAME, Asked, Review
from weitiao.evaluation.people.store import LEVELS
from weitiao.words import LANGUAGES, catalogue, language, say

HOST = "127.0.0.1"
TOKEN_HEADER = "X-Weitiao-Token"
_MOST_BYTES = 64 << 10

_WORDS = (
    "title", "intro", "name", "start", "settle", "take_over", "progress", "question", "reference",
    "user", "assistant", "system", "tool", "answer", "empty", "yes", "no", "mark", "comment",
    "comment_hint", "better", "tie", "next", "back", "help", "close", "keys", "saved", "finished",
    "none_disputed", "to_settle", "said", "show_results", "open", "lost", "switch",
)  # fmt: skip
"""The page's words, each ``people.page.…`` in the catalogue."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}


class ReviewServer(ThreadingHTTPServer):
    """Serves the page for one review; ``address`` is what to open."""

    daemon_threads = True

    def __init__(self, review: Review, port: int, reviewer: str) -> None:
        """Take the port (0: any that is free).

        Raises:
            RunError: another program has it.
        """
        self.token = secrets.token_urlsafe(16)
        self.files = _files(reviewer)
        self.actions: dict[str, Callable[[Asked], dict[str, Any]]] = {
            f"/api/{name}": getattr(review, name)
            for name in ("join", "beat", "list", "row", "vote", "results")
        }
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise RunError("error.people_port", port=port) from error
            raise RunError("error.people_no_port", port=port, cause=error) from error

    @property
    def address(self) -> str:
        """The page's address, with the token where no request carries it by itself."""
        return f"http://{HOST}:{self.server_port}/#{self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a page that was closed in the middle of an answer is no fault."""


@contextmanager
def serving(review: Review, port: int, reviewer: str = "") -> Iterator[ReviewServer]:
    """Yield the server; ``serve_forever`` is for the caller. Names are free again afterwards.

    Raises:
        RunError: the port is taken.
    """
    with ReviewServer(review, port, reviewer) as server:
        try:
            yield server
        finally:
            review.store.leave(review.sessions)


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0, as it is here by default: no connection outlives the server.
    timeout = 30
    server_version, sys_version = "weitiao", ""

    def do_GET(self) -> None:
        server = cast("ReviewServer", self.server)
        found = server.files.get(self.path.partition("?")[0])
        if not self._ours():
            self._answer(HTTPStatus.FORBIDDEN)
        elif found is None:
            self._answer(HTTPStatus.NOT_FOUND)
        else:
            self._answer(HTTPStatus.OK, *found)

    def do_POST(self) -> None:
        server = cast("ReviewServer", self.server)
        token = self.headers.get(TOKEN_HEADER, "")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        if not self._ours() or not secrets.compare_digest(token.encode(), server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, RunError("error.people_token"))
        elif (action := server.actions.get(self.path)) is None:
            self._answer(HTTPStatus.NOT_FOUND)
        else:
            self._act(action, body)

    def _act(self, action: Callable[[Asked], dict[str, Any]], body: bytes) -> None:
        try:
            answer = action(TypeAdapter(Asked).validate_json(body))
        except ValidationError:
            self._answer(HTTPStatus.BAD_REQUEST)
        except RunError as error:
            self._refuse(HTTPStatus.CONFLICT, error)
        else:
            self._answer(HTTPStatus.OK, _json(answer))

    def _ours(self) -> bool:
        """Refuse names that a foreign page had its own name server point at this computer."""
        port = cast("ReviewServer", self.server).server_port
        return self.headers.get("Host") in (f"{HOST}:{port}", f"localhost:{port}")

    def _refuse(self, status: HTTPStatus, error: RunError) -> None:
        told: dict[str, str] = {tongue: error.sentence(tongue) for tongue in LANGUAGES}
        self._answer(status, _json({"error": error.key.removeprefix("error."), **told}))

    def _answer(
        self, status: HTTPStatus, body: bytes = b"", kind: str = "application/json"
    ) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal for sentences."""


def _files(reviewer: str) -> dict[str, tuple[bytes, str]]:
    """Return everything that can be had without a token, by its path."""
    folder = resources.files("weitiao.evaluation.people") / "page"
    found = {
        f"/page.{ending}": ((folder / f"page.{ending}").read_bytes(), kind)
        for ending, kind in _TYPES.items()
    }
    found["/"] = found.pop("/page.html")
    said = {
        tongue: {
            **{name: catalogue()[f"people.page.{name}"][tongue] for name in _WORDS},
            **{level: say(f"people.level.{level}", tongue) for level in LEVELS},
        }
        for tongue in LANGUAGES
    }
    given = {
        "language": language(),
        "reviewer": reviewer,
        "levels": LEVELS,
        "longest": {"name": LONGEST_NAME, "comment": LONGEST_COMMENT},
        "words": said,
    }
    found["/words.json"] = (_json(given), "application/json")
    return found


def _json(value: object) -> bytes:
    return orjson.dumps(value)

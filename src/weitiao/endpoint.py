"""A small client of any service that speaks OpenAI's ``/chat/completions``.

Answers are kept on disk, so that a run that was cut off, or is run again, pays for
nothing twice. The key is read from the environment and stands in no message and no file.
"""

import hashlib
import json
import os
import random
import re
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from weitiao.errors import WeitiaoError

if TYPE_CHECKING:
    import httpx2

Messages = Sequence[Mapping[str, Any]]
Item = TypeVar("Item")
Result = TypeVar("Result")

FIRST_PAUSE = 1.0
"""Seconds before the first repetition; each further pause is twice as long."""

_ATTEMPTS = 5
_ATTEMPTS_WHEN_SILENT = 2  # each one has already cost the whole time limit
_LONGEST_PAUSE = 120.0
_LONGEST_CONNECT = 10.0
_PATIENCE = 3
"""After so many failed requests in a row, the service and not the request is at fault."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class EndpointError(WeitiaoError):
    """A service that cannot be asked, refuses, or answers what cannot be read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said, and how many tokens it counted (0 where it does not tell).

    ``finish``: why it ended, in the service's word (stop, length, …). ``error``: why this
    request alone has no answer; ``text`` is empty then.
    """

    text: str
    finish: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    error: EndpointError | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests ``sent`` (repetitions count) and ``answered``; answers found in the cache; tokens.

    Tokens are those of answers that were sent for, as counted by the service.
    """

    sent: int = 0
    answered: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Endpoint:
    """A service and a model to ask there. The arguments are those of ``EndpointOptions``.

    ``cache`` is the file that answers are kept in. To be closed, or used in a ``with``.

    Raises:
        EndpointError: no address or model is given, or the address, the key, the proxy or
            the cache cannot be used.
    """

    def __init__(
        self,
        url: str | None,
        model: str | None,
        key_variable: str,
        max_requests: int,
        parallel: int,
        timeout: float,
        cache: Path | None = None,
    ) -> None:
        if not url:
            raise EndpointError("error.endpoint_no_url")
        if not model:
            raise EndpointError("error.endpoint_no_model")
        self.model, self.parallel = model, parallel
        self._variable, self._max_requests = key_variable, max_requests
        self._base, self._shown, host = _address(url)
        self._key = _key(key_variable)
        self._client = self._connected(timeout, trust_env=host not in _LOOPBACK)
        self._cache = _Cache(cache) if cache is not None else None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._usage = Usage()
        self._failures = 0

    @property
    def usage(self) -> Usage:
        """What has been asked so far."""
        return self._usage

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections and the cache."""
        self._client.close()
        if self._cache is not None:
            self._cache.close()

    def ask(self, requests: Iterable[Messages], **sampling: Any) -> Iterator[Answer]:
        """Yield the answer to each request, in order; see :meth:`answer`."""
        return self.map(lambda messages: self.answer(messages, **sampling), requests)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` in order; ``parallel`` threads work a little ahead.

        For work that asks several times for one item, by :meth:`answer`. What ``function``
        raises is raised here in its turn; what is then under way is still kept in the cache.
        """
        pool = ThreadPoolExecutor(self.parallel)
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                # The copied context carries the language spoken into the thread.
                waiting.append(pool.submit(copy_context().run, function, item))
                if len(waiting) >= 2 * self.parallel:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            self._stopped.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self._stopped.clear()

    def answer(self, messages: Messages, **sampling: Any) -> Answer:
        """Return the answer to one conversation; may be called from several threads.

        ``sampling``: further fields of the request, such as ``temperature`` and ``seed``.
        Overload (429, 5xx) and silence are met by asking again after growing pauses.

        Raises:
            EndpointError: the service cannot be reached, refuses the key, does not know the
                model, speaks another language, fails three requests in a row, or
                ``max_requests`` are spent. A single failed request is ``Answer.error``.
        """
        asked = {"model": self.model, "messages": [dict(m) for m in messages], **sampling}
        said = json.dumps([self._base, asked], sort_keys=True).encode()
        key = hashlib.blake2b(said, digest_size=32).digest()
        if self._cache is not None and (known := self._cache.get(key)) is not None:
            self._count(cached=1)
            return known
        answer = self._asked(json.dumps(asked).encode())
        if answer.error is None:
            self._failures = 0
            if self._cache is not None:
                self._cache.put(key, answer)
            self._count(
                answered=1,
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
            )
            return answer
        with self._lock:
            self._failures += 1
            if self._failures >= _PATIENCE:
                raise answer.error
        return answer

    def _asked(self, body: bytes) -> Answer:
        import httpx2

        attempt, attempts, pause = 0, _ATTEMPTS, 0.0
        while True:
            attempt += 1
            try:
                self._count(sent=1)
                reply = self._client.post(f"{self._base}/chat/completions", content=body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.InvalidURL) as error:
                problem = self._error("error.endpoint_unreachable", cause=_short(str(error)))
                if not self._usage.answered:
                    raise problem from error
            except httpx2.TimeoutException:
                problem = self._error("error.endpoint_silent", seconds=self._client.timeout.read)
                attempts = _ATTEMPTS_WHEN_SILENT
            except httpx2.HTTPError as error:
                problem = self._error("error.endpoint_unreachable", cause=_short(str(error)))
            else:
                if reply.status_code < 500 and reply.status_code not in (408, 425, 429):
                    return self._read(reply)
                problem = self._error(
                    "error.endpoint_busy", status=reply.status_code, cause=self._cause(reply)
                )
                pause = _retry_after(reply.headers.get("retry-after"))
            # Jitter: without it, all threads would come back at the same moment.
            wait = max(pause, FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
            if attempt >= attempts or pause > _LONGEST_PAUSE or self._stopped.wait(wait):
                return Answer("", error=problem)

    def _read(self, reply: "httpx2.Response") -> Answer:
        status = reply.status_code
        if status in (401, 403):
            key = "error.endpoint_key_refused" if self._key else "error.endpoint_key_missing"
            raise self._error(key, variable=self._variable, status=status)
        if status == 404:
            raise self._not_found()
        if status >= 300:
            cause = self._cause(reply)
            return Answer(
                "", error=self._error("error.endpoint_refused", status=status, cause=cause)
            )
        answer = _parsed(reply)
        if answer is None:
            error = self._error("error.endpoint_malformed", reply=self._cause(reply))
            if not self._usage.answered:
                raise error
            return Answer("", error=error)
        return answer

    def _not_found(self) -> EndpointError:
        """A model that the service does not know, told with those it knows, or a wrong address."""
        import httpx2

        try:
            listed = self._client.get(f"{self._base}/models").json()
            names = [str(model["id"]) for model in listed["data"]]
        except (httpx2.HTTPError, ValueError, LookupError, TypeError):
            names = []
        if not names or self.model in names:
            return self._error("error.endpoint_not_found", model=self.model)
        shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        return self._error("error.endpoint_model_unknown", model=self.model, names=shown)

    def _cause(self, reply: "httpx2.Response") -> str:
        """Return what the service says is wrong, in one short line without the key."""
        try:
            error = reply.json()["error"]
            text = error["message"] if isinstance(error, dict) else error
        except (ValueError, LookupError, TypeError):
            text = reply.text
        return _short(str(text).replace(self._key, "***") if self._key else str(text))

    def _count(self, **more: int) -> None:
        with self._lock:
            if more.get("sent") and self._usage.sent >= self._max_requests:
                raise EndpointError("error.endpoint_cap", limit=self._max_requests)
            now = {name: getattr(self._usage, name) + number for name, number in more.items()}
            self._usage = replace(self._usage, **now)

    def _error(self, key: str, **values: object) -> EndpointError:
        return EndpointError(key, url=self._shown, **values)

    def _connected(self, timeout: float, trust_env: bool) -> "httpx2.Client":
        import httpx2

        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        patience = httpx2.Timeout(timeout, connect=min(timeout, _LONGEST_CONNECT))
        try:
            return httpx2.Client(headers=headers, timeout=patience, trust_env=trust_env)
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            # The proxy of the environment is unreadable, or a SOCKS proxy without its package.
            raise EndpointError("error.endpoint_proxy", cause=_short(str(error))) from error


class _Cache:
    """Answers by the hash of what was asked, in an SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._telling():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS answers"
                " (asked BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
            )

    def get(self, key: bytes) -> Answer | None:
        with self._telling():
            found = self._db.execute("SELECT answer FROM answers WHERE asked = ?", (key,))
            row = found.fetchone()
        return Answer(**json.loads(row[0]), cached=True) if row else None

    def put(self, key: bytes, answer: Answer) -> None:
        kept = {n: v for n, v in asdict(answer).items() if n not in ("cached", "error")}
        with self._telling():
            self._db.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(kept))
            )

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            raise EndpointError(
                "error.endpoint_cache", path=self._path, cause=_short(str(error))
            ) from error


def _address(url: str) -> tuple[str, str, str]:
    """Return the address without its ending, the same without a password in it, and the host."""
    base = url.strip().rstrip("/").removesuffix("/chat/completions")
    try:
        parts = urlsplit(base)
        host = parts.hostname
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise EndpointError("error.endpoint_url", url=url)
    return base, f"{parts.scheme}://{host}{port}{parts.path}", host


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key.isascii() or not key.isprintable():
        raise EndpointError("error.endpoint_key_unreadable", variable=variable)
    return key


def _parsed(reply: "httpx2.Response") -> Answer | None:
    """Return the answer in a reply, or None where it has another shape."""
    try:
        body = reply.json()
        choice = body["choices"][0]
        text = choice["message"].get("content") or ""
        used = body.get("usage") or {}
        asked, said = (int(used.get(f"{side}_tokens") or 0) for side in ("prompt", "completion"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return Answer(text, choice.get("finish_reason"), asked, said) if isinstance(text, str) else None


def _retry_after(header: str | None) -> float:
    """Return the seconds that the header ``Retry-After`` asks for: a number or a date."""
    text = (header or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    try:
        asked = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return 0.0
    return max(0.0, (asked.replace(tzinfo=asked.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}…"

"""How toxic answers are, by a service of the user's own.

It is sent ``POST {"texts": ["…", …]}`` and answers ``{"scores": [0.02, …]}``: a number from
0 (harmless) to 1 for each text, in the same order.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from weitiao.endpoint import EndpointError
from weitiao.records.files import write_error

if TYPE_CHECKING:
    import httpx2

FIRST_PAUSE = 1.0
"""Seconds before the first repetition; the second pause is twice as long."""

_AT_ONCE = 32
_ATTEMPTS = 3
_TIMEOUT = 60.0


def ask_scorer(url: str, texts: Iterable[str], path: Path) -> dict[str, float]:
    """Return text → how toxic the service at ``url`` finds it.

    What it says is kept in ``path`` batch by batch, and not asked for again.

    Raises:
        EndpointError: the service cannot be reached, or does not answer as it should.
        RunError: ``path`` cannot be written.
    """
    import httpx2

    known = _kept(path, url)
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    with httpx2.Client(timeout=_TIMEOUT) as client:
        for start in range(0, len(missing), _AT_ONCE):
            batch = missing[start : start + _AT_ONCE]
            found = dict(zip(batch, _asked(client, url, batch), strict=True))
            known |= found
            _keep(path, url, found)
    return known


def _asked(client: "httpx2.Client", url: str, texts: Sequence[str]) -> list[float]:
    import httpx2

    attempt = 0
    while True:
        attempt += 1
        try:
            reply = client.post(url, json={"texts": texts})
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            cause = str(error) or type(error).__name__
        else:
            if reply.status_code < 400:
                return _scores(reply, url, len(texts))
            cause = str(reply.status_code)
        if attempt == _ATTEMPTS:
            raise EndpointError("error.toxicity_unreachable", url=url, cause=cause)
        time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))


def _scores(reply: "httpx2.Response", url: str, count: int) -> list[float]:
    try:
        found = [float(score) for score in reply.json()["scores"]]
    except (ValueError, LookupError, TypeError):
        found = []
    if len(found) != count or not all(0 <= score <= 1 for score in found):
        said = " ".join(reply.text.split())[:100]
        raise EndpointError("error.toxicity_nonsense", url=url, reply=said)
    return found


def _kept(path: Path, url: str) -> dict[str, float]:
    """Read what was kept; a last line that a kill left broken is passed over."""
    known = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            of, text, score = orjson.loads(line)
        except ValueError:
            continue
        if of == url:
            known[text] = score
    return known


def _keep(path: Path, url: str, found: dict[str, float]) -> None:
    lines = b"".join(orjson.dumps([url, text, score]) + b"\n" for text, score in found.items())
    try:
        with path.open("ab") as out:
            # The newline in front closes a line that a kill left broken.
            out.write(b"\n" + lines)
    except OSError as error:
        raise write_error(path, error) from error

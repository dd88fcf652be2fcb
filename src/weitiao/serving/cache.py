"""Questions that were answered before, answered from memory: a file, or Redis."""

import hashlib
import json
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from weitiao.serving.engine import Ask, Logprob, Step
from weitiao.serving.keeping import KeepOptions
from weitiao.serving.redis_cache import RedisAnswers
from weitiao.serving.service import Served
from weitiao.serving.tables import Background, Base, Tables

_VERSION = 1
_SCHEMA = (
    "CREATE TABLE answer (key BLOB PRIMARY KEY, model TEXT NOT NULL, steps BLOB NOT NULL,"
    " made REAL NOT NULL, used REAL NOT NULL)",
    "CREATE INDEX answer_by_use ON answer (used)",
)
_SECONDS = 0.5
"""The longest that a question waits for what may be remembered of it."""

_AT_ONCE = 32
"""Answers that are forgotten together."""

_DAY = 86400

_HALF_WIDTH = {0x3000: " "} | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}


class Answers(Protocol):
    """Where bytes are remembered by key. Nothing of it raises."""

    async def get(self, model: str, key: bytes) -> bytes | None:
        """Return what was put there."""

    async def put(self, model: str, key: bytes, steps: bytes) -> None:
        """Remember it; ``model`` tells its weights from all others."""

    def close(self) -> None:
        """Write what is waiting."""


class AnswerCache:
    """A :class:`~weitiao.serving.hooks.Cache` of exact or of normalised questions.

    A key is made from the weights (a model without a fingerprint is not remembered), the engine,
    the prompt, the sampling and the stop tokens. With ``normalised`` the prompt counts without
    letter case, runs of blanks, full width and end punctuation of its turns: a question that
    differs from an earlier one in nothing else gets the answer to that one, although the model
    could have answered it otherwise: 'Sure?' as 'Sure.', us as US, one indentation as another.
    """

    def __init__(
        self,
        answers: Answers,
        served: Sequence[Served],
        engine: str,
        *,
        normalised: bool = False,
        sampled: bool = False,
    ) -> None:
        self.sampled = sampled
        self._answers, self._engine, self._normalised = answers, engine, normalised
        self._served = {one.name: one for one in served if one.fingerprint}

    async def get(self, ask: Ask) -> tuple[Step, ...] | None:
        """Return the steps that answered ``ask`` before."""
        served = self._served.get(ask.model)
        if served is None:
            return None
        found = await self._answers.get(served.fingerprint, self._key(served, ask))
        return None if found is None else _read(found)

    async def put(self, ask: Ask, steps: tuple[Step, ...]) -> None:
        """Remember an answer."""
        served = self._served.get(ask.model)
        if served is not None:
            await self._answers.put(served.fingerprint, self._key(served, ask), _written(steps))

    def close(self) -> None:
        """Write what is waiting."""
        self._answers.close()

    def _key(self, served: Served, ask: Ask) -> bytes:
        sampling = ask.sampling
        if sampling.temperature == 0:
            # The likeliest token is the same one.
            sampling = replace(sampling, seed=None, top_p=1.0)
        prompt = _evened(served, ask.ids) if self._normalised else ask.ids
        parts = [served.fingerprint, self._engine, astuple(sampling), ask.stop_ids, prompt]
        return hashlib.sha256(json.dumps(parts).encode()).digest()


def _evened(served: Served, ids: Sequence[int]) -> list[str | int]:
    """Return a prompt's control tokens as they are, and the texts between them evened out."""
    tokenizer: Any = served.chat.tokenizer
    control = tokenizer.added_tokens_decoder
    parts: list[str | int] = []
    for is_control, run in groupby(ids, control.__contains__):
        own = list(run)
        text = "" if is_control else tokenizer.decode(own, clean_up_tokenization_spaces=False)
        # Token ids that are no whole text must not all become the same one.
        parts += own if is_control or "\ufffd" in text else [normalise(text)]
    return parts


def normalise(text: str) -> str:
    """Return ``text`` in lower case and half width, with single blanks and no end punctuation."""
    text = " ".join(text.translate(_HALF_WIDTH).casefold().split())
    while text and (text[-1] == " " or unicodedata.category(text[-1]) == "Po"):
        text = text[:-1]
    return text


def _written(steps: Iterable[Step]) -> bytes:
    return json.dumps([astuple(step) for step in steps], separators=(",", ":")).encode()


def _read(found: bytes) -> tuple[Step, ...] | None:
    try:
        return tuple(
            Step(
                tuple(ids),
                finish,
                tuple(Logprob(i, value, tuple(map(tuple, top))) for i, value, top in logprobs),
            )
            for ids, finish, logprobs in json.loads(found)
        )
    except (ValueError, TypeError):
        return None


class FileAnswers:
    """A file of answers, which several servers may share."""

    def __init__(
        self, path: Path, megabytes: float, days: float, models: Iterable[str] = ()
    ) -> None:
        """Begin or go on; answers of other weights than ``models`` are deleted."""
        self._bytes, self._seconds = megabytes * 1e6, days * _DAY
        self._models = tuple(models)
        self._file = Background(Tables(path, _SCHEMA, _VERSION), self._tidy)

    async def get(self, model: str, key: bytes) -> bytes | None:
        """Return what was put there."""
        del model
        now = time.time()

        def look(base: Base) -> bytes | None:
            found = base.execute(
                "SELECT steps FROM answer WHERE key = ? AND made > ?", (key, now - self._seconds)
            ).fetchone()
            return None if found is None else bytes(found[0])

        steps = await self._file.ask(look, _SECONDS)
        if steps is not None:
            self._file.tell(_saying("UPDATE answer SET used = ? WHERE key = ?", now, key))
        return steps

    async def put(self, model: str, key: bytes, steps: bytes) -> None:
        """Remember it, and forget what was not used for longest where it gets too much."""
        now = time.time()
        if len(steps) > self._bytes / 4:
            return

        def write(base: Base) -> None:
            base.execute(
                "INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?)",
                (key, model, steps, now, now),
            )
            self._shrink(base)

        self._file.tell(write)

    def close(self) -> None:
        """Write what is waiting."""
        self._file.close()

    def _tidy(self, base: Base) -> None:
        base.execute("DELETE FROM answer WHERE made <= ?", (time.time() - self._seconds,))
        marks = ", ".join("?" * len(self._models))
        base.execute(f"DELETE FROM answer WHERE model NOT IN ({marks})", self._models)
        self._shrink(base)

    def _shrink(self, base: Base) -> None:
        oldest = f"SELECT key FROM answer ORDER BY used LIMIT {_AT_ONCE}"
        while _size(base) > self._bytes:
            if not base.execute(f"DELETE FROM answer WHERE key IN ({oldest})").rowcount:
                return


def _size(base: Base) -> int:
    """Return the bytes of a file that are in use; freed ones are written again."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (base.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


def _saying(statement: str, *values: object) -> Callable[[Base], object]:
    return lambda base: base.execute(statement, values)


def open_cache(
    options: KeepOptions, path: Path, served: Sequence[Served], engine: str
) -> AnswerCache | None:
    """Return the memory that was asked for; None for none. Nothing is read or connected to yet.

    ``path``: its file, where it is not in Redis; ``engine``: the name of what answers.

    Raises:
        RunError: the package for Redis is missing.
    """
    if options.cache == "off":
        return None
    answers: Answers
    if options.cache_url is not None:
        answers = RedisAnswers(options.cache_url, options.cache_days)
    else:
        models = {one.fingerprint for one in served}
        answers = FileAnswers(path, options.cache_megabytes, options.cache_days, models)
    normalised, sampled = options.cache == "normalised", options.cache_sampled
    return AnswerCache(answers, served, engine, normalised=normalised, sampled=sampled)

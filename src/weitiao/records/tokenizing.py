"""Texts to token ids: one, or thousands at once at the tokenizer library's own speed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

_TAGS_IN_TEXT = re.compile(r"</?(think|tool_call|tool_response|tools|answer)>")
_APART = "\0weitiao cuts here\0"
_TEXTS_A_CALL = 16
"""Texts encoded as one: each call of the library costs as much as five tokens."""

_AROUND = (("字", "字"), ("a", "b"), ("a ", " b"), ("a\n", "\nb"), ("  ", "  "), ("'", "\u0338b"))
"""What can stand on both sides of a token and be swallowed, joined or marked there: letters,
blanks, an accent that joins what is before it."""


class Tokenizer(Protocol):
    """What is used of ``transformers.PreTrainedTokenizerBase``."""

    chat_template: Any
    name_or_path: str
    eos_token_id: int | None

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens the tokenizer knows by name."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Id → added token, with ``content`` and ``special``."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Render a conversation."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of ``text``."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Tokens to train on: ``ids`` int32 [L]; ``scored`` bool [L], true where a token is a target.

    ``row`` is the number of the record it was made from; one record can give several
    samples. ``shortened``: its texts were cut to fit.
    """

    ids: npt.NDArray[np.int32]
    scored: npt.NDArray[np.bool_]
    row: int
    shortened: bool = False


class TokenSearch:
    """Finds the first of ``tokens`` in a text; of two that begin there, the longer."""

    def __init__(self, tokens: Iterable[str]) -> None:
        longest_first = sorted((t for t in tokens if t.strip()), key=lambda t: (-len(t), t))
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._beginnings = tuple(sorted({t[0] for t in longest_first}))

    def first(self, text: str) -> str | None:
        """Return the first token in ``text``; None if it holds none."""
        # Most texts hold not even the first character of a token, and that is soon seen.
        for character in self._beginnings:
            if character in text:
                found = self.pattern.search(text)
                return found.group() if found else None
        return None


class Encoder:
    """A tokenizer's ``encode`` for many texts, and where texts can be cut without a trace."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.end = tokenizer.eos_token_id
        self._added = {t.content: i for i, t in tokenizer.added_tokens_decoder.items()}
        self._cuts: dict[str, bool] = {}

    @cached_property
    def separator(self) -> str:
        """What a text given to :meth:`segments` must not hold."""
        candidates = sorted(special_tokens(self._tokenizer) & self._added.keys())
        return next((token for token in candidates if self.cuts_at(token)), _APART)

    def one(self, text: str) -> list[int]:
        """Return the ids of ``text``."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def each(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, the same as :meth:`one` gives."""
        # Only a fast tokenizer has the library's object, and only that takes many texts.
        library = getattr(self._tokenizer, "backend_tokenizer", None)
        if library is None:
            return [self.one(text) for text in texts]
        # One ordinary call sets padding, truncation and special tokens as `one` has them.
        self.one("")
        return [e.ids for e in library.encode_batch_fast(texts, add_special_tokens=False)]

    def segments(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return (ids, starts, lengths): text ``i`` has ``lengths[i]`` ids from ``starts[i]`` on.

        Several texts are encoded as one, parted by a special token that cuts.
        """
        between = self._added.get(self.separator)
        if between is None:
            found = self.each(texts)
            lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
            ids = np.fromiter(chain.from_iterable(found), dtype=np.int32)
            return ids, np.cumsum(lengths) - lengths, lengths
        ends_with = [
            self.separator.join((*texts[i : i + _TEXTS_A_CALL], ""))
            for i in range(0, len(texts), _TEXTS_A_CALL)
        ]
        ids = np.fromiter(chain.from_iterable(self.each(ends_with)), dtype=np.int32)
        ends = np.flatnonzero(ids == between)
        assert len(ends) == len(texts)
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1))[: len(ends)]
        return ids, starts, ends - starts

    def cuts_at(self, token: str) -> bool:
        """Tell whether ``token`` parts any text so that both sides are encoded by themselves.

        It must be an added token that swallows no blanks beside it, and that no other added
        token can overlap or hold; and what follows it must be encoded as at a text's start,
        which SentencePiece tokenizers do not always do.
        """
        if token not in self._cuts:
            self._cuts[token] = (
                token in self._added
                and not any(_overlap(other, token) for other in self._added if other != token)
                and all(
                    self.one(before + token + after)
                    == [*self.one(before), self._added[token], *self.one(after)]
                    for before, after in _AROUND
                )
            )
        return self._cuts[token]

    def cutting(self, text: str) -> list[tuple[int, int]]:
        """Return (start, end) of each token in ``text`` at which it can be cut."""
        tokens = TokenSearch(token for token in self._added if token in text)
        found = tokens.pattern.finditer(text)
        return [match.span() for match in found if self.cuts_at(match.group())]


def common_start(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> int:
    """Return how many ids both begin with."""
    shorter = min(len(a), len(b))
    other = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(other[0]) if len(other) else shorter


def special_tokens(tokenizer: Tokenizer) -> set[str]:
    """Return the tokens that are special to the tokenizer."""
    added = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    return added | set(tokenizer.all_special_tokens)


def markers_of_template(tokenizer: Tokenizer) -> set[str]:
    """Return added tokens that the template writes as markers, special or not.

    DeepSeek-R1's ``<｜User｜>`` is not declared special, and would open a turn all the same.
    """
    template = str(tokenizer.chat_template)
    added = {t.content for t in tokenizer.added_tokens_decoder.values()}
    return {t for t in added if t[:1] in "<[" and t in template and not _TAGS_IN_TEXT.fullmatch(t)}


def _overlap(other: str, token: str) -> bool:
    """Tell whether ``other`` can hold ``token``, or share characters with its beginning or end."""
    return token in other or any(
        other.endswith(token[:k]) or other.startswith(token[-k:]) for k in range(1, len(token))
    )

"""A stretch of a JSON text that slides over the file, so that memory does not grow with it."""

import re
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any

from weitiao.records.reading.values import DEEPEST, LENIENT
from weitiao.records.record import Reason

_BLANK = re.compile(r"[\s\ufeff]*+")
SEPARATORS = re.compile(r"[\s\ufeff,]*+")
"""White space and commas: one too many between items does no harm."""

_LEAST = 1 << 18
"""Characters that are taken in at a time, and fewest that lie ahead after looking ahead."""

_LONGEST_TOKEN = 16
"""An error this near to the end may come from the text ending there: ``\\ud83d\\ude00``."""


class BrokenError(Exception):
    """No JSON value begins here; ``reason`` says where it goes wrong."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Window:
    """``text`` of a file from somewhere on; what lies before ``at`` is done with."""

    def __init__(self, blocks: Iterator[str], line_end: str = "\n") -> None:
        self._blocks = blocks
        self._line_end = line_end
        self._line, self._counted = 1, 0
        self._before = 0
        self.ended = False
        self.text, self.at = "", 0

    def more(self) -> bool:
        """Take in as much again as lies ahead, at least; False where the file has ended.

        What is done with is dropped, so that places in ``text`` change. Doubling keeps the
        cost of a value that is tried again after each call in proportion to its length.
        """
        if self.ended:
            return False
        line, column = self.place(self.at)
        self._line, self._before, self._counted = line, column - 1, 0
        ahead = self.text[self.at :]
        pieces, size, wanted = [ahead], 0, max(len(ahead), _LEAST)
        while size < wanted and not self.ended:
            if (block := next(self._blocks, None)) is None:
                self.ended = True
            else:
                pieces.append(block)
                size += len(block)
        self.text, self.at = "".join(pieces), 0
        return size > 0

    def place(self, at: int) -> tuple[int, int]:
        """Return the line and the column, from 1, of a place in ``text``."""
        line = self._line + self.text.count(self._line_end, self._counted, at)
        begin = self.text.rfind(self._line_end, 0, at)
        return line, (self._before + at if begin < 0 else at - begin - 1) + 1

    def line(self) -> int:
        """Return the line of ``at``."""
        self._line += self.text.count(self._line_end, self._counted, self.at)
        self._counted = self.at
        return self._line

    def skip(self, what: re.Pattern[str] = _BLANK) -> str:
        """Pass over white space and return the character after it; '' at the end of the file."""
        while True:
            if blank := what.match(self.text, self.at):
                self.at = blank.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Match at ``at``, with some thousand characters ahead."""
        while len(self.text) - self.at < _LEAST and self.more():
            pass
        return pattern.match(self.text, self.at)

    def value(self, longest: int | None = None) -> tuple[Any, str]:
        """Return the JSON value at ``at`` and its text, and go on behind it.

        Raises:
            BrokenError: there is none, or it is longer than ``longest`` characters.
        """
        while True:
            try:
                value, end = LENIENT.raw_decode(self.text, self.at)
            except RecursionError as error:
                raise BrokenError(Reason("too_deep", {"limit": DEEPEST})) from error
            except JSONDecodeError as error:
                if self.is_cut(error) and self._may_grow(longest) and self.more():
                    continue
                raise self._broken(error.pos) from error
            except ValueError as error:  # a number of thousands of digits
                raise self._broken(self.at) from error
            if end == len(self.text) and self.more():  # a number may go on
                continue
            text, self.at = self.text[self.at : end], end
            return value, text

    def _broken(self, at: int) -> BrokenError:
        line, column = self.place(at)
        return BrokenError(Reason("broken_item", {"line": line, "column": column}))

    def is_cut(self, error: Exception) -> bool:
        """Tell whether a value may have failed only because ``text`` ends within it."""
        if self.ended or not isinstance(error, JSONDecodeError):
            return False
        near = error.pos > len(self.text) - _LONGEST_TOKEN
        return near or error.msg.startswith("Unterminated string")

    def _may_grow(self, longest: int | None) -> bool:
        return longest is None or len(self.text) - self.at < longest

"""Traditional and simplified Chinese, by OpenCC's tables of phrases and characters."""

import re
from collections.abc import Callable
from functools import cache
from typing import Literal

_CONFIGURATIONS = {"simplified": "t2s", "traditional": "s2t"}
# OpenCC takes UTF-8, in which half of a surrogate pair cannot be written.
_SURROGATES = re.compile("([\ud800-\udfff]+)")
_MOST_PASSES = 4


def to_script(text: str, script: Literal["simplified", "traditional"]) -> str:
    """Return ``text`` in the Chinese script; what is not Chinese stays.

    Which traditional character a simplified one stands for depends on its phrase (OpenCC's
    choice), so that a way back is not always exact.
    """
    if text.isascii():
        return text
    convert = _converter(_CONFIGURATIONS[script])
    # A converted phrase may hold another one that is in the table.
    for _ in range(_MOST_PASSES):
        before, text = (
            text,
            "".join(
                piece if _SURROGATES.match(piece) else convert(piece)
                for piece in _SURROGATES.split(text)
            ),
        )
        if text == before:
            break
    return text


@cache
def _converter(configuration: str) -> Callable[[str], str]:
    from opencc import OpenCC

    convert: Callable[[str], str] = OpenCC(configuration).convert
    return convert

"""Full-width letters, digits and a few signs into half width; Chinese punctuation stays."""

import re

_SIGNS = "＂＃＄％＆＇＊＋－／＜＝＞＠＼＾＿｀｛｜｝"
"""The signs that are converted. ，。！？：；（）［］～ and the like are Chinese punctuation."""

_TO_HALF = {
    code: code - 0xFEE0
    for code in (
        *range(ord("０"), ord("９") + 1),
        *range(ord("Ａ"), ord("Ｚ") + 1),
        *range(ord("ａ"), ord("ｚ") + 1),
        *map(ord, _SIGNS),
    )
}
_FULL = re.compile("[" + "".join(map(re.escape, map(chr, _TO_HALF))) + "．]")
_POINT = re.compile("(?<=[0-9０-９])．(?=[0-9０-９])")


def half_width(text: str) -> str:
    """Return ``text`` with ASCII's full-width letters, digits and a few signs in half width.

    ``．`` is converted between digits only: elsewhere it may end a Chinese sentence.
    """
    if text.isascii() or not _FULL.search(text):
        return text
    return _POINT.sub(".", text).translate(_TO_HALF)

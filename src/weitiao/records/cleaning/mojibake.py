"""Repair text that was UTF-8 and was saved after being read as something else."""

import re
from functools import cache

LOST = "\ufffd"
"""The replacement character: here stood what could not be read."""

_UNRESTORED = re.compile("(?:\ufffd|锟斤拷)+")


def repair(text: str) -> str:
    """Return ``text`` with UTF-8 that was read as GBK or as Latin-1 put right.

    Only what then reads as text is changed: a line is left as it is where in doubt.
    Characters whose bytes were lost become U+FFFD; see :func:`unrestored`.
    """
    if text.isascii() or not _ANY_SIGN.search(text):
        return text
    while (better := _read_as_gbk(_read_as_latin(text))) != text:  # it gets shorter each time
        text = better
    return text


def unrestored(text: str) -> str | None:
    """Return the first stretch in which characters were lost for good, or None."""
    if LOST not in text and "锟斤拷" not in text:
        return None
    found = _UNRESTORED.search(text)
    return text[max(found.start() - 20, 0) : found.start() + 40] if found else None


# --- UTF-8 read as GBK -------------------------------------------------------------------

# Three bytes of UTF-8 begin with these for Chinese and its punctuation; read as GBK, every
# second character or so is one of a first byte and the byte after it, and all are rare.
_FIRST_BYTES = (0xE2, 0xE3, *range(0xE4, 0xEA), 0xEF)
_SUSPECTS = frozenset(
    bytes([first, second]).decode("gb18030")
    for first in _FIRST_BYTES
    for second in range(0x80, 0xC0)
)
_SUSPECT = re.compile("[" + "".join(sorted(_SUSPECTS)) + "]")
_ANY_SIGN = re.compile("[Â-ô" + "".join(sorted(_SUSPECTS)) + "]")
_EURO_OR_LOST = re.compile("([€\ufffd])")
_LOST_BYTES = re.compile("\ufffd+\\??")
_FEWEST_SUSPECTS = 1 / 6
"""Of the characters beyond ASCII; a third of them are suspects in mojibake of Chinese."""
_READS_WELL = 0.8
"""The share of frequent characters that is asked for where the decoding is not exact."""


def _read_as_gbk(text: str) -> str:
    if not _SUSPECT.search(text):
        return text
    # GBK's second bytes begin at 0x40: a line's end was never taken for a part of a character.
    return "\n".join(_line_read_as_gbk(line) for line in text.split("\n"))


def _line_read_as_gbk(line: str) -> str:
    beyond_ascii = [char for char in line if char > "\x7f"]
    if sum(char in _SUSPECTS for char in beyond_ascii) < len(beyond_ascii) * _FEWEST_SUSPECTS:
        return line
    if not beyond_ascii or (better := _decoded(line)) is None:
        return line
    found = [char for char in better if char > "\x7f" and char != LOST]
    lost = better.count(LOST)
    if not found:
        return line
    known = _known(found)
    # Readers leave a mark where they lose a byte; some leave none.
    unmarked = lost - line.count(LOST) - line.count("?")
    plausible = not lost or (max(lost, unmarked * 4, 2) <= len(found) and known >= _READS_WELL)
    return better if plausible and known > _known(beyond_ascii) else line


def _decoded(line: str) -> str | None:
    """Return ``line`` written as GBK and read as UTF-8; None where it cannot be GBK."""
    # The euro sign is CP936's byte 0x80, which GB18030 writes elsewhere; 0xFF is never UTF-8.
    pieces = _EURO_OR_LOST.split(line)
    try:
        data = b"".join({"€": b"\x80", LOST: b"\xff"}.get(p) or p.encode("gb18030") for p in pieces)
    except UnicodeEncodeError:  # half of a surrogate pair
        return None
    # The readers wrote "?" for a last byte that was half a character to them.
    return _LOST_BYTES.sub(LOST, data.decode("utf-8", errors="replace"))


def _known(chars: list[str]) -> float:
    """Return the share of characters that are in frequent use, by GB2312 and Big5."""
    return sum(char in _frequent() for char in chars) / len(chars)


@cache
def _frequent() -> frozenset[str]:
    """Return the punctuation and the first level of characters of GB2312 and of Big5."""
    gb2312 = [(a, b) for a in (0xA1, *range(0xB0, 0xD8)) for b in range(0xA1, 0xFF)]
    gb2312 += [(0xA3, b) for b in range(0xA1, 0xFF)]  # full-width ASCII, with "，" and "！"
    big5 = [(a, b) for a in range(0xA4, 0xC7) for b in (*range(0x40, 0x7F), *range(0xA1, 0xFF))]
    return frozenset(
        bytes(pair).decode(codec, errors="ignore")
        for codec, pairs in (("gb2312", gb2312), ("big5", big5))
        for pair in pairs
    )


# --- UTF-8 read as Latin-1 or Windows-1252 -------------------------------------------------


def _windows_1252() -> dict[int, int]:
    """Return character → byte, both for Latin-1's reading of 0x80–0x9F and for Windows'."""
    table = {code: code for code in range(0x80, 0x100)}
    for byte in range(0x80, 0xA0):
        table[ord(bytes([byte]).decode("cp1252", errors="ignore") or chr(byte))] = byte
    return table


_BYTE = _windows_1252()
_NEXT = "[" + "".join(chr(code) for code, byte in _BYTE.items() if byte < 0xC0) + "]"
_NO_WORD_HOLDS = "[\x80-\x9f€‚ƒ„†‡ˆ‰‹˜¢£¤¥¦§¨¬¯±´µ¶¸¹¼½¾]"
_TYPOGRAPHIC = "[\xa0«»‘’“”‹›…–—•·™®©°²³]"
_LATIN_RUNS = re.compile(
    # Two and more characters in a row …
    f"(?:[Â-ß]{_NEXT}|[à-ï]{_NEXT}{{2}}|[ð-ô]{_NEXT}{{3}}){{2,}}"
    # … or a single one that real text does not hold: in French, « CAFÉ » and « café »… do.
    f"|[â-ï](?!{_TYPOGRAPHIC}{{2}}){_NEXT}{{2}}|ð{_NEXT}{{3}}|[ÂÃ](?![»”’]){_NEXT}"
    f"|[Ä-ß]{_NO_WORD_HOLDS}"
)


def _read_as_latin(text: str) -> str:
    return _LATIN_RUNS.sub(_run_read_as_latin, text)


def _run_read_as_latin(run: re.Match[str]) -> str:
    data = bytes(_BYTE[ord(char)] for char in run[0])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return run[0]

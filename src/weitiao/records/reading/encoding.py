"""Find out how a file's text is encoded, by its bytes alone."""

import codecs
from dataclasses import dataclass
from typing import Literal

from weitiao.errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
_ZEROS_OF_UTF16 = 0.02
"""Above this share of zero bytes it is UTF-16; a stray one happens in any file."""

_CANDIDATES = ("utf-8", "gb18030", "big5")
# GB18030 decodes almost any bytes, so that a decoding which succeeds proves nothing. What
# tells is whether the result reads as Chinese: these characters and marks make up about
# half of running text, and next to none of a wrong decoding.
_COMMON = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年"
    "过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心"
    "她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间"
    "由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给"
    "這個們來為說時會對國過發後種經麼學現當沒動還進樣開從實無與長機關點業將兩問應戰頭體見產話"
    "什么怎么吗呢吧请问答案病药医花春风山水云何处人生先生金银行风格题目"
    "，。？！、：；“”‘’（）《》—…「」"
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """A codec's name, and ``how`` it was found.

    ``given``: by the user; ``mark``: a byte order mark; ``valid``: every byte is UTF-8;
    ``reading``: it is the decoding that reads as text, and single lines may be broken.
    """

    name: str
    how: Literal["given", "mark", "valid", "reading"]


def detect(data: bytes) -> Encoding:
    """Return the encoding of ``data``, a file's beginning that ends at a line's end."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return Encoding(name, "mark")
    zeros = data[0::2].count(0), data[1::2].count(0)
    if sum(zeros) > len(data) * _ZEROS_OF_UTF16:
        # ASCII in UTF-16 has a zero in every other byte: the second one in little endian.
        return Encoding("utf-16-le" if zeros[1] >= zeros[0] else "utf-16-be", "reading")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        best = max(_CANDIDATES, key=lambda name: _reads_as_text(data, name))
        return Encoding(best, "reading")
    return Encoding("utf-8", "valid")


def given(name: str) -> Encoding:
    """Return the encoding the user named.

    Raises:
        DataError: Python knows no codec of that name.
    """
    try:
        return Encoding(codecs.lookup(name).name, "given")
    except LookupError as error:
        raise DataError("error.encoding_unknown", encoding=name) from error


def _reads_as_text(data: bytes, name: str) -> float:
    """Return the share of common characters, less that of bytes that cannot be decoded."""
    text = data.decode(name, errors="replace")
    beyond_ascii = [char for char in text if char > "\x7f"]
    common = sum(char in _COMMON for char in beyond_ascii)
    broken = sum(char == "\ufffd" or "\ue000" <= char <= "\uf8ff" for char in beyond_ascii)
    return (common - 2 * broken) / max(len(beyond_ascii), 1)

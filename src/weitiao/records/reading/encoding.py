"""Find out how a file's text is encoded, by its bytes alone."""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from weitiao.errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\x84\x31\x95\x33", "gb18030"),
)
_BIG_ENDIAN = (codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_ZEROS_OF_UTF16 = 0.02
"""From this share of zero bytes on it may be UTF-16, also where every byte is UTF-8."""
_MOSTLY = 0.5

_SCORED_BYTES = 1 << 16
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_CONVINCING = 0.2
"""Below this score no Chinese encoding is taken: broken rows are told, a wrong guess is not."""

# GB18030 decodes almost any bytes, so that a decoding which succeeds proves nothing. What
# tells is whether the result reads as Chinese: these characters and marks make up about
# half of running text, and next to none of a wrong decoding.
_COMMON = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年"
    "过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心"
    "她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间"
    "由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给"
    "這個們來為說時會對國過發後種經麼學現當沒動還進樣開從實無與長機關點業將兩問應戰頭體見產話"
    "讓該間書聽覺寫讀買賣錢門車電氣東樂師請謝誰難題單場總條幾達設變選邊億萬號證據認識語課錯"
    "什么怎么吗呢吧请问答案病药医花春风山水云何处人生先生金银行风格题目"
    "，。？！、：；“”‘’（）《》—…「」"
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """A codec's name, and ``how`` it was found.

    ``given``: by the user; ``mark``: a byte order mark; ``valid``: every byte is UTF-8;
    ``reading``: it is the decoding that reads as text, and single lines may be broken;
    ``binary``: the file, such as a spreadsheet, says itself how its text is encoded.
    """

    name: str
    how: Literal["given", "mark", "valid", "reading", "binary"]


@dataclass(frozen=True, slots=True)
class Coding:
    """How text stands in a file's bytes: a codec that expects no mark, and what ends a line."""

    codec: str
    newline: bytes

    @property
    def errors(self) -> str:
        """How undecodable bytes become lone surrogates, from which they can be had again."""
        wide = self.codec.startswith(("utf-16", "utf-32"))
        return "surrogatepass" if wide else "surrogateescape"

    @property
    def extends_ascii(self) -> bool:
        """Whether an ASCII character is its one byte."""
        return "\r\n".encode(self.codec) == b"\r\n"

    @property
    def line_end(self) -> str:
        """What ends a line, as text."""
        return self.newline.decode(self.codec)

    def raw(self, text: str) -> bytes:
        """Return the bytes that were decoded to ``text``, lone surrogates included.

        Big5 holds four characters twice; of those the usual code is returned.
        """
        return text.encode(self.codec, self.errors)

    def without_end(self, line: bytes) -> bytes:
        """Return a line without what ends it."""
        for end in (self.newline, "\r".encode(self.codec)):
            if len(line) % len(end) == 0:
                line = line.removesuffix(end)
        return line


def coding_of(name: str, beginning: bytes) -> Coding:
    """Return how the lines of a file that begins so are decoded.

    Lines end in a line feed; only where there is none, in a carriage return.
    """
    codec = "utf-8" if name == "utf-8-sig" else name
    if codec in ("utf-16", "utf-32"):
        codec += "-be" if beginning.startswith(_BIG_ENDIAN) else "-le"
    feed, carriage = "\n".encode(codec), "\r".encode(codec)
    alone = feed not in beginning and carriage in beginning
    return Coding(codec, carriage if alone else feed)


def detect(data: bytes) -> Encoding:
    """Return the encoding of ``data``, a file's beginning or its first that is not ASCII."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return Encoding(name, "mark")
    if data.count(0) > len(data) * _ZEROS_OF_UTF16:
        sample = data[:_SCORED_BYTES]
        shares = {name: _share_of_usual(sample, name) for name in ("utf-16-le", "utf-16-be")}
        best = max(shares, key=lambda name: shares[name])
        if shares[best] > _MOSTLY:
            return Encoding(best, "reading")
    try:
        # A decoder that waits for more: the sample may end within a character.
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        telling = _NOT_ASCII.search(data)
        # In whole units of UTF-16 and UTF-32.
        begin = telling.start() // 4 * 4 if telling else 0
        return Encoding(_best_reading(data[begin : begin + _SCORED_BYTES]), "reading")
    return Encoding("utf-8", "valid")


def given(name: str) -> Encoding:
    """Return the encoding the user named.

    Raises:
        DataError: Python knows no text encoding of that name.
    """
    try:
        found = codecs.lookup(name).name
        "\r\n".encode(found)  # refused by codecs that are no encoding of text, as base64
    except (LookupError, ValueError) as error:
        raise DataError("error.encoding_unknown", encoding=name) from error
    return Encoding(found, "given")


def _share_of_usual(data: bytes, name: str) -> float:
    text, usual = data.decode(name, "replace"), _usual_either()
    return sum(char < "\x7f" or char in usual for char in text) / max(len(text), 1)


def _best_reading(data: bytes) -> str:
    """Return the encoding in which data that is not UTF-8 throughout reads best."""
    scores = {name: _score(data, name, usual()) for name, usual in _USUAL.items()}
    best = max(scores, key=lambda name: scores[name])
    whole = data.decode("utf-8", "replace")
    beyond_ascii = sum(char > "\x7f" for char in whole)
    # Bytes that happen to be UTF-8 are rare: the share of those that are is UTF-8's score.
    as_utf8 = 1 - 2 * whole.count("\ufffd") / max(beyond_ascii, 1)
    return best if scores[best] > max(as_utf8, _CONVINCING) else "utf-8"


def _score(data: bytes, name: str, usual: frozenset[str]) -> float:
    """Return how well ``data`` reads in an encoding, at most 1.

    Half of it is the share of usual characters, half that of the most common ones; what
    cannot be decoded, or only as a character for private use, counts twice against it.
    """
    beyond_ascii = [char for char in data.decode(name, "replace") if char > "\x7f"]
    found = sum(char in usual for char in beyond_ascii)
    common = sum(char in _COMMON for char in beyond_ascii)
    broken = sum(char == "\ufffd" or "\ue000" <= char <= "\uf8ff" for char in beyond_ascii)
    return (found / 2 + common / 2 - 2 * broken) / max(len(beyond_ascii), 1)


@cache
def _usual_gb() -> frozenset[str]:
    """Punctuation, full-width forms and the 3,755 characters of GB 2312's first level."""
    return frozenset(_characters("gb2312", [0xA1, 0xA3, *range(0xB0, 0xD8)]))


@cache
def _usual_big5() -> frozenset[str]:
    """Punctuation, full-width forms and the 5,401 characters of Big5's first level."""
    return frozenset(_characters("big5", [0xA1, 0xA2, *range(0xA4, 0xC7)]))


@cache
def _usual_either() -> frozenset[str]:
    return _usual_gb() | _usual_big5()


def _characters(codec: str, first_bytes: list[int]) -> Iterator[str]:
    """Yield the characters of a two-byte codec that begin with one of ``first_bytes``."""
    for first in first_bytes:
        for second in range(0x40, 0xFF):
            yield from bytes((first, second)).decode(codec, "ignore")


_USUAL: dict[str, Callable[[], frozenset[str]]] = {
    "gb18030": _usual_gb,
    "big5": _usual_big5,
    "utf-16-le": _usual_either,
    "utf-16-be": _usual_either,
}
"""The encodings that are tried where data is not UTF-8, and which characters are usual there."""

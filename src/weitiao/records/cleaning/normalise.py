"""Take out what nobody sees: control and zero-width characters and needless white space."""

import re

_RIGHT_TO_LEFT_AND_INDIC = (
    "\u0620-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc"
)
"""Letters between which a zero-width joiner or non-joiner changes what is read."""

_EMOJI = "\u2190-\u21ff\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff"
_TAGS = "\U000e0020-\U000e007f"

_INVISIBLE = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # Cc but tab, line feed and the other line ends
    "\xad\u061c\u200b\u200e\u200f\u202a-\u202e"  # soft hyphen, zero-width space, bidi controls
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0001"  # joiners, invisible operators, BOM, annotation
    + _TAGS
)
_ODD_SPACES = "\xa0\u1680\u2000-\u200a\u202f\u205f"
_ODD_LINE_ENDS = "\r\x0b\x0c\x85\u2028\u2029"

_ODD = re.compile(f"[{_INVISIBLE}{_ODD_SPACES}{_ODD_LINE_ENDS}\u200c\u200d]")
# The group is kept: flags such as Scotland's are a black flag and tag characters. Joiners
# stay between emoji, and after letters of scripts that need them.
_UNSEEN = re.compile(
    f"(\U0001f3f4[{_TAGS}]+)"
    f"|[{_INVISIBLE}]"
    f"|(?<![{_RIGHT_TO_LEFT_AND_INDIC}])\u200c"
    f"|(?<![{_RIGHT_TO_LEFT_AND_INDIC}{_EMOJI}])\u200d"
    f"|(?<=[{_EMOJI}])\u200d(?![{_EMOJI}])"
)
_SPACE = re.compile(f"[{_ODD_SPACES}]")
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")

_BLANKS = " \t\u3000"
# The look behind keeps a long run within a line from being tried from each of its blanks.
_BLANKS_AT_LINE_END = re.compile(f"(?<![{_BLANKS}])[{_BLANKS}]+$", re.MULTILINE)
_MANY_LINE_ENDS = re.compile("\n{4,}")


def normalise(text: str) -> str:
    """Return ``text`` without control and zero-width characters and needless white space.

    Line ends become ``\\n``, odd spaces (no-break, thin, …) a space; blanks at a line's end
    and empty lines at the text's ends go, and more than two empty lines become two. What
    stays: indentation, as of code; the ideographic space U+3000, by which Chinese paragraphs
    and poems are indented; joiners in emoji and in scripts that need them. Nothing is
    composed, decomposed or folded: no NFKC.
    """
    if text.isprintable():  # no control, format or separator character but the space
        return text.strip(" ") if text[:1] == " " or text[-1:] == " " else text
    if _ODD.search(text):
        text = _UNSEEN.sub(r"\1", text)
        text = _LINE_END.sub("\n", _SPACE.sub(" ", text))
    if text[-1:] in _BLANKS or " \n" in text or "\t\n" in text or "\u3000\n" in text:
        text = _BLANKS_AT_LINE_END.sub("", text)
    text = text.strip("\n")
    if "\n\n\n\n" in text:
        text = _MANY_LINE_ENDS.sub("\n\n\n", text)
    # In a single line, blanks at the beginning indent nothing.
    return text if "\n" in text else text.lstrip(" \t")

"""The terminal: what may be written to it, and how times and sizes are said."""

import re
import sys
from io import TextIOWrapper

from rich.console import Console, RenderableType
from rich.text import Text

from weitiao.words import say

PLAIN_WIDTH = 100
"""The width of tables where the output goes to a file or another program."""

# Control characters, overrides of the writing direction and halves of surrogate pairs: they
# would move the cursor, turn a line around, or be refused by the output's encoding.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def screen(to_stderr: bool = False) -> Console:
    """Return a console that prints text as it is: no markup, no highlighting."""
    stream = sys.stderr if to_stderr else sys.stdout
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="replace")
    console = Console(stderr=to_stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


def sentence(console: Console, text: str, style: str = "") -> None:
    """Print a sentence: folded between words on a terminal, one line elsewhere."""
    console.print(Text(text, style=style), soft_wrap=not console.is_terminal)


def verbatim(console: Console, text: str, style: str = "bold") -> None:
    """Print a command or a path so that it can be copied: it is never folded."""
    console.print(Text("  " + text, style=style), soft_wrap=True)


def blank(console: Console) -> None:
    """Leave a line empty."""
    console.print()


def show(console: Console, what: RenderableType) -> None:
    """Print a table or the like."""
    console.print(what)


def clean(text: str, most: int | None = None, lines: int | None = None) -> str:
    """Return ``text`` without what would break the layout; at most so many characters or lines."""
    text = _UNSAFE.sub("", text.replace("\t", "    ").replace("\r\n", "\n"))
    if lines is not None:
        kept = text.split("\n")
        text = "\n".join(kept[:lines]) + ("…" if len(kept) > lines else "")
    return text if most is None or len(text) <= most else text[:most] + "…"


def lasted(seconds: float | None) -> str:
    """Say how long something took or will take; a dash where it is not known."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return say("report.seconds", seconds=f"{seconds:.0f}")
    if seconds < 5400:
        return say("report.minutes", minutes=f"{seconds / 60:.1f}")
    return say("report.hours", hours=f"{seconds / 3600:.1f}")


def memory(size: int | None) -> str:
    """Write a number of bytes in GB; a dash where it is not known."""
    return "–" if size is None else f"{size / 2**30:.2f} GB"


def speed(tokens_per_second: float | None) -> str:
    """Write a speed; a dash where it is not known."""
    if tokens_per_second is None:
        return "–"
    return say("report.tokens_per_second", rate=f"{tokens_per_second:,.0f}")

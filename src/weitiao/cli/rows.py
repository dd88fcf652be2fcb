"""Rows of data as the model sees them."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from weitiao.cli.screen import clean
from weitiao.words import say

if TYPE_CHECKING:
    from weitiao.api import Shown
    from weitiao.records.record import Record

FIRST_ROWS = 3
_SHADES = ("on grey19", "on grey30")
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


def row_head(number: int, record: "Record") -> str:
    """Return the line above a row: its number, and where it stood."""
    return say(
        "cli.row.head",
        number=number,
        place=say("report.place", file=clean(record.origin.file), line=record.origin.line),
    )


def shown_text(record: "Record") -> Padding:
    """Return who says what."""
    text = Text()
    for message in record.messages:
        text.append(f"{say(f'role.{message.role}')}: ", style="cyan")
        text.append(clean(message.content) + "\n")
    if record.text is not None:
        text.append(clean(record.text) + "\n")
    return Padding(text, (0, 0, 0, 2))


def shown_tokens(sample: "Shown", console: Console) -> Padding:
    """Return the row token by token, those that are learnt from marked."""
    text = Text()
    for place, (piece, scored) in enumerate(sample.tokens):
        # A line break is a token too: its mark shows whether it is learnt.
        visible = clean(piece).replace("\n", "⏎\n").replace(_UNREADABLE, "▯")
        if console.is_terminal:
            style = f"{'bold green' if scored else 'white'} {_SHADES[place % 2]}"
            text.append(visible, style=style)
        else:
            ended = visible.endswith("\n")
            body = visible.removesuffix("\n")
            text.append((f"[{body}]" if scored else f"|{body}") + ("\n" if ended else ""))
    learnt = sum(scored for _, scored in sample.tokens)
    text.append("\n" + say("cli.row.tokens", tokens=len(sample.tokens), learnt=learnt) + "\n")
    return Padding(text, (0, 0, 0, 2))


def legend(console: Console) -> str:
    """Return what the marks of :func:`shown_tokens` mean."""
    return say("cli.row.legend" if console.is_terminal else "cli.row.legend_plain")

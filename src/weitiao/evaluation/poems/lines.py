"""Where the lines of a poem are in a text, and which form so many of them make."""

import re
from typing import Literal

_STOPS = "，。？！；、,.?!;"
_BETWEEN = re.compile(rf"[{_STOPS}：:\s]+")
_WRAPPING = re.compile(r"[“”‘’\"'「」『』《》〈〉（）()*#—…·]")


def lines_of(text: str) -> list[str]:
    """Return the lines of the poem: what stands between marks, whatever the layout.

    Rows without marks over a poem that has some are its title and poet, and are passed over.
    """
    rows = [row for row in text.splitlines() if row.strip()]
    while len(rows) > 1 and not _marked(rows[0]) and any(map(_marked, rows)):
        del rows[0]
    pieces = (_WRAPPING.sub("", piece) for piece in _BETWEEN.split("\n".join(rows)))
    return [piece for piece in pieces if piece]


def _marked(row: str) -> bool:
    return any(stop in row for stop in _STOPS)


def shape_of(lines: list[str]) -> Literal["jueju", "lvshi", "pailv"] | None:
    """Return the form of so many lines of five or seven; None where there is none."""
    lengths = {len(line) for line in lines}
    if len(lengths) != 1 or not lengths <= {5, 7}:
        return None
    if len(lines) == 4:
        return "jueju"
    if len(lines) == 8:
        return "lvshi"
    return "pailv" if len(lines) >= 10 and len(lines) % 2 == 0 else None

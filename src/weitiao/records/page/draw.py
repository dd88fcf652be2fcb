"""The histogram of lengths as inline SVG; all words stand beside it as HTML."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

_LABELS_ACROSS, _LABELS_UP = 6, 4
_ROOM_FOR_A_FAR_LIMIT = 12.0
SVG = '<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{}</svg>'


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: where, in percent from the left or the top, and what is written."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """A drawing with the marks of its axes, and where the limit is, in percent from the left.

    ``far``: the limit lies beyond all rows, and its place is out of scale.
    """

    svg: Markup
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    limit: float | None
    far: bool


def histogram(bins: Sequence[tuple[int, int]], limit: int) -> Histogram | None:
    """Draw bins (up to this many tokens, rows) in order, all equally wide; None without rows.

    The width of a bin may vary (its edges are written), so none may be left out.
    """
    edges, counts = [edge for edge, _ in bins], [count for _, count in bins]
    if not counts or max(counts) <= 0:
        return None
    far = limit > edges[-1]
    width = (100 - (_ROOM_FOR_A_FAR_LIMIT if far else 0)) / len(bins)
    ups = _round_numbers(max(counts))
    top = ups[-1]
    grid = "".join(f"M0 {100 - 100 * up / top:.2f}H100" for up in ups)
    bars = "".join(
        f'<rect x="{(i + 0.06) * width:.2f}" y="{100 - 100 * count / top:.2f}" '
        f'width="{0.88 * width:.2f}" height="{100 * count / top:.2f}">'
        f"<title>≤ {edge:,}: {count:,}</title></rect>"
        for i, (edge, count) in enumerate(bins)
        if count > 0
    )
    place = _place(edges, limit) * width
    line = f'<path class="limit" d="M{100 if far else place:.2f} 0V100"/>' if limit > 0 else ""
    every = math.ceil(len(bins) / _LABELS_ACROSS)
    return Histogram(
        svg=Markup(SVG.format(f'<path class="grid" d="{grid}"/>{bars}{line}')),
        across=(
            Tick(0, "0"),
            *(
                Tick((i + 1) * width, f"{edge:,}")
                for i, edge in enumerate(edges)
                if (i + 1) % every == 0
            ),
        ),
        up=tuple(Tick(100 - 100 * up / top, f"{up:,}") for up in ups),
        limit=None if limit <= 0 else 100.0 if far else place,
        far=far,
    )


def _place(edges: Sequence[int], value: int) -> float:
    """Return where ``value`` stands, counted in bins from the left."""
    i = min(bisect_left(edges, value), len(edges) - 1)
    low, high = edges[i - 1] if i else 0, edges[i]
    return i + min(1.0, max(0.0, (value - low) / ((high - low) or 1)))


def _round_numbers(top: int) -> list[int]:
    """Return whole round numbers from 0 to ``top`` or just above it."""
    size = 10 ** max(0, math.floor(math.log10(top / _LABELS_UP)))
    step = next(size * m for m in (1, 2, 5, 10, 20, 50) if size * m * _LABELS_UP >= top)
    return [step * i for i in range(math.ceil(top / step) + 1)]

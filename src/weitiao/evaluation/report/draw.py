"""The report's drawings as inline SVG.

The drawings stretch to the width they get (``preserveAspectRatio="none"``) while lines and
dots keep their thickness, and all words stand beside them as HTML: readable on a phone.
A dot is a line of no length with a round end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from weitiao.evaluation.resample import Estimate
from weitiao.records.page.draw import SVG, Tick

Points = Sequence[tuple[float, float]]

_POINTS_SHOWN = 400


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with the marks of its axes."""

    svg: Markup
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def loss_curve(steps: Points, validation: Points, best_step: int | None) -> Chart:
    """Draw training loss (each step faint, smoothed bold) and validation loss over steps.

    Smoothing is the mean of a twentieth of the run around each step.
    """
    raw, smooth = _thin(steps), _thin(_smoothed(steps))
    shown = [loss for _, loss in (*smooth, *validation)]
    # A first step far above the rest must not press the curve flat; raw spikes may leave.
    low, high = min(shown), max(shown)
    ys = _nice(low, high, 5)
    low, high = min(low, ys[0]), max(high, ys[-1])
    last = max(step for step, _ in (*steps, *validation))
    xs = [x for x in _nice(0, last, 6) if x <= last and x == int(x)]

    def place(points: Points) -> list[tuple[float, float]]:
        return [
            (100 * x / last, min(100.0, max(0.0, 100 * (high - y) / (high - low))))
            for x, y in points
        ]

    best = [point for point in validation if point[0] == best_step]
    grid = "".join(f"M0 {y:.2f}H100" for _, y in place([(0, y) for y in ys]))
    parts = [
        _path(grid, "grid"),
        _path(_line(place(raw)), "raw"),
        _path(_line(place(smooth)), "train"),
        _path(_line(place(validation)), "val"),
        _path(_dots(place(validation)), "val dot"),
        _path(_dots(place(best)), "best dot"),
    ]
    return Chart(
        svg=Markup(SVG.format("".join(parts))),
        across=tuple(Tick(100 * x / last, f"{x:,.0f}") for x in xs),
        up=tuple(Tick(100 * (high - y) / (high - low), f"{y:g}") for y in ys),
    )


def interval_bars(base: Estimate, tuned: Estimate, top: float) -> Markup:
    """Draw two values between 0 and ``top``, base above tuned, each with its interval."""

    def at(value: float) -> float:
        return 100 * min(1.0, max(0.0, value / top)) if top > 0 else 0.0

    parts = [_path("M0 30H100M0 70H100", "rail")]
    for name, y, estimate in (("base", 30, base), ("tuned", 70, tuned)):
        if estimate.low is not None and estimate.high is not None:
            parts.append(_path(f"M{at(estimate.low):.2f} {y}H{at(estimate.high):.2f}", name))
        parts.append(_path(_dots([(at(estimate.value), y)]), f"{name} dot"))
    return Markup(SVG.format("".join(parts)))


def _path(shape: str, style: str) -> str:
    return f'<path class="{style}" d="{shape}"/>' if shape else ""


def _line(points: Points) -> str:
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) if points else ""


def _dots(points: Points) -> str:
    return "".join(f"M{x:.2f} {y:.2f}h0" for x, y in points)


def _smoothed(points: Points) -> list[tuple[float, float]]:
    sums = [0.0, *accumulate(y for _, y in points)]
    found = []
    for i, (x, _) in enumerate(points):
        # The window narrows towards both ends, so that it lags behind at neither.
        half = min(len(points) // 40, i, len(points) - 1 - i)
        found.append((x, (sums[i + half + 1] - sums[i - half]) / (2 * half + 1)))
    return found


def _thin(points: Points) -> list[tuple[float, float]]:
    """Return at most ``_POINTS_SHOWN`` points, each the mean of neighbours."""
    group = math.ceil(len(points) / _POINTS_SHOWN)
    parts = [points[i : i + group] for i in range(0, len(points), group)]
    return [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in parts]


def _nice(low: float, high: float, about: int) -> list[float]:
    """Return round numbers from below ``low`` to above ``high``, in about ``about`` steps."""
    width = (high - low) / about or abs(high) / about or 1.0
    size = 10 ** math.floor(math.log10(width))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= width)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]

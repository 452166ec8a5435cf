"""Charts of a growth run as SVG: CPU time per operation over the number of connections, timers or tasks, with a tick for each power of ten."""

from __future__ import annotations

import math
from collections.abc import Iterator

from . import svg
from .rows.growth import SERIES, Series
from .summary import Summary
from .table import number

WIDTH, HEIGHT = 760, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 66, 48

#: Loop -> size -> CPU time per operation.
type Lines = dict[str, dict[int, float]]


def lines(summary: Summary, series: Series) -> Lines:
    """The measurements of a series."""
    found: Lines = {}
    for loop in svg.COLOURS:
        cells = {size: summary.cell(row.name, loop, row.figure) for size, row in series.rows().items()}
        if points := {size: cell.median for size, cell in cells.items() if cell}:
            found[loop] = points
    return found


def charts(summary: Summary) -> dict[str, str]:
    """File name -> SVG, for the series that were measured."""
    return {
        f"{series.name}.svg": _chart(series, found) for series in SERIES if (found := lines(summary, series))
    }


def short(size: int) -> str:
    """A power of ten as a label."""
    for factor, letter in ((1_000_000, "M"), (1_000, "k")):
        if size >= factor:
            return f"{size // factor}{letter}"
    return str(size)


def _chart(series: Series, found: Lines) -> str:
    sizes = sorted({size for points in found.values() for size in points})
    step, top = _scale(max(value for points in found.values() for value in points.values()))
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(size: int) -> float:
        return LEFT + across * (math.log10(size) - first) / ((last - first) or 1.0)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - down * value / top

    def body() -> Iterator[str]:
        for i in range(round(top / step) + 1):
            at = y(i * step)
            yield f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            yield svg.text(LEFT - 6, at + 3, f"{i * step:g}", "tick end")
        for size in sizes:
            yield svg.text(x(size), HEIGHT - BOTTOM + 16, short(size), "tick middle")
        yield svg.text(LEFT + across / 2, HEIGHT - 12, series.axis, "tick middle")
        for loop, points in found.items():
            corners = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in points.items())
            yield f'<polyline class="{loop}" points="{corners}"/>'
            for size, value in points.items():
                yield (
                    f'<circle class="{loop}" cx="{x(size):.1f}" cy="{y(value):.1f}" r="3">'
                    f"<title>{loop}, {size:,}: {number(value)} us</title></circle>"
                )

    title = f"{series.title}: us CPU per operation (less and flatter is better)"
    return "\n".join([*svg.frame(title, WIDTH, HEIGHT), *svg.legend(found), *body(), "</svg>", ""])


def _scale(most: float) -> tuple[float, float]:
    """Distance of the axis's ticks, and where it ends, for values up to `most`."""
    rough = max(most, 1e-6) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return step, step * math.ceil(most / step)

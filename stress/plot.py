"""Small line charts as SVG: one figure over time, a line for each loop, with the value under the pointer as a title."""

from collections.abc import Callable
from html import escape
from typing import Any

from .progress import duration, quantity

WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 48, 8, 8, 20
# Points of a line; with more samples, the greatest of each group is shown.
POINTS = 120

# Columns of a sample, as stress.parent.Sample has them.
AT, PHASE, OPS, P99, RSS = range(5)
Sample = list[Any]
Points = list[tuple[float, float]]


def charts(results: list[dict[str, Any]]) -> list[str]:
    """Throughput, latency and memory of these results, those that have samples of it."""
    drawn = []
    for title, line, show in (
        ("operations a second", _throughput, lambda value: f"{quantity(value)}/s"),
        ("p99 of the latency", _latency, duration),
        ("RSS", _memory, lambda value: f"{value:.0f} MiB"),
    ):
        lines = [(it["loop"], thinned(line(it["samples"]))) for it in results]
        lines = [(loop, points) for loop, points in lines if len(points) > 1]
        if lines:
            drawn.append(chart(title, lines, show))
    return drawn


def _throughput(samples: list[Sample]) -> Points:
    """Between samples half a second apart, since the child's reports and the parent's readings are not in step."""
    points = []
    for earlier, later in zip(samples, samples[3:], strict=False):
        # Each run counts from zero.
        if (
            later[PHASE] in ("warm-up", "run")
            and later[OPS] >= earlier[OPS]
            and later[PHASE] == earlier[PHASE]
        ):
            points.append((later[AT], (later[OPS] - earlier[OPS]) / (later[AT] - earlier[AT])))
    return points


def _latency(samples: list[Sample]) -> Points:
    return [
        (sample[AT], sample[P99])
        for sample in samples
        if sample[P99] is not None and sample[PHASE] in ("warm-up", "run")
    ]


def _memory(samples: list[Sample]) -> Points:
    return [(sample[AT], sample[RSS] / (1 << 20)) for sample in samples]


def thinned(points: Points) -> Points:
    group = -(-len(points) // POINTS) or 1
    return [max(points[at : at + group], key=lambda it: it[1]) for at in range(0, len(points), group)]


def chart(title: str, lines: list[tuple[str, Points]], show: Callable[[float], str]) -> str:
    """One figure element; *lines* are loops with their points in seconds and values, *show* says a value."""
    last = max(points[-1][0] for _, points in lines)
    most = max(value for _, points in lines for _, value in points) or 1.0
    step = nice_step(most)
    top = step * -(-most // step)

    def x(at: float) -> float:
        return LEFT + at / last * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    body = []
    value = 0.0
    while value <= top * 1.001:
        body.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        text = escape(show(value).removesuffix("/s")) if value else "0"
        body.append(f'<text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
        value += step
    body.append(f'<text x="{LEFT}" y="{HEIGHT - 5}">0 s</text>')
    body.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{last:.0f} s</text>')
    for loop, points in lines:
        path = "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in points)
        body.append(f'<path class="trace {loop}" d="M{path}"/>')
        for at, value in points:
            body.append(
                f'<circle class="hit {loop}" cx="{x(at):.1f}" cy="{y(value):.1f}" r="4">'
                f"<title>{escape(f'{loop}, {at:.1f} s: {show(value)}')}</title></circle>"
            )
    said = "; ".join(f"{loop} at most {show(max(value for _, value in points))}" for loop, points in lines)
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"{title} over time: {said}", quote=True)}">{"".join(body)}</svg></figure>'
    )


def nice_step(most: float) -> float:
    """A step of 1, 2 or 5 times a power of ten, of which two to five make *most*."""
    step = 10.0 ** (len(str(int(most))) if most >= 1 else 0)
    while step > most / 1.99:
        for part in (2, 2.5, 2):
            step /= part
            if step <= most / 1.99:
                break
    return step

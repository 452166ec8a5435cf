"""The common parts of the charts: a frame for light and dark backgrounds, texts, a legend, a colour for each loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from .summary import FLOOR

#: Loop -> colour on a light and on a dark ground, in the order of legends.
COLOURS = {
    "asyncio": ("#7d8794", "#9aa4b1"),
    "uvloop": ("#2f6fb5", "#5b9be0"),
    "rloop": ("#8a63b0", "#b08ad6"),
    "zuvloop": ("#b07d22", "#d6a54a"),
    "aiofastnet": ("#23805f", "#4fb58f"),
    "tokioloop": ("#c8452d", "#ee6a50"),
    FLOOR: ("#2b2b2b", "#e0e0e0"),
}


#: Ground, text, fainter text and rules, in light and dark.
LIGHT, DARK = ("#ffffff", "#1f2328", "#59636e", "#d1d9e0"), ("#0d1117", "#e6edf3", "#9198a1", "#3d444d")
SHAPES = (
    "polyline{fill:none;stroke-width:2}.reference{stroke-dasharray:3 3}"
    ".head{font-size:16px;font-weight:600}.name{font-size:12px;font-weight:600}.title,.value,.tick{font-size:10px}"
    ".middle{text-anchor:middle}.end{text-anchor:end}.value{paint-order:stroke;stroke-width:3px}.legend{font-size:11px}"
)


def frame(title: str, width: float, height: float) -> list[str]:
    """The beginning of a chart; `</svg>` ends it."""
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}" font-family="system-ui, sans-serif" role="img" aria-label="{escape(title)}">',
        f"<style>{SHAPES}{_colours(0)}@media(prefers-color-scheme:dark){{{_colours(1)}}}</style>",
        f'<rect class="ground" width="{width:.0f}" height="{height:.0f}"/>',
        text(12, 24, title, "head"),
    ]


def _colours(dark: int) -> str:
    # Written out for each loop: not every viewer of SVG knows CSS's variables.
    ground, words, faint, rule = DARK if dark else LIGHT
    loops = "".join(
        f"rect.{loop},circle.{loop}{{fill:{pair[dark]}}}polyline.{loop},line.{loop}{{stroke:{pair[dark]}}}"
        for loop, pair in COLOURS.items()
    )
    return (
        f".ground{{fill:{ground}}}.rule{{stroke:{rule}}}text{{fill:{words}}}.title,.value,.tick{{fill:{faint}}}"
        f".value{{stroke:{ground}}}{loops}"
    )


def legend(loops: Iterable[str]) -> Iterator[str]:
    for i, loop in enumerate(loops):
        x = 12 + i * 100
        yield f'<rect x="{x}" y="36" width="12" height="12" class="{loop}"/>'
        yield text(x + 17, 46, loop, "legend")


def text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{escape(words)}</text>'

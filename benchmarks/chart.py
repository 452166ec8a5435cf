"""Charts of a run as SVG: horizontal bars, one group a row, uvloop's figure at one."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .model import Row
from .summary import FLOOR, REFERENCE, Summary
from .table import number

GROUPS = {
    "network": "Network: CPU time per request",
    "tls": "TLS: CPU time per request",
    "processes": "Subprocesses: CPU time of the parent per child",
    "scheduling": "Scheduling: CPU time per operation",
    "threads": "Across threads: CPU time per operation",
    "pools": "Work handed to other threads: wall-clock time per job",
    "loops": "Loops: making one and what it holds",
}
COLOURS = {
    "asyncio": "#8c96a3",
    "uvloop": "#3b76b8",
    "rloop": "#8a63b0",
    "zuvloop": "#c08a2e",
    "tokioloop": "#c8452d",
    FLOOR: "#4a4a4a",
}
LABELS, BARS, VALUES = 330, 420, 130
WIDTH = LABELS + BARS + VALUES
BAR, GAP, HEAD = 14, 12, 66
#: Bars are cut off at so many times uvloop's figure.
MOST = 3.0


def charts(summary: Summary) -> dict[str, str]:
    """File name -> SVG, for the groups that have a row with uvloop's figure to compare with."""
    out = {}
    for group, title in GROUPS.items():
        rows = [row for row in summary.rows(group) if summary.cell(row.name, REFERENCE, row.figure)]
        if rows:
            out[f"{group}.svg"] = _chart(summary, title, rows)
    return out


def _chart(summary: Summary, title: str, rows: list[Row]) -> str:
    bars = {row.name: list(_bars(summary, row)) for row in rows}
    most = min(MOST, max(ratio for found in bars.values() for _, ratio, _ in found))
    scale = BARS / max(most, 1.0)
    used = [loop for loop in COLOURS if any(loop == name for found in bars.values() for name, _, _ in found)]
    body: list[str] = []
    y = HEAD
    for row in rows:
        found = bars[row.name]
        body.append(_text(12, y + BAR * len(found) / 2 - 2, row.name, "name"))
        body.append(_text(12, y + BAR * len(found) / 2 + 12, row.title, "title"))
        for loop, ratio, value in found:
            length = max(1.0, min(ratio, most) * scale)
            body.append(
                f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR - 2}" fill="{COLOURS[loop]}"/>'
            )
            cut = " (cut off)" if ratio > most else ""
            body.append(_text(LABELS + length + 5, y + BAR - 4, f"{number(value)} {row.unit}{cut}", "value"))
            y += BAR
        y += GAP
    one = LABELS + scale
    line = f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{HEAD - 6}" y2="{y - GAP + 4}" stroke="#3b76b8" stroke-dasharray="3 3"/>'
    return "\n".join([*_frame(title, y), *_legend(used), line, *body, "</svg>", ""])


def _bars(summary: Summary, row: Row) -> Iterator[tuple[str, float, float]]:
    """Loop, figure over uvloop's, figure."""
    reference = summary.cell(row.name, REFERENCE, row.figure)
    for loop in COLOURS:
        cell = summary.cell(row.name, loop, row.figure)
        if cell and reference and reference.median:
            yield loop, cell.median / reference.median, cell.median


def _frame(title: str, height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="system-ui, sans-serif">',
        "<style>.head{font-size:16px;font-weight:600}.name{font-size:12px;font-weight:600}"
        ".title,.value{font-size:10px;fill:#555}.value{paint-order:stroke;stroke:#fff;stroke-width:3px}"
        ".legend{font-size:11px}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(12, 24, f"{title} (less is better; the dashed line is uvloop)", "head"),
    ]


def _legend(loops: list[str]) -> Iterator[str]:
    for i, loop in enumerate(loops):
        x = 12 + i * 100
        yield f'<rect x="{x}" y="36" width="12" height="12" fill="{COLOURS[loop]}"/>'
        yield _text(x + 17, 46, loop, "legend")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{escape(text)}</text>'

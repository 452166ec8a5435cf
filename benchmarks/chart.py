"""Charts of a run as SVG: horizontal bars, a group for each row, uvloop's figure at 1."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from . import svg
from .model import Row
from .summary import REFERENCE, Summary
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
LABELS, BARS, VALUES = 330, 420, 130
WIDTH = LABELS + BARS + VALUES
BAR, GAP, HEAD = 14, 12, 66
#: Characters of a title that fit beside the bars in the widest of the fonts a viewer may have.
WORDS = 52
#: Bars are cut off at this many times uvloop's figure.
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
    used = [
        loop for loop in svg.COLOURS if any(loop == name for found in bars.values() for name, _, _ in found)
    ]
    body: list[str] = []
    y = HEAD
    for row in rows:
        found = bars[row.name]
        titles = wrap(row.title, WORDS, max_lines=2, placeholder=" ...")
        middle = y + BAR * len(found) / 2 - 6 * len(titles) + 4
        body.append(svg.text(12, middle, row.name, "name"))
        body += [svg.text(12, middle + 12 * (i + 1), line, "title") for i, line in enumerate(titles)]
        for loop, ratio, value in found:
            length = max(1.0, min(ratio, most) * scale)
            body.append(
                f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR - 2}" class="{loop}"/>'
            )
            cut = " (cut off)" if ratio > most else ""
            body.append(
                svg.text(LABELS + length + 5, y + BAR - 4, f"{number(value)} {row.unit}{cut}", "value")
            )
            y += BAR
        y += GAP
    head = f"{title} (less is better; the dashed line is uvloop)"
    one = LABELS + scale
    line = f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{HEAD - 6}" y2="{y - GAP + 4}" class="reference {REFERENCE}"/>'
    return "\n".join([*svg.frame(head, WIDTH, y), *svg.legend(used), line, *body, "</svg>", ""])


def _bars(summary: Summary, row: Row) -> Iterator[tuple[str, float, float]]:
    """Loop, figure over uvloop's, figure."""
    reference = summary.cell(row.name, REFERENCE, row.figure)
    for loop in svg.COLOURS:
        cell = summary.cell(row.name, loop, row.figure)
        if cell and reference and reference.median:
            yield loop, cell.median / reference.median, cell.median

"""Writes `docs/performance.md` and its charts from the runs of one interpreter or several: every figure comes from a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import chart, growth_chart, table
from .model import Row
from .rows.growth import SERIES
from .rows.why import why
from .summary import FLOOR, SUBJECT, Summary, Verdict

DOCUMENT = Path("docs/performance.md")
RESULTS, GROWTH = "results.json", "growth.json"

INTRODUCTION = """\
# Performance

Written by `make bench` from its measurements; only the reasons in the first section are written by hand, in
`benchmarks/rows/why.py`. [benchmarks/README.md](../benchmarks/README.md) describes each row and how it is
measured. CPU time per operation, user and system of all threads, is the figure to trust: less is better. Two such runs
can't show whether one build is slower than another: `make bench OLD=REVISION` compares two builds.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One interpreter's results, and its growth run where there is one."""

    name: str
    summary: Summary
    growth: Summary | None = None


def interpreter(environment: dict[str, Any]) -> str:
    """Short name of a run's interpreter: 3.13t."""
    version = ".".join(environment["python"].split(".")[:2])
    return version + ("t" if environment["free_threaded"] else "")


def load(paths: list[Path]) -> list[Run]:
    """The runs of `results.json` files. Raises ValueError where two are of the same interpreter."""
    runs: dict[str, Run] = {}
    for path in paths:
        document = json.loads(path.read_text())
        name = interpreter(document["environment"])
        if name in runs:
            raise ValueError(f"two runs of {name}; name the files to take")
        beside = path.with_name(GROWTH)
        growth = Summary(json.loads(beside.read_text())) if beside.exists() else None
        runs[name] = Run(name, Summary(document), growth)
    return [runs[name] for name in sorted(runs, key=_age)]


def write(runs: list[Run], out: Path = DOCUMENT) -> None:
    """Writes the document, and its charts into the directory of its name; deletes charts of runs that are not in it."""
    files = {
        f"{run.name}/{name}": svg
        for run in runs
        for charts in (chart.charts(run.summary), growth_chart.charts(run.growth) if run.growth else {})
        for name, svg in charts.items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown(runs, out.stem))
    directory = out.with_suffix("")
    for old in directory.rglob("*.svg"):
        if str(old.relative_to(directory)) not in files:
            old.unlink()
    for name, svg in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(svg)


def markdown(runs: list[Run], charts: str) -> str:
    """The document; `charts` is the directory of the charts beside it."""
    parts = [INTRODUCTION, _shortfalls(runs), _about(runs)]
    for run in runs:
        parts += [f"## All rows, {run.name}\n", _rows(run, charts)]
        parts.append(_growth(run, charts))
    return "\n".join(part for part in parts if part)


def _age(name: str) -> list[int]:
    return [int(part.removesuffix("t")) for part in name.split(".")]


def _shortfalls(runs: list[Run]) -> str:
    parts = [
        "## What falls short\n",
        'Rows that miss their target, do worse than rloop or zuvloop where those run, or failed, with the reason. "Reached" is given for the part of the target that is missed.\n',
    ]
    for run in runs:
        missed = run.summary.shortfalls()
        parts.append(f"### {run.name}: {len(missed)} of {len(run.summary.variants)} rows\n")
        if missed:
            rows = [[f"`{name}`", *_missed(verdicts), why(name)] for name, verdicts in missed.items()]
            parts.append(_left_grid(["Row", "wanted", "reached", "why"], rows))
        else:
            parts.append("None.\n")
    return "\n".join(parts)


def _missed(verdicts: list[Verdict]) -> list[str]:
    return [_join(v.wanted for v in verdicts), _join(v.reached for v in verdicts)]


def _join(texts: Any) -> str:
    # The text of a failure may contain anything.
    return "; ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts)


def _left_grid(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]) + "\n"


def _about(runs: list[Run]) -> str:
    parts = ["## The runs\n"]
    for run in runs:
        parts += [f"### {run.name}\n", *table.run(run.summary)]
        if run.growth:
            plan, where = run.growth.document["plan"], run.growth.document["environment"]
            parts.append(
                f"Growth: {where['date']} UTC, up to {plan['rounds']} rounds, {plan['limit']:g} s in all, load average"
                f" {where['load_average'][0]} at the end."
            )
        parts += ["", *(f"- {peer}" for peer in table.peers(run.summary)), ""]
    return "\n".join(parts)


def _rows(run: Run, charts: str) -> str:
    parts = [
        "`floor` is the same server in plain Rust; in `http` it looks for each request's end and parses nothing. To uvloop: how many times less than uvloop's figure tokioloop's is. Over the floor: measured in turns within one measurement where the target names the floor. A target holds only if all its parts hold.\n"
    ]
    drawn = chart.charts(run.summary)
    for group, title in chart.GROUPS.items():
        rows = run.summary.rows(group)
        if not rows:
            continue
        parts += [f"### {title}, {run.name}\n", _group(run.summary, rows)]
        if f"{group}.svg" in drawn:
            parts.append(f"![{title}, {run.name}]({charts}/{run.name}/{group}.svg)\n")
    return "\n".join([*parts, table.several(run.summary, "###"), table.failures(run.summary, "###")])


def _group(summary: Summary, rows: list[Row]) -> str:
    loops = [
        loop
        for loop in [*summary.loops, FLOOR]
        if any(summary.cell(row.name, loop, row.figure) or summary.failure(row.name, loop) for row in rows)
    ]
    body = []
    for row in rows:
        times, over = summary.times(row), summary.over_floor(row)
        failed = summary.failure(row.name, SUBJECT) is not None
        body.append(
            [
                f"`{row.name}` {row.title}" + ("" if row.unit == "us CPU" else f" ({row.unit})"),
                *(table.cell(summary, row.name, loop, row.figure, spread=True) for loop in loops),
                "-" if times is None else f"{times:.2f}x",
                "-" if over is None else f"{over - 1:+.0%}",
                table.target(summary, row),
                table.verdict(summary.met(row), failed=failed, wanted=row.target is not None),
            ]
        )
    return table.grid(["Row, us CPU", *loops, "to uvloop", "over the floor", "target", "reached"], body)


def _growth(run: Run, charts: str) -> str:
    if run.growth is None:
        return ""
    parts = [
        f"## How cost grows, {run.name}\n",
        "CPU time per operation, microseconds, with more and more connections, timers or tasks. Flat is the aim; `grown`"
        " is the largest size's figure over the smallest's. With one connection every request wakes the server; with more, a turn serves several.\n",
    ]
    for series in SERIES:
        lines = growth_chart.lines(run.growth, series)
        if not lines:
            continue
        sizes = sorted({size for points in lines.values() for size in points})
        rows = []
        for loop, points in lines.items():
            cells = [table.number(points[size]) if size in points else "-" for size in sizes]
            both = sizes[0] in points and sizes[-1] in points and len(sizes) > 1
            rows.append([loop, *cells, f"x{points[sizes[-1]] / points[sizes[0]]:.2f}" if both else "-"])
        parts += [
            f"### {series.title}, {run.name}\n",
            table.grid([series.axis, *(f"{size:,}" for size in sizes), "grown"], rows),
            f"![{series.title}, {run.name}]({charts}/{run.name}/{series.name}.svg)\n",
        ]
    notes = run.growth.document.get("left_out", []) + _failed(run.growth)
    return "\n".join([*parts, *(f"- {note}" for note in notes), *([""] if notes else [])])


def _failed(growth: Summary) -> list[str]:
    return sorted({f"`{f['row']}` on {f['loop']}: {f['why']}" for f in growth.document["failures"]})

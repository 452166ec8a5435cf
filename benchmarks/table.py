"""The tables of a run in Markdown."""

from __future__ import annotations

from .model import Row
from .rows import split
from .summary import FLOOR, SUBJECT, Summary


def markdown(summary: Summary) -> str:
    """The whole report."""
    parts = [_head(summary), _cpu(summary), _wall(summary), several(summary), failures(summary)]
    return "\n".join(part for part in parts if part)


def number(value: float) -> str:
    """Three significant digits, with no exponent."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _head(summary: Summary) -> str:
    return "\n".join(["# Benchmarks", "", *run(summary), "", *(f"- {peer}" for peer in peers(summary)), ""])


def run(summary: Summary) -> list[str]:
    """Where and when a run was made, and how; a line each."""
    where, plan = summary.document["environment"], summary.document["plan"]
    threading = "free-threaded" if where["free_threaded"] else "with GIL"
    return [
        f"CPython {where['python']} ({threading}), {where['system']}, {where['cpu']}, {where['cores']} cores,"
        f" load average {where['load_average'][0]} at the end; {where['date']} UTC.",
        f"Medians of {plan['rounds']} rounds of {plan['seconds']:g} s; ± is half the range over the rounds. Ratios are"
        " medians of each round's ratio.",
    ]


def peers(summary: Summary) -> list[str]:
    """Each loop's version, or why it was left out."""
    where, lines = summary.document["environment"], []
    for name, peer in summary.document["peers"].items():
        text = peer["version"] or "of this interpreter" if peer["present"] else f"left out: {peer['why']}"
        if peer["present"] and peer["gil"] and where["free_threaded"]:
            text += " (turns the GIL on)"
        lines.append(f"{name}: {text}")
    return lines


def grid(head: list[str], rows: list[list[str]]) -> str:
    """A table; all columns after the first are aligned right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows]) + "\n"


def cell(summary: Summary, variant: str, loop: str, field: str, *, spread: bool = False) -> str:
    """A figure, or the reason why it is missing."""
    found = summary.cell(variant, loop, field)
    if found is None:
        return "failed" if summary.failure(variant, loop) else "-"
    text = number(found.median)
    return f"{text} ±{found.spread:.0%}" if spread and found.rounds > 1 else text


def _columns(summary: Summary) -> list[str]:
    floor = any(summary.cell(name, FLOOR, "cpu_us") for name in summary.variants)
    return [*summary.loops, FLOOR] if floor else summary.loops


def _cpu(summary: Summary) -> str:
    columns = _columns(summary)
    subject = SUBJECT in summary.loops
    head = ["Row", *columns]
    if subject:
        head += ["better than uvloop", "over the floor", "target", "reached"]
    rows = []
    for row in summary.rows():
        cells = [_named(row), *(cell(summary, row.name, loop, row.figure, spread=True) for loop in columns)]
        if subject:
            times, over, met = summary.times(row), summary.over_floor(row), summary.met(row)
            cells += [
                "-" if times is None else f"{times:.2f}x",
                "-" if over is None else f"{over - 1:+.0%}",
                target(summary, row),
                verdict(
                    met,
                    failed=row.target is not None and summary.failure(row.name, SUBJECT) is not None,
                    wanted=row.target is not None,
                ),
            ]
        rows.append(cells)
    title = "## CPU time per operation, microseconds (user and system; memory rows: bytes)\n\n"
    return title + grid(head, rows) if rows else ""


def target(summary: Summary, row: Row) -> str:
    """The target; with the figure reached where no other column has it."""
    if row.target is None:
        return ""
    times = summary.times_than(row)
    return str(row.target) if times is None else f"{row.target} ({times:.2f}x)"


def verdict(met: bool | None, *, failed: bool, wanted: bool) -> str:
    """The column `reached`."""
    if failed or met is False:
        return "**failed**" if failed else "**no**"
    return "yes" if met else "not measured" if wanted else ""


def _named(row: Row) -> str:
    return f"`{row.name}` {row.title}"


def _wall(summary: Summary) -> str:
    columns = _columns(summary)
    rows = []
    for row in summary.rows():
        if any(summary.cell(row.name, loop, "rate") for loop in columns):
            cells = []
            for loop in columns:
                text = cell(summary, row.name, loop, "rate")
                p50, p99 = (summary.cell(row.name, loop, field) for field in ("p50_us", "p99_us"))
                if p50 and p99:
                    text += f" ({number(p50.median)} / {number(p99.median)})"
                cells.append(text)
            rows.append([f"`{row.name}`", *cells])
    title = "## Operations a second by the wall clock (p50 / p99 in microseconds)\n\n"
    return title + grid(["Row", *columns], rows) if rows else ""


def several(summary: Summary, heading: str = "##") -> str:
    """The figures of several threads with a loop each."""
    rows = []
    for variant in summary.variants:
        row, threads = split(variant)
        if threads == 1:
            continue
        cells = []
        for loop in summary.loops:
            over, under = (variant, loop), (row.name, loop)
            rate, cpu = summary.ratio(over, under, "rate"), summary.ratio(over, under, "cpu_us")
            text = cell(summary, variant, loop, "cpu_us")
            if rate is not None and cpu is not None:
                text += f" (CPU x{cpu:.2f}, rate x{rate:.2f})"
            cells.append(text)
        if SUBJECT in summary.loops:
            times, _ = summary.together(variant)
            cells += [
                "-" if times is None else f"{times:.2f}x",
                str(row.together or "") if threads == 2 else "",
                verdict(
                    summary.met_together(variant),
                    failed=False,
                    wanted=row.together is not None and threads == 2,
                ),
            ]
        rows.append([f"`{variant}`", *cells])
    if not rows:
        return ""
    head = ["Row", *summary.loops]
    if SUBJECT in summary.loops:
        head += ["rate over uvloop's", "target", "reached"]
    title = f"{heading} Several threads, a loop each: CPU per operation (and against one thread)\n\n"
    note = (
        "\nCPU x1.00 means that the threads do not slow each other down. The rate of a served row is bounded by the"
        " load generator, which needs a core too.\n"
    )
    return title + grid(head, rows) + note


def failures(summary: Summary, heading: str = "##") -> str:
    """The measurements that failed, and how."""
    failed = summary.document["failures"]
    if not failed:
        return ""
    lines = sorted({f"- `{f['row']}` on {f['loop']}: {f['why']}" for f in failed})
    return "\n".join([f"{heading} Failures", "", *lines, ""])

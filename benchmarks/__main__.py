"""`python -m benchmarks [bench]`, `run`, `growth`, `compare`, `performance`, `list` and `render`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import chart, compare, growth, growth_chart, peers, performance, rows, table
from .performance import GROWTH, RESULTS, interpreter
from .run import Plan, environment, run
from .summary import Summary

LOOPS = ",".join(peers.FACTORIES)
OUT = Path("benchmarks/results")
LEAST_PAIRS = 6


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Benchmarks of tokioloop and its peers."
    )
    commands = parser.add_subparsers(dest="command")
    everything = commands.add_parser(
        "bench",
        help="run, growth and performance, as without a command; only run where some --rows are named",
    )
    running = commands.add_parser("run", help="measure the rows")
    growing = commands.add_parser("growth", help="measure how cost grows: three minutes at most")
    for one in (everything, running):
        one.add_argument(
            "--rows", default="all", help="names or shell patterns, comma-separated (default: all)"
        )
        one.add_argument("--loops", default=LOOPS, help=f"comma-separated (default: {LOOPS})")
        one.add_argument("--seconds", type=float, help="of one measurement; default 0.3, with --quick 0.1")
    for one in (everything, running, growing):
        one.add_argument("--rounds", type=int, help="of rows: default 5, with --quick 3; of growth: 2, 1")
        one.add_argument("--quick", action="store_true", help="a fourth of the time; rougher")
        one.add_argument(
            "--out", type=Path, help=f"directory to write to (default: {OUT}/, then the interpreter)"
        )
    comparing = commands.add_parser(
        "compare",
        help="two builds: is the new one no slower than the old? exits with 1 unless every figure holds",
    )
    what = "a directory with the package, a wheel, an extension, EXTENSION@REVISION, or a revision of git"
    comparing.add_argument("--old", required=True, help=what)
    comparing.add_argument("--new", default=".", help="the same (default: the tree with its extension)")
    comparing.add_argument("--rows", default="all", help="as of run")
    comparing.add_argument(
        "--by",
        default=",".join(compare.WAYS),
        help=f"only the rows compared in these ways, comma-separated (default: {','.join(compare.WAYS)})",
    )
    comparing.add_argument("--pairs", type=int, default=15, help="old and new in turns (default: 15)")
    comparing.add_argument("--seconds", type=float, default=0.3, help="of one measurement (default: 0.3)")
    comparing.add_argument(
        "--repeats", type=int, default=2, help="how often instructions are counted (default: 2)"
    )
    comparing.add_argument(
        "--out", type=Path, default=OUT / "compare", help=f"directory to write to (default: {OUT}/compare)"
    )
    writing = commands.add_parser("performance", help=f"write {performance.DOCUMENT} from results")
    writing.add_argument("results", type=Path, nargs="*", help=f"files (default: {OUT}/3*/{RESULTS})")
    writing.add_argument("--out", type=Path, default=performance.DOCUMENT)
    commands.add_parser("list", help="rows and loops")
    rendering = commands.add_parser("render", help=f"make tables and charts again from {RESULTS}")
    rendering.add_argument("out", type=Path)
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "bench")
    options = parser.parse_args(arguments)
    match options.command:
        case "list":
            return _list()
        case "render":
            return _render(json.loads((options.out / RESULTS).read_text()), options.out)
        case "performance":
            return _performance(options.results, options.out, parser)
        case "growth":
            return _growth(options)
        case "compare":
            return _compare(options, parser)
        case "run":
            return _run(options, parser)
    status = _run(options, parser)
    if _whole(options):
        status |= _growth(options)
        # A run written to another directory must not change the tree's document.
        if options.out is None:
            status |= _performance([], performance.DOCUMENT, parser)
    return status


def _whole(options: argparse.Namespace) -> bool:
    return bool(options.rows == "all" and options.loops == LOOPS)


def _directory(options: argparse.Namespace, *, whole: bool) -> Path:
    """Where results go: results of some rows alone never go where the document looks for a whole run."""
    out: Path | None = options.out
    return out or OUT / (interpreter(environment()) if whole else "some-rows")


def _run(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    loops = options.loops.split(",")
    if unknown := [name for name in loops if name not in peers.FACTORIES]:
        parser.error(f"no loop {', '.join(unknown)}; there are {', '.join(peers.FACTORIES)}")
    try:
        chosen = rows.select(options.rows)
    except ValueError as error:
        parser.error(str(error))
    rounds = options.rounds or (3 if options.quick else 5)
    seconds = options.seconds or (0.1 if options.quick else 0.3)
    return _render(run(Plan(chosen, loops, rounds, seconds)), _directory(options, whole=_whole(options)))


def _render(document: dict[str, Any], out: Path) -> int:
    """Writes everything; 1 where a measurement of tokioloop failed."""
    summary = Summary(document)
    text = table.markdown(summary)
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULTS).write_text(json.dumps(document | {"summary": summary.as_json()}, indent=1) + "\n")
    (out / "results.md").write_text(text)
    for name, svg in chart.charts(summary).items():
        (out / name).write_text(svg)
    print(text)
    print(f"Written to {out}/: results.md, {RESULTS} and the charts.", file=sys.stderr)
    return _status(document)


def _growth(options: argparse.Namespace) -> int:
    document = growth.measure(options.rounds, quick=options.quick)
    out = _directory(options, whole=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / GROWTH).write_text(json.dumps(document, indent=1) + "\n")
    for name, svg in growth_chart.charts(Summary(document)).items():
        (out / name).write_text(svg)
    print(f"Written to {out}/: {GROWTH} and its charts.", file=sys.stderr)
    return _status(document)


def _compare(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    ways = tuple(options.by.split(","))
    if unknown := set(ways) - set(compare.WAYS):
        parser.error(f"no way {', '.join(sorted(unknown))}; there are {', '.join(compare.WAYS)}")
    if options.repeats < 1 or options.seconds <= 0:
        parser.error("--repeats and --seconds must be above 0")
    if options.pairs < LEAST_PAIRS:
        parser.error(f"--pairs must be at least {LEAST_PAIRS}: the interval of fewer says nothing")
    try:
        plan = compare.Plan(rows.select(options.rows), ways, options.pairs, options.seconds, options.repeats)
        return compare.write(*compare.compare(options.old, options.new, plan), options.out)
    except (ValueError, compare.BuildError) as error:
        parser.error(str(error))


def _performance(results: list[Path], out: Path, parser: argparse.ArgumentParser) -> int:
    results = results or sorted(OUT.glob(f"3*/{RESULTS}"))
    if not results:
        parser.error(f"no results in {OUT}; `make bench` makes them")
    try:
        runs = performance.load(results)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    performance.write(runs, out)
    print(f"Written: {out}, from {', '.join(str(path) for path in results)}.", file=sys.stderr)
    return 0


def _status(document: dict[str, Any]) -> int:
    return int(any(failure["loop"] == "tokioloop" for failure in document["failures"]))


def _list() -> int:
    for row in rows.ROWS.values():
        target = f"  [target: {row.target}]" if row.target else ""
        several = f"  (and @{', @'.join(map(str, (2, *row.more_threads)))})" if row.two_threads else ""
        print(f"{row.name + several:28} {row.title}{target}")
    print()
    for name in peers.FACTORIES:
        found = peers.probe(name)
        print(f"{name:28} {found.version or 'there' if found.present else 'left out: ' + found.why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

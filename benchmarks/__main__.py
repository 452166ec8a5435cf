"""`python -m benchmarks [run]`, `list` and `render`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import chart, peers, rows, table
from .run import Plan, run
from .summary import Summary

LOOPS = "asyncio,uvloop,rloop,zuvloop,tokioloop"
OUT = "benchmarks/results"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Benchmarks of tokioloop and its peers."
    )
    commands = parser.add_subparsers(dest="command")
    running = commands.add_parser("run", help="measure; this is what happens without a command too")
    running.add_argument(
        "--rows", default="all", help="names or shell patterns, comma-separated (default: all)"
    )
    running.add_argument("--loops", default=LOOPS, help=f"comma-separated (default: {LOOPS})")
    running.add_argument("--rounds", type=int, help="default 5, with --quick 3")
    running.add_argument("--seconds", type=float, help="of one measurement; default 0.3, with --quick 0.1")
    running.add_argument("--quick", action="store_true", help="two to three minutes instead of ten; rougher")
    running.add_argument(
        "--out", type=Path, default=Path(OUT), help=f"directory to write to (default: {OUT})"
    )
    commands.add_parser("list", help="rows and loops")
    rendering = commands.add_parser("render", help="make tables and charts again from results.json")
    rendering.add_argument("out", type=Path)
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "run")
    options = parser.parse_args(arguments)
    if options.command == "list":
        return _list()
    if options.command == "render":
        return _render(json.loads((options.out / "results.json").read_text()), options.out)
    return _run(options, parser)


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
    return _render(run(Plan(chosen, loops, rounds, seconds)), options.out)


def _render(document: dict[str, Any], out: Path) -> int:
    """Writes everything; 1 where a measurement of tokioloop failed."""
    summary = Summary(document)
    text = table.markdown(summary)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(document | {"summary": summary.as_json()}, indent=1) + "\n")
    (out / "results.md").write_text(text)
    for name, svg in chart.charts(summary).items():
        (out / name).write_text(svg)
    print(text)
    print(f"Written to {out}/: results.md, results.json and the charts.", file=sys.stderr)
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

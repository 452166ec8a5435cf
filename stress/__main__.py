"""Long, random, concurrent use of event loops: ``python -m stress run --threads 4 --seconds 10 --scenario all --seed 1``."""

import argparse
import importlib
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

from . import child, record
from .parent import supervise
from .progress import Progress
from .run import LOOPS, Settings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m stress", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the scenarios")
    run = commands.add_parser("run", help="run scenarios, each in a process of its own")
    run.add_argument(
        "--threads", type=positive(int), default=max(2, os.cpu_count() or 2), help="how many at once"
    )
    run.add_argument(
        "--seconds", type=positive(float), default=5.0, help="for each scenario, beside its warm-up"
    )
    run.add_argument("--scenario", default="all", help="names with commas between, or all")
    run.add_argument("--seed", type=int, default=None, help="of the random choices; shown when left out")
    run.add_argument(
        "--loop", default="tokioloop", help=f"of {', '.join(LOOPS)}; several with commas between"
    )
    run.add_argument("--report", type=Path, default=None, help="a directory for report.json and index.html")
    run.add_argument("--deadline", type=float, default=None, help="seconds after which a scenario hangs")
    run.add_argument("--catalogue", default="stress.scenarios", help=argparse.SUPPRESS)
    inner = commands.add_parser("child", help="what `run` starts for each scenario")
    inner.add_argument("--scenario", required=True)
    inner.add_argument("--loop", required=True)
    inner.add_argument("--threads", type=int, required=True)
    inner.add_argument("--seconds", type=float, required=True)
    inner.add_argument("--seed", type=int, required=True)
    inner.add_argument("--events", type=int, default=2, help="the descriptor to report on")
    inner.add_argument("--catalogue", default="stress.scenarios")
    compare = commands.add_parser("compare", help="several runs on one page")
    compare.add_argument(
        "--report", type=Path, required=True, help="a directory for report.json and index.html"
    )
    compare.add_argument("runs", type=Path, nargs="+", help="directories given to --report before")
    table = commands.add_parser("table", help="print the markdown table of docs/reliability.md")
    table.add_argument("runs", type=Path, nargs="+", help="directories given to --report before")
    options = parser.parse_args()
    if options.command == "compare":
        record.write(record.merge(options.runs), options.report)
        print(f"the report: {options.report / 'index.html'}")
    elif options.command == "table":
        print(record.table(record.merge(options.runs)))
    else:
        catalogue = importlib.import_module(getattr(options, "catalogue", "stress.scenarios"))
        if options.command == "run":
            return run_all(options, catalogue.SCENARIOS)
        if options.command == "child":
            settings = Settings(options.loop, options.threads, options.seconds, options.seed)
            return child.serve(catalogue.SCENARIOS[options.scenario], settings, options.events)
        for name, scenario in catalogue.SCENARIOS.items():
            print(f"{name:13} {(sys.modules[scenario.__module__].__doc__ or '').strip().splitlines()[0]}")
    return 0


def positive[N: (int, float)](kind: Callable[[str], N]) -> Callable[[str], N]:
    """What argparse turns a number above zero into one with."""

    def convert(text: str) -> N:
        number = kind(text)
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return number

    return convert


def run_all(options: argparse.Namespace, scenarios: dict[str, child.Scenario]) -> int:
    """Run what was asked for, one after the other; 1 where anything did not pass, or nothing was offered."""
    names = list(scenarios) if options.scenario == "all" else options.scenario.split(",")
    loops = options.loop.split(",")
    if unknown := set(names) - set(scenarios) | set(loops) - set(LOOPS):
        print(
            f"unknown: {', '.join(sorted(unknown))}; scenarios: {', '.join(scenarios)}; loops: {', '.join(LOOPS)}"
        )
        return 2
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}, {options.threads} threads, {options.seconds:g} s each", flush=True)
    report = record.begin()
    bad, passed, left_out = [], 0, 0
    for name in names:
        for loop in loops:
            settings = Settings(loop, options.threads, options.seconds, seed)
            outcome = supervise(
                name, settings, Progress(), catalogue=options.catalogue, deadline=options.deadline
            )
            report["results"].append(outcome.as_json())
            if options.report:
                # After each, so that a run that is broken off has its report.
                record.write(report, options.report)
            if outcome.status == "passed":
                passed += 1
            elif outcome.status == "not offered":
                left_out += 1
            else:
                bad.append(f"{name} on {loop} {outcome.status}")
    told = ["all passed"] if passed and not bad else bad or ["nothing was run"]
    if left_out:
        told.append(f"{left_out} not offered by the loop")
    print("; ".join(told), flush=True)
    print(
        f"again: python -m stress run --scenario {options.scenario} --loop {options.loop}"
        f" --threads {options.threads} --seconds {options.seconds:g} --seed {seed}"
    )
    if options.report:
        print(f"the report: {options.report / 'index.html'}")
    return 1 if bad or not passed else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.conformance`: see the package's docstring for what it does, `--help` for the options."""

import argparse
import fnmatch
import sys
import tempfile
import time
from pathlib import Path

from . import BASELINE, PACKAGE, SUBJECT
from .catalogue import MODULES
from .expectations import Expectations, ExpectationsError
from .pool import Outcome, Worker, WorkerError, run_all
from .report import Report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def main(arguments: list[str] | None = None) -> int:
    """Runs the lane; 0 when nothing failed, 1 when something did, 2 when it could not run."""
    options = _parse(arguments)
    modules = options.module or [module.name for module in MODULES]
    try:
        expectations = _expectations(options)
        with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
            return _lane(options, modules, expectations, directory)
    except (ExpectationsError, WorkerError) as error:
        print(f"the conformance lane could not run:\n{error}", file=sys.stderr)
        return 2


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--module", action="append", metavar="NAME", help="only this module (repeatable)")
    parser.add_argument(
        "--test", action="append", metavar="PATTERN", help="only tests of this id (repeatable)"
    )
    parser.add_argument("--loop", default=SUBJECT, help="the loop under test (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="tests at a time (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds per test (default: %(default)g)")
    parser.add_argument("--list", action="store_true", help="print the ids of the tests and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    parser.add_argument("--no-baseline", action="store_true", help="do not run asyncio's own loop beside it")
    parser.add_argument("--expectations", type=Path, help="another list of exceptions")
    parser.add_argument("--package", default=PACKAGE, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def _expectations(options: argparse.Namespace) -> Expectations:
    """The list is about the project's own loop; another loop has no exceptions unless it brings a list."""
    if options.expectations is not None:
        return Expectations.read(options.expectations)
    return Expectations.read(HERE / "expectations.toml") if options.loop == SUBJECT else Expectations([])


def _lane(options: argparse.Namespace, modules: list[str], expectations: Expectations, directory: str) -> int:
    started = time.monotonic()
    compare = options.loop != BASELINE and not options.no_baseline
    workers: list[Worker] = []

    def worker(loop: str) -> Worker:
        workers.append(Worker(loop, options.package, modules, directory, str(ROOT)))
        return workers[-1]

    try:
        crews = [
            (worker(BASELINE) if compare else None, worker(options.loop)) for _ in range(max(1, options.jobs))
        ]
        subject = crews[0][1]
        tests = [test for test in subject.tests if _wanted(test, options.test)]
        if options.list:
            print("\n".join(tests))
            return 0
        report = Report(options.loop, subject.gil, expectations, len(tests))
        for module, reason in subject.broken.items():
            report.problems.append(f"{module}: {reason}")
        for pattern in expectations.idle(subject.tests, modules):
            report.problems.append(f"expectations: {pattern!r} names no test (that none before it names)")
        if not tests:
            report.problems.append("no test was selected")
        print(
            f"{len(tests)} tests on {options.loop}" + (f", compared with {BASELINE}" if compare else ""),
            flush=True,
        )

        def timeout(test: str, baseline: Outcome | None) -> float:
            """A test that is expected not to pass may hang: it gets little more than what asyncio needed."""
            if baseline is None or expectations.find(test) is None:
                return float(options.timeout)
            return min(float(options.timeout), max(5.0, 5 * baseline.seconds))

        run_all(crews, tests, timeout, report.add)
    finally:
        for each in workers:
            each.close()
    if options.json is not None:
        report.save(options.json)
    report.show(time.monotonic() - started)
    return 1 if report.failures else 0


def _wanted(test: str, patterns: list[str] | None) -> bool:
    """A pattern without wildcards matches a part of the id."""
    return not patterns or any(fnmatch.fnmatchcase(test, p) or p in test for p in patterns)


if __name__ == "__main__":
    sys.exit(main())

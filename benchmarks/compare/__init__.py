"""Compares two builds of tokioloop: is the new one no slower than the old?

A row whose instructions can be counted is compared by them; all others are measured in pairs, old and new in turns.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import loadgen
from ..rows import split
from ..run import environment, finish, possible, tell, worker
from . import instructions, pairs, report
from .builds import Build, BuildError, prepare, python_path
from .verdict import Verdict

__all__ = ["WAYS", "BuildError", "Plan", "compare", "way", "write"]

WAYS = ("instructions", "pairs", "memory")
#: Two runs of callgrind do not disturb each other: it counts the same on a busy machine.
AT_ONCE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare, and how: variants of rows, the ways that may be used, and how often."""

    variants: list[str]
    ways: tuple[str, ...] = WAYS
    pairs: int = 15
    seconds: float = 0.3
    repeats: int = 2


def way(variant: str) -> str:
    """How a variant is compared."""
    row, threads = split(variant)
    if row.figure == "bytes":
        return "memory"
    return "instructions" if row.counted and threads == 1 else "pairs"


def compare(old: str, new: str, plan: Plan) -> tuple[dict[str, Any], list[Verdict]]:
    """Compares. Returns the content of `results.json` and the verdicts. Raises BuildError where a build can't be made."""
    with tempfile.TemporaryDirectory(prefix="tokioloop-compare-") as directory:
        # Names of one length: the addresses of a process depend on the length of its environment.
        builds = prepare(old, "old", Path(directory)), prepare(new, "new", Path(directory))
        for build in builds:
            tell(f"{build.path.name}: {build.title}\n")
        verdicts, measured = _all(plan, builds)
    return {
        "environment": environment(),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "old": builds[0].title,
        "new": builds[1].title,
        "plan": asdict(plan),
        "verdicts": [verdict.as_json() for verdict in verdicts],
        "pairs": measured,
    }, verdicts


def _all(plan: Plan, builds: tuple[Build, Build]) -> tuple[list[Verdict], dict[str, Any]]:
    chosen = [variant for variant in possible(plan.variants) if way(variant) in plan.ways]
    if any(way(variant) == "pairs" for variant in chosen):
        os.environ[loadgen.VARIABLE] = loadgen.binary()
    environments = _environment(builds[0]), _environment(builds[1])
    able = instructions.counters(environments[0])
    verdicts: list[Verdict] = []
    measured: dict[str, Any] = {}
    begun = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as threads:

        def together(jobs: list[Callable[[], int]]) -> list[int]:
            return [job.result() for job in [threads.submit(job) for job in jobs]]

        for number, variant in enumerate(chosen, 1):
            tell(
                f"\r\x1b[K{time.monotonic() - begun:4.0f} s  row {number}/{len(chosen)}  {variant}, {way(variant)}"
            )
            try:
                if way(variant) == "instructions":
                    row, _ = split(variant)
                    for side in environments:
                        # A first run without a counter compiles and caches the Python files.
                        finish(worker(variant, "tokioloop", "--count", str(row.n // 10)), pairs.HANG, side)
                    verdicts.append(instructions.compare(row, able, environments, plan.repeats, together))
                else:
                    found = list(pairs.run(variant, environments, plan.pairs, plan.seconds))
                    verdicts += pairs.judge(variant, found)
                    measured[variant] = [_without_latencies(pair) for pair in found]
            except (RuntimeError, ValueError) as error:
                verdicts.append(Verdict(variant, way(variant), why=str(error)))
    tell(f"\r\x1b[K{len(chosen)} rows in {time.monotonic() - begun:.0f} s\n")
    return verdicts, measured


def _environment(build: Build) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": python_path(build)}


def _without_latencies(pair: tuple[dict[str, Any], dict[str, Any]]) -> list[dict[str, Any]]:
    """The latencies: thousands of numbers that do not belong in a report."""
    return [{name: value for name, value in side.items() if name != pairs.LATENCIES} for side in pair]


def write(document: dict[str, Any], verdicts: list[Verdict], out: Path) -> int:
    """Writes and prints the table; 1 unless every figure holds."""
    text = report.markdown(document, verdicts)
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "results.md").write_text(text)
    print(text)
    tell(f"Written to {out}/: results.md and results.json.\n")
    return int(not verdicts or any(verdict.state != "pass" for verdict in verdicts))

"""Measures old and new in turns on the same cores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from ..model import Measurement
from ..rows import split
from ..run import measure
from .statistics import Latencies, of_latencies, of_pairs
from .verdict import CPU, LATENCY, RESIDENT, Verdict, exact

HANG = 60.0
#: Figures of memory, and how much each may grow. The number of resident pages varies by chance: the least of several runs counts.
#: One or two of tens of thousands of Python's blocks are the interpreter's and vary by chance; an object that needs one block more
#: is 25 % and more.
MEMORY = {"bytes": RESIDENT, "heap_bytes": 1.0, "blocks": 1.0001}
LATENCIES = "latencies_us"

type Pairs = Sequence[tuple[Measurement, Measurement]]
type Environments = tuple[dict[str, str], dict[str, str]]


def run(
    variant: str, environments: Environments, count: int, seconds: float
) -> Iterable[tuple[Measurement, Measurement]]:
    """`count` pairs, one after the other; old and new begin in turns. Raises RuntimeError where a measurement fails."""
    row, threads = split(variant)
    options = ("--latencies",) if row.serve is not None and threads == 1 else ()
    for number in range(count):
        found: dict[int, Measurement] = {}
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            environment = environments[side]
            found[side] = measure(variant, "tokioloop", seconds, HANG, *options, environment=environment)
        yield found[0], found[1]


def judge(variant: str, pairs: Pairs) -> list[Verdict]:
    """All results of a variant's pairs: CPU and latency of a row, or memory. Raises ValueError for pairs without figures."""
    row, _ = split(variant)
    if row.figure == "bytes":
        return [
            exact(variant, name, *_least(pairs, name), bound)
            for name, bound in MEMORY.items()
            if name in pairs[0][0]
        ]
    verdicts = []
    if "cpu_us" in pairs[0][0]:
        verdicts.append(_ratio(variant, "cpu_us", pairs, CPU))
    elif LATENCIES not in pairs[0][0]:
        verdicts.append(_ratio(variant, row.figure, pairs, LATENCY))
    if LATENCIES in pairs[0][0]:
        seen: list[tuple[Latencies, Latencies]] = [(old[LATENCIES], new[LATENCIES]) for old, new in pairs]
        for name, quantile in (("p50", 0.5), ("p99", 0.99)):
            old, new = (median(pair[side][f"{name}_us"] for pair in pairs) for side in (0, 1))
            verdicts.append(Verdict(variant, f"{name}_us", old, new, of_latencies(seen, quantile), LATENCY))
    return verdicts


def _ratio(variant: str, field: str, pairs: Pairs, bound: float) -> Verdict:
    figures = [(old[field], new[field]) for old, new in pairs]
    old, new = (median(pair[side] for pair in figures) for side in (0, 1))
    return Verdict(variant, field, old, new, of_pairs(figures), bound)


def _least(pairs: Pairs, field: str) -> tuple[float, float]:
    return min(old[field] for old, _ in pairs), min(new[field] for _, new in pairs)

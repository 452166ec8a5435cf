"""Runs the growth series: chooses the sizes that this machine can run, and limits the time."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import cores
from .rows.growth import SERIES, SPARE_BYTES, Series
from .run import Plan, run

LOOPS = ["asyncio", "uvloop", "tokioloop"]
ROUNDS, SECONDS = 2, 0.3
#: After this many seconds no measurement begins: with the last one a whole run takes three minutes at most.
LIMIT = 150.0
#: A million tasks take a slow loop this long to make and to end.
HANG = 45.0
#: Descriptors of a server and a load generator besides their connections.
SPARE_DESCRIPTORS = 100


@dataclass(frozen=True, slots=True)
class Means:
    """The limits of a process on this machine."""

    descriptors: int
    memory: int


def means() -> Means:
    return Means(cores.descriptors(), _available_memory())


def lacking(series: Series, size: int, has: Means) -> str | None:
    """Why `size` of a series can't be measured; None where it can."""
    if series.descriptors * size > has.descriptors - SPARE_DESCRIPTORS:
        return f"not possible: a process may have {has.descriptors:,} descriptors"
    if series.bytes_each and series.bytes_each * size > has.memory - SPARE_BYTES:
        return f"not possible: {has.memory >> 20:,} MiB of memory are available"
    return None


def possible(has: Means, *, quick: bool) -> tuple[list[str], list[str]]:
    """Names of the rows to run, and a sentence for each that is skipped. `quick` leaves out the largest size."""
    names, left_out = [], []
    for series in SERIES:
        rows = series.rows()
        for size in series.sizes[:-1] if quick else series.sizes:
            if why := lacking(series, size, has):
                left_out.append(f"{rows[size].title}: {why}")
            else:
                names.append(rows[size].name)
        if quick:
            left_out.append(f"{rows[series.sizes[-1]].title}: the run was a quick one")
    return names, left_out


def measure(rounds: int | None, *, quick: bool) -> dict[str, Any]:
    """A growth run; the value is what `growth.json` holds."""
    names, left_out = possible(means(), quick=quick)
    for line in left_out:
        print(line, file=sys.stderr)
    document = run(Plan(names, LOOPS, rounds or (1 if quick else ROUNDS), SECONDS, LIMIT, HANG))
    document["left_out"] = left_out + document["left_out"]
    return document


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return sys.maxsize

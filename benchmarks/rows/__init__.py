"""All rows, in the order of the tables."""

from __future__ import annotations

from fnmatch import fnmatchcase

from ..model import Row
from .growth import ROWS as GROWTH
from .loops import ROWS as LOOPS
from .pools import ROWS as POOLS
from .processes import ROWS as PROCESSES
from .scheduling import ROWS as SCHEDULING
from .served import ROWS as SERVED
from .spread import ROWS as SPREAD
from .threads import ROWS as THREADS
from .tls import ROWS as TLS

ROWS: dict[str, Row] = {
    row.name: row for row in (*SERVED, *TLS, *PROCESSES, *SCHEDULING, *THREADS, *POOLS, *SPREAD, *LOOPS)
}


def variants() -> list[str]:
    """Names of everything that can be run: rows, and rows on N threads as `NAME@N`."""
    several = [
        f"{row.name}@{threads}"
        for row in ROWS.values()
        for threads in ((2, *row.more_threads) if row.two_threads else ())
    ]
    return [*ROWS, *several]


def split(variant: str) -> tuple[Row, int]:
    """The row, of the tables or of a growth chart, and the number of threads that `variant` names. Raises KeyError for an unknown row."""
    name, _, threads = variant.partition("@")
    return ROWS.get(name) or GROWTH[name], int(threads or 1)


def select(patterns: str) -> list[str]:
    """Variants that one of the comma-separated shell patterns matches. Raises ValueError where one matches none."""
    if patterns == "all":
        return variants()
    chosen: list[str] = []
    for pattern in patterns.split(","):
        matched = [name for name in variants() if fnmatchcase(name, pattern)]
        if not matched:
            raise ValueError(f"no row matches {pattern!r}")
        chosen += [name for name in matched if name not in chosen]
    return chosen

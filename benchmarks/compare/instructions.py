"""Counts the instructions of an operation: two runs of a row with different numbers of operations, and the difference.

Callgrind counts where valgrind is installed, otherwise the processor's counters where `perf stat` has them. Both count all threads.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, stdev

from ..model import Row
from ..run import finish, worker
from .statistics import Interval
from .verdict import INSTRUCTIONS, Verdict

#: A program takes fifty times as long under callgrind, on a busy machine longer.
HANG = 900.0


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter of a command's instructions: a prefix for the command, and a pattern that finds the count in stderr."""

    name: str
    prefix: tuple[str, ...]
    told: str

    def count(self, command: list[str], environment: dict[str, str]) -> int:
        """Raises RuntimeError where the command fails or nothing was counted."""
        _, err = finish([*self.prefix, *command], HANG, environment)
        found = re.search(self.told, err, re.MULTILINE)
        if not found:
            raise RuntimeError(f"{self.name} counted nothing")
        return int(found[1].replace(",", ""))

    def works(self, environment: dict[str, str]) -> bool:
        try:
            return shutil.which(self.prefix[0]) is not None and self.count(["true"], environment) > 0
        except (OSError, RuntimeError):
            return False


CALLGRIND = Counter(
    "callgrind",
    ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
    r"Collected : (\d+)",
)
PERF = Counter("perf stat", ("perf", "stat", "-x", ";", "-e", "instructions:u"), r"^(\d+);.*instructions")


def counters(environment: dict[str, str]) -> list[Counter]:
    """The counters that work here, the best first."""
    return [counter for counter in (CALLGRIND, PERF) if counter.works(environment)]


def sizes(row: Row) -> tuple[int, int]:
    """The operations of the two runs: so far apart that the noise from run to run is a thousandth of the difference."""
    if _several_threads(row):
        return row.n // 10, row.n * 4
    return row.n // 10, row.n * 2 if row.n <= 20_000 else row.n


def _several_threads(row: Row) -> bool:
    """Threads take turns differently in each run: rows with several differ by half a percent, and are counted longer and more often."""
    return row.group in ("pools", "threads")


#: Runs jobs, in parallel where there is more than one core, and returns their values in order.
type Together = Callable[[list[Callable[[], int]]], list[int]]


def compare(
    row: Row,
    able: list[Counter],
    environments: tuple[dict[str, str], dict[str, str]],
    repeats: int,
    together: Together,
) -> Verdict:
    """The verdict on a row that can be counted. Raises RuntimeError where no counter can run it."""
    if not able:
        raise RuntimeError(
            "not counted: there is neither valgrind nor a counter of instructions for perf stat"
        )
    reasons: list[str] = []
    for counter in able:
        try:
            return _compare(row, counter, environments, repeats, together)
        except RuntimeError as error:
            reasons.append(f"{counter.name}: {error}")
    raise RuntimeError("; ".join(reasons))


def _compare(
    row: Row,
    counter: Counter,
    environments: tuple[dict[str, str], dict[str, str]],
    repeats: int,
    together: Together,
) -> Verdict:
    small, large = sizes(row)
    if _several_threads(row):
        repeats *= 2

    def job(environment: dict[str, str], n: int) -> Callable[[], int]:
        # Random hashes would change the order of sets and dicts from run to run.
        fixed = {**environment, "PYTHONHASHSEED": "0"}
        return lambda: counter.count(worker(row.name, "tokioloop", "--count", str(n)), fixed)

    counted = together(
        [job(side, n) for _ in range(repeats) for n in (small, large) for side in environments]
    )
    # In the order of the jobs: old and new at the small size, old and new at the large one, and so on.
    each = [
        [
            (big - little) / (large - small)
            for little, big in zip(counted[side::4], counted[side + 2 :: 4], strict=True)
        ]
        for side in (0, 1)
    ]
    return judge(row.name, counter.name, *each)


def judge(row: str, by: str, old: list[float], new: list[float]) -> Verdict:
    """The means of all repeats; the interval is two standard errors wide on each side."""
    if min(*old, *new) <= 0:
        raise RuntimeError("more operations took fewer instructions")
    ratio = mean(new) / mean(old)
    error = math.hypot(*(stdev(side) / mean(side) / len(side) ** 0.5 for side in (old, new) if len(side) > 1))
    interval = Interval(ratio, ratio * (1 - 2 * error), ratio * (1 + 2 * error))
    return Verdict(row, f"instructions, {by}", mean(old), mean(new), interval, INSTRUCTIONS)

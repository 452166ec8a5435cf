"""What is said of one figure of one row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .statistics import Interval

type State = Literal["pass", "slower", "open", "failed"]

#: New over old: instructions an operation, CPU, latency, resident memory, and what is counted exactly.
INSTRUCTIONS = 1.01
CPU = 1.02
LATENCY = 1.05
RESIDENT = 1.01
EXACT = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure of both builds, their ratio, and whether it holds. Of a row that failed there is the reason alone."""

    row: str
    figure: str
    old: float | None = None
    new: float | None = None
    interval: Interval | None = None
    bound: float | None = None
    why: str = ""

    @property
    def state(self) -> State:
        """`open` is what these measurements leave open: the interval holds both 1 and the bound."""
        if self.interval is None or self.bound is None:
            return "failed"
        if self.interval.high <= self.bound:
            return "pass"
        return "slower" if self.interval.low > 1 else "open"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"state": self.state}


def exact(row: str, figure: str, old: float, new: float, bound: float = EXACT) -> Verdict:
    """Figures that repeat: they have no interval."""
    ratio = new / old if old else 1.0 if new <= old else float("inf")
    return Verdict(row, figure, old, new, Interval(ratio, ratio, ratio), bound)

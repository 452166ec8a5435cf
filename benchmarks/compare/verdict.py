"""The verdict on one figure of one row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .statistics import Interval

type State = Literal["pass", "slower", "open", "failed"]

#: Bounds of new over old: instructions per operation, CPU, latency, resident memory, and figures that are counted exactly.
INSTRUCTIONS = 1.01
CPU = 1.02
LATENCY = 1.05
RESIDENT = 1.01
EXACT = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure of both builds, their ratio, and whether it holds. A row that failed has only the reason."""

    row: str
    figure: str
    old: float | None = None
    new: float | None = None
    interval: Interval | None = None
    bound: float | None = None
    why: str = ""

    @property
    def state(self) -> State:
        """`open` means that these measurements do not decide: the interval contains both 1 and the bound."""
        if self.interval is None or self.bound is None:
            return "failed"
        if self.interval.high <= self.bound:
            return "pass"
        return "slower" if self.interval.low > 1 else "open"

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"state": self.state}


def exact(row: str, figure: str, old: float, new: float, bound: float = EXACT) -> Verdict:
    """Figures that repeat exactly; they have no interval."""
    ratio = new / old if old else 1.0 if new <= old else float("inf")
    return Verdict(row, figure, old, new, Interval(ratio, ratio, ratio), bound)

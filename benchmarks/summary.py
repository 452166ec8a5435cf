"""Medians, ratios and verdicts of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from operator import ge, le, lt
from statistics import median
from typing import Any

from .model import Measurement, Row
from .rows import ROWS, split, variants

SUBJECT = "tokioloop"
REFERENCE = "uvloop"
FLOOR = "floor"
#: tokioloop must not be worse than these in any row, where they run.
RIVALS = ("rloop", "zuvloop")


@dataclass(frozen=True, slots=True)
class Cell:
    """A field over the rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Half the range, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that tokioloop is compared with in a row; `met` is None where it was not measured."""

    wanted: str
    reached: str
    met: bool | None


def _verdict(
    wanted: str, value: float | None, form: str, holds: Callable[[float, float], bool], bound: float
) -> Verdict:
    if value is None:
        return Verdict(wanted, "not measured", None)
    return Verdict(wanted, form.format(value), holds(value, bound))


def _all(verdicts: list[Verdict]) -> bool | None:
    found = [verdict.met for verdict in verdicts]
    return False if False in found else True if found and None not in found else None


class Summary:
    """Answers questions about the document that `run.run` made."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._found: dict[tuple[str, str], dict[int, Measurement]] = defaultdict(dict)
        for measurement in document["measurements"]:
            self._found[measurement["row"], measurement["loop"]][measurement["round"]] = measurement
        self._failed = {(failure["row"], failure["loop"]): failure["why"] for failure in document["failures"]}
        ran = {row for row, _ in [*self._found, *self._failed]}
        self.variants = [name for name in variants() if name in ran]
        self.loops = [name for name, peer in document["peers"].items() if peer["present"]]

    def rows(self, group: str | None = None) -> list[Row]:
        """The rows that ran on one thread."""
        rows = [ROWS[name] for name in self.variants if "@" not in name]
        return [row for row in rows if group in (None, row.group)]

    def cell(self, variant: str, loop: str, field: str) -> Cell | None:
        values = [m[field] for m in self._found[variant, loop].values() if field in m]
        return Cell(median(values), min(values), max(values), len(values)) if values else None

    def failure(self, variant: str, loop: str) -> str | None:
        """Why a row failed on a loop; None where no round did."""
        return self._failed.get((variant, loop))

    def ratio(self, over: tuple[str, str], under: tuple[str, str], field: str) -> float | None:
        """The median over the rounds of the ratio of two measurements' field, each named by variant and loop.

        Both of a round were measured within seconds of each other, so a machine that is slow for a while does not
        change the ratio.
        """
        above, below = self._found[over], self._found[under]
        both = [i for i in above if i in below and field in above[i] and below[i].get(field)]
        return median(above[i][field] / below[i][field] for i in both) if both else None

    def times(self, row: Row, loop: str = SUBJECT) -> float | None:
        """How many times less than uvloop's figure a loop's is."""
        return self.ratio((row.name, REFERENCE), (row.name, loop), row.figure)

    def times_than(self, row: Row) -> float | None:
        """How many times less tokioloop's figure is than its own in the row that the target names."""
        if row.target is None or row.target.than is None:
            return None
        return self.ratio((row.target.than, SUBJECT), (row.name, SUBJECT), row.figure)

    def over_floor(self, row: Row, loop: str = SUBJECT) -> float | None:
        """A loop's figure over the floor's; from the turns, where they were measured in turns."""
        if turns := self.cell(row.name, loop, "over_floor"):
            return turns.median
        return self.ratio((row.name, loop), (row.name, FLOOR), row.figure)

    def met(self, row: Row) -> bool | None:
        """Whether tokioloop reaches all of the row's target; None where there is none or a part was not measured."""
        return _all(self._of_target(row))

    def verdicts(self, variant: str) -> list[Verdict]:
        """All that a variant is compared with: its target's parts, and each rival that runs."""
        row, threads = split(variant)
        found = self._of_target(row) if threads == 1 else self._of_together(variant)
        if why := self.failure(variant, SUBJECT):
            found.append(Verdict("to run", f"failed: {why}", False))
        for name, ratio in self._rivals(variant).items():
            found.append(Verdict(f"no worse than {name}", f"{ratio:.3f} of its figure", ratio <= 1))
        return found

    def _of_target(self, row: Row) -> list[Verdict]:
        target, found = row.target, []
        if target is None:
            return []
        if target.times is not None:
            times = self.times_than(row) if target.than else self.times(row)
            wanted = f"{target.than or REFERENCE} / {target.times:g}"
            found.append(_verdict(wanted, times, "{:.3f}x", ge, target.times))
        if target.floor is not None:
            over = self.over_floor(row)
            wanted = f"{FLOOR} x {target.floor:g}"
            found.append(_verdict(wanted, over, "x {:.3f}", le, target.floor))
        if target.below is not None:
            cell = self.cell(row.name, SUBJECT, row.figure)
            value = cell.median if cell else None
            wanted = f"< {target.below:.4g} {row.unit}"
            found.append(_verdict(wanted, value, "{:.4g}", lt, target.below))
        return found

    def _of_together(self, variant: str) -> list[Verdict]:
        row, threads = split(variant)
        if row.together is None or threads != 2:
            return []
        over_uvloop, over_one = self.together(variant)
        return [
            _verdict(f"{of} x {want:g}", got, "x {:.3f}", ge, want)
            for of, want, got in (
                (f"{REFERENCE}'s rate", row.together.times, over_uvloop),
                ("one thread's rate", row.together.scale, over_one),
            )
            if want is not None
        ]

    def _rivals(self, variant: str) -> dict[str, float]:
        """tokioloop's figure over each rival's that has one."""
        row, threads = split(variant)
        figure = row.figure if threads == 1 else "cpu_us"
        ratios = {name: self.ratio((variant, SUBJECT), (variant, name), figure) for name in RIVALS}
        return {name: ratio for name, ratio in ratios.items() if ratio is not None}

    def beaten_by(self, variant: str) -> list[str]:
        """The rivals whose figure in a variant is less than tokioloop's."""
        return [name for name, ratio in self._rivals(variant).items() if ratio > 1]

    def shortfalls(self) -> dict[str, list[Verdict]]:
        """The variants that miss a part of their target, or a rival -> what they miss."""
        missed = {
            variant: [verdict for verdict in self.verdicts(variant) if verdict.met is False]
            for variant in self.variants
        }
        return {variant: verdicts for variant, verdicts in missed.items() if verdicts}

    def together(self, variant: str) -> tuple[float | None, float | None]:
        """The rate of a variant with several threads: over uvloop's in the same, and over that of one thread."""
        row, _ = split(variant)
        return (
            self.ratio((variant, SUBJECT), (variant, REFERENCE), "rate"),
            self.ratio((variant, SUBJECT), (row.name, SUBJECT), "rate"),
        )

    def met_together(self, variant: str) -> bool | None:
        """Whether several threads reach the row's target; None where there is no target or no measurement."""
        return _all(self._of_together(variant))

    def as_json(self) -> dict[str, Any]:
        """The figures of all tables, by row and loop."""
        out: dict[str, Any] = {}
        for variant in self.variants:
            row, threads = split(variant)
            cells = {loop: self._fields(variant, loop) for loop in [*self.loops, FLOOR]}
            out[variant] = {"title": row.title, "figure": row.figure, "unit": row.unit} | {
                "loops": {loop: fields for loop, fields in cells.items() if fields}
            }
            if threads == 1:
                out[variant] |= {
                    "times_better_than_uvloop": self.times(row),
                    "over_floor": self.over_floor(row),
                    "times_better_than_row": self.times_than(row),
                    "target": str(row.target) if row.target else None,
                    "met": self.met(row),
                    "beaten_by": self.beaten_by(variant),
                }
            elif row.together and threads == 2:
                over_uvloop, over_one = self.together(variant)
                out[variant] |= {
                    "rate_over_uvloop": over_uvloop,
                    "rate_over_one_thread": over_one,
                    "target": str(row.together),
                    "met": self.met_together(variant),
                }
        return out

    def _fields(self, variant: str, loop: str) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for field in (
            "cpu_us",
            "thread_cpu_us",
            "wall_us",
            "rate",
            "p50_us",
            "p99_us",
            "lost",
            "bytes",
            "heap_bytes",
        ):
            if cell := self.cell(variant, loop, field):
                fields[field] = cell.median
                fields[f"{field}_range"] = [cell.low, cell.high]
        if why := self.failure(variant, loop):
            fields["failure"] = why
        return fields

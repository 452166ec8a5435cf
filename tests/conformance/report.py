"""Judges outcomes against the exceptions, and says the result: progress, a table, a closing line, JSON."""

import json
import platform
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .expectations import Expectations, Rule
from .pool import Outcome, Pair

DETAILED = 60
"""Failures whose output is shown; the rest are only named."""

VERDICTS = ("passed", "failed", "excepted", "not counted")


@dataclass(frozen=True)
class Entry:
    """One test, judged."""

    test: str
    verdict: str
    reason: str
    baseline: Outcome | None
    subject: Outcome
    category: str = ""

    @property
    def module(self) -> str:
        return self.test.partition(".")[0]

    @property
    def on_subject(self) -> bool:
        return self.subject.loops.get("subject", 0) > 0


def judge(test: str, pair: Pair, rule: Rule | None) -> Entry:
    """The verdict on a test's outcomes, given the exception that names it, if any."""
    baseline, subject = pair
    if baseline is not None and baseline.status != "pass":
        return Entry(
            test, "not counted", f"{baseline.status} on asyncio's own loop: {baseline.reason}", *pair
        )
    if baseline is None and subject.status == "skip":
        return Entry(test, "not counted", f"skipped: {subject.reason}", *pair)
    if rule is not None:
        if subject.status == "pass":
            return Entry(test, "failed", f"passes, but is excepted ({rule.category}: {rule.reason})", *pair)
        return Entry(test, "excepted", rule.reason, *pair, rule.category)
    if subject.status == "pass":
        return Entry(test, "passed", "", *pair)
    return Entry(test, "failed", f"{subject.status}: {subject.reason}", *pair)


@dataclass
class Report:
    """Everything the lane found. `problems` are failures that belong to no test."""

    loop: str
    gil: bool
    expectations: Expectations
    total: int
    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, test: str, pair: Pair) -> None:
        """Judges one test and shows the progress; a failure is shown at once with its output."""
        entry = judge(test, pair, self.expectations.find(test))
        self.entries.append(entry)
        if entry.verdict == "failed" and self._count("failed") <= DETAILED:
            print(f"\nFAILED {test}\n  {entry.reason}")
            for line in entry.subject.output.splitlines()[-40:]:
                print(f"  | {line}")
        done = len(self.entries)
        if done % 100 == 0 or done == self.total:
            failed = sum(entry.verdict == "failed" for entry in self.entries)
            print(f"  {done}/{self.total} run, {failed} failed", flush=True)

    @property
    def failures(self) -> int:
        return self._count("failed") + len(self.problems)

    def show(self, seconds: float) -> None:
        """The table by module, the failures once more by name, and the closing line; `seconds` is the time of the whole run."""
        self.entries.sort(key=lambda entry: entry.test)
        gil = "with" if self.gil else "without"
        print(f"\n{self.loop} on Python {platform.python_version()} {gil} the GIL: {seconds:.0f} s\n")
        heads = ("module", "counted", *VERDICTS, "on the loop")
        print(f"{heads[0]:26}" + "".join(f"{head:>13}" for head in heads[1:]))
        for module in [*dict.fromkeys(entry.module for entry in self.entries), "all"]:
            rows = [entry for entry in self.entries if module in (entry.module, "all")]
            numbers = [sum(entry.verdict == verdict for entry in rows) for verdict in VERDICTS]
            counted = len(rows) - numbers[-1]
            reached = sum(entry.on_subject for entry in rows)
            print(f"{module:26}" + "".join(f"{number:13}" for number in (counted, *numbers, reached)))
        self._show_loops()
        for entry in self.entries:
            if entry.verdict == "failed":
                print(f"FAILED {entry.test}: {entry.reason[:200]}")
        for problem in self.problems:
            print(f"FAILED {problem}")
        skipped = self._count("excepted") + self._count("not counted")
        print(f"{self._count('passed')} passed, {self.failures} failed, {skipped} skipped", flush=True)

    def save(self, path: Path) -> None:
        """The whole report as JSON."""
        summary = {verdict: self._count(verdict) for verdict in VERDICTS}
        data = {
            "loop": self.loop,
            "python": sys.version,
            "summary": summary,
            "problems": self.problems,
            "tests": [asdict(entry) for entry in self.entries],
        }
        path.write_text(json.dumps(data, indent=1))

    def _show_loops(self) -> None:
        """That the subject ran, and not something else: which loops the counted tests made."""
        counted = [entry for entry in self.entries if entry.verdict in ("passed", "failed")]
        reached = sum(entry.on_subject for entry in counted)
        others: dict[str, int] = {}
        for entry in counted:
            for name in entry.subject.loops.keys() - {"subject"}:
                others[name] = others.get(name, 0) + 1
        none = sum(not entry.subject.loops for entry in counted)
        print(
            f"\nCounted and not excepted: {len(counted)}. Made the loop under test: {reached}. No loop: {none}."
        )
        if others:
            print(f"Loops of the tests' own making: {_listed(others)}.")
        categories: dict[str, int] = {}
        for entry in self.entries:
            if entry.verdict == "excepted":
                categories[entry.category] = categories.get(entry.category, 0) + 1
        if categories:
            print(f"Excepted: {_listed(categories)}.")

    def _count(self, verdict: str) -> int:
        return sum(entry.verdict == verdict for entry in self.entries)


def _listed(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(numbers.items()))

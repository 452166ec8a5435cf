"""What is shown while scenarios run: a bar for each on a terminal, a line now and then elsewhere."""

import shutil
import sys
import time

from .parent import Outcome

BAR = 24
# Seconds between two lines of one scenario where stdout is not a terminal.
PAUSE = 10.0
# Lines of stacks that are shown; the report has them all.
STACKS = 100
SIGNS = {
    "passed": "ok",
    "failed": "FAILED",
    "crashed": "CRASHED",
    "hung": "HUNG",
    "not offered": "not offered",
}


class Progress:
    """Call it with an outcome as often as there is news of it; the end of one begins a new line."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.shown = time.monotonic()

    def __call__(self, outcome: Outcome) -> None:
        ended = outcome.status != "running"
        if self.live:
            line = _line(outcome, bar=True)
            # A line that wraps could not be written over.
            shown = line if ended else line[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[2K{shown}", end="\n" if ended else "", flush=True)
        elif ended or time.monotonic() >= self.shown + PAUSE:
            print(_line(outcome, bar=False), flush=True)
        else:
            return
        self.shown = time.monotonic()
        if ended:
            self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        if outcome.status in ("passed", "not offered"):
            for note in outcome.result.get("notes", []):
                print(f"    {note}")
            return
        for problem in outcome.problems:
            print("    " + problem.rstrip().replace("\n", "\n    "))
        # The first lines of stacks matter, and the last ones of output; the output of a crash ends with its stacks.
        shown = outcome.stacks.rstrip().splitlines()[:STACKS]
        shown += outcome.output.removesuffix(outcome.stacks).rstrip().splitlines()[-30:]
        for line in shown:
            print(f"    | {line}")
        print(f"    again: {outcome.command}", flush=True)


def _line(outcome: Outcome, bar: bool) -> str:
    settings = outcome.settings
    head = f"{outcome.scenario:13} {settings.loop:9} "
    if outcome.status == "not offered":
        return head + SIGNS[outcome.status]
    samples = outcome.samples
    last = samples[-1] if samples else None
    ended = outcome.status != "running"
    at = last.at if last else 0.0
    if bar:
        done = BAR if ended else min(BAR - 1, int(BAR * at / (settings.seconds + settings.warm_up + 1)))
        head += "█" * done + "░" * (BAR - done) + " "
    if ended:
        text = f"{SIGNS[outcome.status]:8}"
        if outcome.result.get("seconds"):
            result = outcome.result
            text += f" {quantity(result['ops'])} ops, {quantity(result['ops'] / result['seconds'])}/s"
            if result["p99"] is not None:
                text += f", p50 {duration(result['p50'])}, p99 {duration(result['p99'])}, max {duration(result['most'])}"
            text += f", CPU {result['cpu']:.1f} s"
    else:
        text = f"{last.phase if last else 'start':8}" + (f"{quantity(last.ops)} ops" if last else "")
        if len(samples) > 5 and samples[-6].ops <= samples[-1].ops:
            spent = samples[-1].at - samples[-6].at
            text += f", {quantity((samples[-1].ops - samples[-6].ops) / spent)}/s"
    if last:
        text += f", RSS {max(it.rss for it in samples) >> 20} MiB at most"
        text += (
            f", {max(it.fds for it in samples)} fds, {max(it.threads for it in samples)} threads, {at:.1f} s"
        )
    return head + text


def quantity(value: float) -> str:
    """A count in at most four characters and a unit: 950, 1.2k, 34M."""
    unit = ""
    for larger in ("k", "M", "G"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f}{unit}" if value < 10 and (unit or value % 1) else f"{value:.0f}{unit}"


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"

"""The process of one scenario: it warms up, works, settles, and reports to its parent in JSON lines on a pipe.

Events: ``{"at": seconds, "phase": name}``, ``{"at", "ops", "p50", "p99"}`` some times a second while it works (operations in all,
quantiles in seconds of those since the last event), and at the end ``{"at", "result": {...}}``.
"""

import asyncio
import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from .left import Left, settled
from .run import Histogram, NotOffered, Run, Settings

Scenario = Callable[[Run], dict[str, int]]

# Sent by the parent to a child that hangs: it writes every thread's stack to stderr. No scenario uses it.
STACKS_SIGNAL = signal.SIGRTMAX
# Seconds between two events of progress.
INTERVAL = 0.2


class Events:
    """Reports to the parent. Lines are shorter than PIPE_BUF, except the result's, which is written when nothing else writes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def tell(self, **event: Any) -> None:
        data = json.dumps({"at": time.monotonic(), **event}).encode() + b"\n"
        while data:
            data = data[os.write(self.fd, data) :]


class Reporter:
    """``with Reporter(events, run):`` a thread of its own reports progress meanwhile."""

    def __init__(self, events: Events, run: Run) -> None:
        self.events, self.run = events, run
        self.ended = threading.Event()
        self.before = Histogram()
        self.thread = threading.Thread(target=self._work, name="stress reporter", daemon=True)

    def __enter__(self) -> None:
        self.tell()
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.thread.join()
        self.tell()

    def _work(self) -> None:
        while not self.ended.wait(INTERVAL):
            self.tell()

    def total(self) -> Histogram:
        total = Histogram()
        for tally in list(self.run.tallies):
            total.merge(tally.times)
        return total

    def tell(self) -> None:
        total = self.total()
        fresh = total.since(self.before)
        self.before = total
        ops = sum(tally.ops for tally in list(self.run.tallies))
        self.events.tell(ops=ops, p50=fresh.quantile(0.5), p99=fresh.quantile(0.99))


def serve(scenario: Scenario, settings: Settings, fd: int) -> int:
    """Run *scenario*, reporting on *fd*; 0 once its result is reported, whatever it is."""
    faulthandler.enable()
    faulthandler.register(STACKS_SIGNAL, all_threads=True, chain=False)
    if settings.loop == "tokioloop":
        # Scenarios use asyncio's functions of streams: here they make the loop's own.
        for name in ("open_connection", "start_server", "open_unix_connection", "start_unix_server"):
            setattr(asyncio, name, getattr(importlib.import_module("tokioloop"), name))
    events = Events(fd)
    result = attempt(scenario, settings, events)
    events.tell(result=result)
    if result["status"] == "failed":
        # Threads that an error left behind must not count as a hang. After a pass, the interpreter's end is part of the scenario.
        sys.stdout.flush()
        os._exit(0)
    return 0


def attempt(scenario: Scenario, settings: Settings, events: Events) -> dict[str, Any]:
    """Warm up, run, settle and compare; the result as the report keeps it."""
    try:
        events.tell(phase="warm-up")
        _work(scenario, Run(settings, settings.warm_up), events)
        before = Left.now()
        events.tell(phase="run")
        result = _work(scenario, Run(settings, settings.seconds), events)
        events.tell(phase="settle")
        after, waited = settled(before)
    except NotOffered as reason:
        return {"status": "not offered", "notes": [str(reason)]}
    except BaseException as error:  # whatever a scenario raises is its result, KeyboardInterrupt too
        return {"status": "failed", "problems": ["".join(traceback.format_exception(error))]}
    problems = after.growth_over(before)
    if not result["ops"]:
        problems.append("nothing was done in that time")
    result |= {"before": before.as_json(), "after": after.as_json(), "settled": waited}
    return result | {"status": "failed" if problems else "passed", "problems": problems}


def _work(scenario: Scenario, run: Run, events: Events) -> dict[str, Any]:
    """One run; only plain data outlives it, so that nothing of it counts as left."""
    reporter = Reporter(events, run)
    began, cpu = time.monotonic(), time.process_time()
    with reporter:
        counts = scenario(run)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    total = reporter.total()
    ops = sum(tally.ops for tally in run.tallies)
    gc.collect()
    return {
        "counts": counts,
        "notes": run.notes,
        "seconds": seconds,
        "cpu": cpu,
        "ops": ops,
        "p50": total.quantile(0.5),
        "p99": total.quantile(0.99),
        "most": total.most if sum(total.buckets) else None,
    }

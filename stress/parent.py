"""Starts the process of one scenario, watches it, and records its outcome, a crash or a hang included."""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from .child import STACKS_SIGNAL
from .run import PATIENCE, Settings

# Seconds between two looks at the child.
INTERVAL = 0.2
# A child that reports nothing for so many seconds is frozen: it reports several times a second, and settles in a fraction of this.
SILENCE = 90.0
# A child that still reports but has done nothing more for so many seconds is stuck: nothing it waits for takes that long.
STANDSTILL = 3 * PATIENCE
# How many samples are kept: fewer a second of a long run.
SAMPLES = 2000
# How long a child that hangs may take to write its stacks before it is killed, in seconds.
LAST_WORDS = 5.0
# How many characters of the child's output are kept.
TAIL = 20_000
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Sample:
    """The child at one moment: seconds since its start, its last report, and the kernel's figures."""

    at: float
    phase: str
    ops: int
    p99: float | None
    rss: int
    fds: int
    threads: int


@dataclass
class Outcome:
    """The outcome of one scenario on one loop. *status* is one of STATUSES."""

    scenario: str
    settings: Settings
    command: str
    status: str = "running"
    problems: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    stacks: str = ""
    output: str = ""
    began: float = field(default_factory=time.monotonic)

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "loop": self.settings.loop,
            "threads": self.settings.threads,
            "seconds asked": self.settings.seconds,
            "seed": self.settings.seed,
            "command": self.command,
            **self.result,
            "status": self.status,
            "problems": self.problems,
            "stacks": self.stacks,
            "output": self.output,
            "samples": [list(vars(sample).values()) for sample in self.samples],
        }


STATUSES = ("passed", "failed", "crashed", "hung", "not offered")


def repeat(scenario: str, settings: Settings) -> str:
    """The command that runs this again."""
    return (
        f"python -m stress run --scenario {scenario} --loop {settings.loop} --threads {settings.threads}"
        f" --seconds {settings.seconds:g} --seed {settings.seed}"
    )


def supervise(
    scenario: str,
    settings: Settings,
    progress: Callable[[Outcome], None],
    *,
    catalogue: str = "stress.scenarios",
    deadline: float | None = None,
) -> Outcome:
    """Run *scenario* of the module *catalogue* in a process of its own; call *progress* some times a second meanwhile.

    After *deadline* seconds, by default far more than it takes, or where it is frozen or stuck, the child is made to show its stacks
    and is killed.
    """
    if deadline is None:
        usual = settings.seconds + settings.warm_up
        deadline = usual + 3 * min(usual, PATIENCE) + 120
    outcome = Outcome(scenario, settings, repeat(scenario, settings))
    with tempfile.TemporaryFile() as output:
        child, events = _start(scenario, settings, catalogue, output)
        with closing(_Watch(child, events, outcome)) as watch:
            for _ in watch.until(time.monotonic() + deadline):
                progress(outcome)
            hung = watch.alive and (watch.complaint or f"still there after {deadline:g} s")
            if hung:
                outcome.output = _tail(output)
                outcome.stacks = _stacks(child, output, watch)
        _end(child)
        if not hung:
            outcome.output = _tail(output)
    _judge(outcome, child.returncode, hung)
    progress(outcome)
    return outcome


def _start(
    scenario: str, settings: Settings, catalogue: str, output: IO[bytes]
) -> tuple[subprocess.Popen[bytes], int]:
    reading, writing = os.pipe()
    command = [sys.executable, "-X", "faulthandler", "-m", "stress", "child"]
    command += ["--scenario", scenario, "--loop", settings.loop, "--threads", str(settings.threads)]
    command += ["--seconds", str(settings.seconds), "--seed", str(settings.seed)]
    command += ["--events", str(writing), "--catalogue", catalogue]
    try:
        # A session of its own, so that all it starts can be ended with it.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writing],
            start_new_session=True,
        )
    finally:
        os.close(writing)
    return child, reading


class _Watch:
    """Reads the child's reports and its files in /proc, and sees its end."""

    def __init__(self, child: subprocess.Popen[bytes], events: int, outcome: Outcome) -> None:
        self.child, self.events, self.outcome = child, events, outcome
        self.alive = True
        self.rest = b""
        self.phase, self.ops, self.p99 = "start", 0, None
        self.told = self.moved = time.monotonic()
        # One of so many readings becomes a sample.
        self.every, self.looks = 1, 0
        os.set_blocking(events, False)
        self.end = os.pidfd_open(child.pid)
        self.selector = selectors.DefaultSelector()
        self.selector.register(events, selectors.EVENT_READ)
        self.selector.register(self.end, selectors.EVENT_READ)

    def close(self) -> None:
        self.selector.close()
        os.close(self.events)
        os.close(self.end)

    def until(self, deadline: float) -> Iterator[None]:
        """Watch until the child ends, is frozen or stuck, or *deadline*; yields after each look."""
        while self.alive and time.monotonic() < deadline and not self.complaint:
            self._wait(time.monotonic() + INTERVAL)
            self._sample()
            yield

    @property
    def complaint(self) -> str:
        """Why waiting is over; empty while it is not."""
        now = time.monotonic()
        if now - self.told > SILENCE:
            return f"frozen: it reported nothing for {SILENCE:g} s"
        if self.phase in ("warm-up", "run") and self.ops and now - self.moved > STANDSTILL:
            return f"stuck: nothing was done for {STANDSTILL:g} s, after {self.ops} operations"
        return ""

    def _wait(self, until: float) -> None:
        while self.alive and (left := until - time.monotonic()) > 0:
            for key, _ in self.selector.select(left):
                if key.fd == self.end:
                    self.alive = False
            self._read()

    def _read(self) -> None:
        # The writing end may have been inherited by grandchildren, so its end of file means nothing.
        with suppress(BlockingIOError):
            while data := os.read(self.events, 1 << 16):
                self.rest += data
        *lines, self.rest = self.rest.split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        self.told = time.monotonic()
        if "result" in event:
            self.outcome.result = event["result"]
            self.phase = "end"
        elif "phase" in event:
            self.phase, self.moved = event["phase"], self.told
        else:
            if event["ops"] != self.ops:
                self.moved = self.told
            self.ops, self.p99 = event["ops"], event["p99"]

    def _sample(self) -> None:
        process = Path(f"/proc/{self.child.pid}")
        try:
            rss = int((process / "statm").read_text().split()[1]) * PAGE
            fds, threads = len(os.listdir(process / "fd")), len(os.listdir(process / "task"))
        except OSError:
            return
        if not rss:  # it ended meanwhile
            return
        self.looks += 1
        if self.looks % self.every:
            return
        samples = self.outcome.samples
        at = time.monotonic() - self.outcome.began
        samples.append(Sample(at, self.phase, self.ops, self.p99, rss, fds, threads))
        if len(samples) >= SAMPLES:
            # Of each two samples the one with more memory is kept, and with it the peak.
            pairs = zip(samples[::2], samples[1::2], strict=False)
            samples[:] = [max(pair, key=lambda sample: sample.rss) for pair in pairs]
            self.every *= 2


def _stacks(child: subprocess.Popen[bytes], output: IO[bytes], watch: _Watch) -> str:
    """Have the child write its stacks, after the kernel's state of each thread."""
    known = []
    for task in sorted(Path(f"/proc/{child.pid}/task").iterdir()):
        with suppress(OSError):
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            where = (task / "wchan").read_text().strip("0\n")
            name = (task / "comm").read_text().strip()
            known.append(f"thread {task.name} {name}: state {state}" + (f", in {where}" if where else ""))
    begin = output.seek(0, os.SEEK_END)
    os.kill(child.pid, STACKS_SIGNAL)
    # It is still writing while the output grows; a process that can't write is killed all the same.
    size, until = -1, time.monotonic() + LAST_WORDS
    while time.monotonic() < until and not 0 < size == _size(output) - begin:
        size = _size(output) - begin
        time.sleep(0.5)
    output.seek(begin)
    return "\n".join(known) + "\n\n" + output.read().decode(errors="replace")


def _tail(output: IO[bytes]) -> str:
    output.seek(max(0, _size(output) - TAIL))
    return output.read().decode(errors="replace")


def _size(output: IO[bytes]) -> int:
    return os.fstat(output.fileno()).st_size


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child's whole group, before its number is free for others, and take its status."""
    with suppress(ProcessLookupError):
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_words(output: str) -> str:
    """What faulthandler wrote of the threads as the process crashed, and the panic before it, if any."""
    found = re.search(r"^(thread .* panicked at|Fatal Python error:)", output, re.MULTILINE)
    return output[found.start() :] if found else ""


def _judge(outcome: Outcome, code: int, hung: str | Literal[False]) -> None:
    result = outcome.result
    outcome.problems = list(result.get("problems", []))
    if hung:
        outcome.status = "hung"
        phase = outcome.samples[-1].phase if outcome.samples else "start"
        outcome.problems.append(f"{hung}, in phase {phase!r}")
    elif code < 0:
        outcome.status = "crashed"
        outcome.stacks = _last_words(outcome.output)
        when = "after its result" if result else "while it ran"
        outcome.problems.append(f"ended by {signal.Signals(-code).name} {when}")
    elif not result:
        outcome.status = "failed"
        outcome.problems.append(f"ended with status {code} before it reported a result")
    elif code:
        outcome.status = "failed"
        outcome.problems.append(f"ended with status {code} after its result")
    else:
        outcome.status = result["status"]

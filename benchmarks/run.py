"""Runs measurements, each in a fresh process, the peers of a row one right after the other, round by round."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import loadgen, peers
from .model import Measurement
from .rows import split

ROOT = Path(__file__).parent.parent

#: After this many failures of a row on a loop, or one hang, further rounds skip it.
PATIENCE = 2


class HangError(RuntimeError):
    """A measurement did not end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: variants of rows, loops, rounds, and seconds for one measurement."""

    variants: list[str]
    loops: list[str]
    rounds: int
    seconds: float
    #: Seconds after which no measurement begins; None: no limit.
    limit: float | None = None
    #: A measurement that takes longer is a hang.
    hang: float = 20.0


def run(plan: Plan) -> dict[str, Any]:
    """Runs `plan`, reporting on stderr; returns the content of `results.json`."""
    os.environ[loadgen.VARIABLE] = loadgen.binary()
    present = {name: peers.probe(name) for name in plan.loops}
    for name, peer in present.items():
        tell(f"{name:10} {peer.version or 'there' if peer.present else 'left out: ' + peer.why}\n")
    loops = [name for name in plan.loops if present[name].present]
    if not loops:
        raise RuntimeError("none of the loops is installed")
    chosen = possible(plan.variants)
    measurements: list[Measurement] = []
    failures: list[dict[str, Any]] = []
    failed: Counter[tuple[str, str]] = Counter()
    begun = time.monotonic()
    cut: list[str] = []
    for round_ in range(plan.rounds):
        for number, variant in enumerate(chosen):
            if plan.limit is not None and time.monotonic() - begun > plan.limit:
                if round_ == 0:
                    cut.append(f"{split(variant)[0].title}: no time left")
                continue
            runners = [name for name in _runners(variant, loops) if failed[variant, name] < PATIENCE]
            # No loop is always first or always after the same neighbour.
            turn = (round_ + number) % max(1, len(runners))
            for name in runners[turn:] + runners[:turn]:
                done = f"round {round_ + 1}/{plan.rounds}, row {number + 1}/{len(chosen)}"
                tell(f"\r\x1b[K{time.monotonic() - begun:4.0f} s  {done}  {variant} {name}")
                try:
                    found = measure(variant, name, plan.seconds, plan.hang)
                except RuntimeError as error:
                    failed[variant, name] += PATIENCE if isinstance(error, HangError) else 1
                    failures.append({"row": variant, "loop": name, "round": round_, "why": str(error)})
                    tell(f"\r\x1b[K{variant} {name}: {error}\n")
                else:
                    measurements.append(found | {"round": round_})
    tell(f"\r\x1b[K{len(measurements)} measurements in {time.monotonic() - begun:.0f} s\n")
    return {
        "environment": environment(),
        "plan": asdict(plan),
        "peers": {name: asdict(peer) for name, peer in present.items()},
        "measurements": measurements,
        "failures": failures,
        "left_out": cut,
    }


def possible(variants: list[str]) -> list[str]:
    """The variants whose modules are installed; reports those that are skipped."""
    needs = {split(name)[0].needs for name in variants}
    missing = {module for module in needs if module is not None and not peers.has(module)}
    for name in variants:
        if (module := split(name)[0].needs) in missing:
            tell(f"{name} left out: no {module}\n")
    return [name for name in variants if split(name)[0].needs not in missing]


def _runners(variant: str, loops: list[str]) -> list[str]:
    row, threads = split(variant)
    able = [
        name
        for name in loops
        if (row.loops is None or name in row.loops) and row.group in peers.ONLY.get(name, (row.group,))
    ]
    return [*able, peers.FLOOR] if row.floor is not None and threads == 1 else able


def worker(variant: str, name: str, *options: str) -> list[str]:
    """The command that measures a row. It takes modules from PYTHONPATH before those of the directory it runs in."""
    return [sys.executable, "-P", "-m", "benchmarks.worker", variant, name, *options]


def measure(
    variant: str,
    name: str,
    seconds: float,
    hang: float,
    *options: str,
    environment: dict[str, str] | None = None,
) -> Measurement:
    """One measurement in a process of its own. Raises RuntimeError with the reason where it fails."""
    if environment is None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out, _ = finish(worker(variant, name, "--seconds", str(seconds), *options), hang, environment)
    found: Measurement = json.loads(out.splitlines()[-1])
    return found


def finish(command: list[str], hang: float, environment: dict[str, str] | None = None) -> tuple[str, str]:
    """What `command` and its children wrote to stdout and stderr. Raises RuntimeError with the reason where it fails."""
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        env=environment,
    )
    try:
        out, err = child.communicate(timeout=hang)
    except BaseException as error:
        # The session is the child's own: its load generator ends with it.
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise HangError(f"hung for {hang:.0f} s") from None
        raise
    if child.returncode < 0:
        raise RuntimeError(f"crashed with {signal.Signals(-child.returncode).name}")
    if child.returncode > 0:
        raise RuntimeError((err.strip().splitlines() or [f"exit status {child.returncode}"])[-1])
    return out, err


def environment() -> dict[str, Any]:
    """The machine and the interpreter, as of now."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    return {
        "python": platform.python_version(),
        "free_threaded": not getattr(sys, "_is_gil_enabled", lambda: True)(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": model,
        "cores": os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def tell(text: str) -> None:
    if not sys.stderr.isatty():
        text = text.replace("\r\x1b[K", "")
        if not text.endswith("\n"):
            text += "\n"
    sys.stderr.write(text)
    sys.stderr.flush()

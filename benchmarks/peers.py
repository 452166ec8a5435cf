"""The loops measured side by side, and which of them this interpreter has."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .model import LoopFactory

#: Loop name -> module and name of its factory. `floor` is the plain-Rust echo, known to the served rows only.
FACTORIES = {
    "asyncio": ("asyncio", "SelectorEventLoop"),
    "uvloop": ("uvloop", "new_event_loop"),
    "rloop": ("rloop", "new_event_loop"),
    "zuvloop": ("zuvloop", "new_event_loop"),
    "aiofastnet": ("benchmarks.fastnet", "new_event_loop"),
    "tokioloop": ("tokioloop", "new_event_loop"),
}
FLOOR = "floor"
#: Peers that differ from another peer in these groups only, and are not measured in others.
ONLY = {"aiofastnet": ("tls",)}

_PROBE = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
loop = getattr(module, sys.argv[2])()
loop.run_until_complete(__import__("asyncio").sleep(0))
loop.close()
enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
print(json.dumps({"version": str(getattr(module, "__version__", "")), "gil": enabled}))
"""


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a peer can be measured; `why` has the reason where it cannot."""

    present: bool
    version: str = ""
    gil: bool = False
    why: str = ""


def factory(name: str) -> LoopFactory:
    """The callable that makes a new loop of the peer `name`. Raises ImportError where it is not installed."""
    module, attribute = FACTORIES[name]
    made: LoopFactory = getattr(importlib.import_module(module), attribute)
    return made


def has(module: str) -> bool:
    """Whether `module` can be imported; asked in a process of its own too."""
    command = [sys.executable, "-c", f"import {module}"]
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=30, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def probe(name: str) -> Presence:
    """Imports the peer and runs one of its loops, in a process of its own: an import may crash."""
    module, attribute = FACTORIES[name]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, module, attribute],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=Path(__file__).parent.parent,
        )
    except subprocess.TimeoutExpired:
        return Presence(False, why="hangs when it is imported or run")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        # Python adds paths and guesses in parentheses.
        return Presence(False, why=last[0].partition(" (")[0])
    found = json.loads(done.stdout.splitlines()[-1])
    return Presence(True, found["version"], found["gil"])

"""The report: which scenario ran where, as JSON and as a page; several runs merged; the table of docs/reliability.md."""

import importlib
import json
import os
import platform
import re
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from . import page
from .progress import duration, quantity
from .run import LOOPS

# Raised when what is written changes its meaning.
FORMAT = 1


def begin() -> dict[str, Any]:
    """A report without results yet, of this interpreter and machine."""
    return {"format": FORMAT, "runs": [_run()], "results": []}


def _run() -> dict[str, Any]:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {
        "began": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": "python -m stress " + " ".join(sys.argv[1:]),
        "python": platform.python_version() + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""),
        "gil": "on" if gil else "off",
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "loops": {loop: version for loop in LOOPS if (version := _version(loop))},
    }


def _version(loop: str) -> str | None:
    try:
        return str(getattr(importlib.import_module(loop), "__version__", platform.python_version()))
    except ImportError:
        return None


def write(report: dict[str, Any], directory: Path) -> None:
    """Write report.json and index.html into *directory*, which is made where it is missing."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(report) + "\n")
    (directory / "index.html").write_text(page.page(report))


def merge(directories: list[Path]) -> dict[str, Any]:
    """One report of several. Raises ValueError for a report of another format."""
    merged: dict[str, Any] = {"format": FORMAT, "runs": [], "results": []}
    for directory in directories:
        report = json.loads((directory / "report.json").read_text())
        if report["format"] != FORMAT:
            raise ValueError(f"{directory}: a report of format {report['format']}, this is {FORMAT}")
        merged["runs"] += report["runs"]
        merged["results"] += report["results"]
    return merged


def table(report: dict[str, Any]) -> str:
    """What each loop survived, as a markdown table: one row a scenario, one column a loop."""
    loops = page.loops_of(report)
    lines = ["| Scenario | " + " | ".join(loops) + " |", "| --- |" + " --- |" * len(loops)]
    for scenario, found in page.by_scenario(report).items():
        lines.append(f"| `{scenario}` | " + " | ".join(_cell(found.get(loop, [])) for loop in loops) + " |")
    return "\n".join(lines)


def _cell(results: list[dict[str, Any]]) -> str:
    """The worst outcome, and for several runs how many had it."""
    if not results:
        return "-"
    parts = []
    for status in reversed(page.ORDER):
        those = [it for it in results if it["status"] == status]
        if not those:
            continue
        text = status if len(results) == 1 else f"{status} {len(those)} of {len(results)}"
        if status == "passed" and len(those) == len(results):
            last = those[-1]
            text += f", {quantity(last['ops'] / last['seconds'])}/s"
            if last["p99"] is not None:
                text += f", p99 {duration(last['p99'])}"
        elif status not in ("passed", "not offered"):
            text = f"**{text}**: {reason(those[-1])}"
        parts.append(text)
    return "; ".join(parts).replace("|", "\\|")


def reason(result: dict[str, Any]) -> str:
    """The most telling line: how the process ended, or which of loops' objects are left, or the first problem's error."""
    problems = result["problems"] or ["?"]
    chosen = problems[0]
    if result["status"] in ("crashed", "hung"):
        chosen = problems[-1]
    elif objects := [problem for problem in problems if problem.startswith("live objects")]:
        chosen = objects[0]
    lines = [line for line in chosen.strip().splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if not line.startswith(" ")), lines[-1])
    # The report must not show where the sources are.
    last = re.sub(r"/\S*/(?=stress/scenarios/)", "", last)
    return last if len(last) < 160 else last[:157] + "..."

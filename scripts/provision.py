#!/usr/bin/env python3
"""Finds free-threaded CPython 3.13, or provides it, and prints its path on stdout.

In this order: `$PYTHON`, `python3.13t` on PATH, one that uv or an earlier run already has, `uv python install 3.13t`,
and finally a build from the Debian archive's source.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

if sys.version_info < (3, 11):
    sys.exit(
        "tokioloop's set-up needs Python 3.11 or later to run; install one, or name it: make BOOTSTRAP=python3.12"
    )

import debian_python
from interpreters import Interpreter, probe
from steps import Failure, note, run, say

WANTED = "3.13t"
UV_SECONDS = 180
UV_LIMITS = {"UV_HTTP_TIMEOUT": "15", "UV_HTTP_CONNECT_TIMEOUT": "10", "UV_HTTP_RETRIES": "1"}


def provide() -> Interpreter:
    """An interpreter that tokioloop can use. Raises Failure saying what is missing."""
    if os.environ.get("PYTHON"):
        return named(os.environ["PYTHON"])
    found = _on_path() or _known_to_uv() or debian_python.cached()
    if found is None:
        say("No free-threaded CPython 3.13 here ($PYTHON is not set, no python3.13t on PATH): providing one")
        found = _from_uv() or debian_python.build()
    return found


def named(command: str) -> Interpreter:
    """The interpreter that the user named; nothing else is tried in its place."""
    path = shutil.which(os.path.expanduser(command))
    found = probe(path) if path else None
    if found is None:
        raise Failure(f"PYTHON={command}: no Python answers to that name.")
    if found.unfit():
        raise Failure(f"PYTHON={command}: {found.unfit()}.")
    return found


def _suits(command: str | None) -> Interpreter | None:
    found = probe(command) if command else None
    return found if found and found.free_threaded and not found.unfit() else None


def _on_path() -> Interpreter | None:
    return _suits(shutil.which("python3.13t"))


def _known_to_uv() -> Interpreter | None:
    if not shutil.which("uv"):
        return None
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    # Run outside any project: inside one, uv would answer with its .venv.
    answer = subprocess.run(
        ["uv", "python", "find", "--no-project", "--system", WANTED],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    return _suits(answer.stdout.strip()) if answer.returncode == 0 else None


def _from_uv() -> Interpreter | None:
    if not shutil.which("uv"):
        note("uv is not on PATH (with it, `uv python install 3.13t` would fetch a ready-made one)")
        return None
    environment = {**UV_LIMITS, **os.environ}
    what = f"uv python install {WANTED} (under a minute where it can download; {UV_SECONDS} s at most)"
    try:
        run(what, ["uv", "python", "install", WANTED], env=environment, timeout=UV_SECONDS)
    except Failure as failure:
        note(f"uv could not, going on without it: {failure.reason}")
        return None
    return _known_to_uv()


if __name__ == "__main__":
    try:
        interpreter = provide()
    except Failure as failure:
        sys.exit(f"\n{failure}")
    note(f"{interpreter.name}: {interpreter.executable}")
    print(interpreter.executable)

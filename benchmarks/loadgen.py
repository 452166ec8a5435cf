"""Finds, builds and starts the Rust load generator."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

MANIFEST = Path(__file__).parent / "loadgen" / "Cargo.toml"

#: The environment variable that names the binary, so that the measuring processes need not run cargo again.
VARIABLE = "TOKIOLOOP_LOADGEN"


@cache
def binary() -> str:
    """Path of the release binary, built where it is missing or stale. Raises RuntimeError where that fails."""
    if given := os.environ.get(VARIABLE):
        return given
    command = ["cargo", "build", "--release", "--message-format=json", "--manifest-path", str(MANIFEST)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"the load generator was not built: {error}") from error
    messages = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    for message in messages:
        if message.get("executable"):
            return str(message["executable"])
    raise RuntimeError("cargo named no executable")


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """Starts the load generator; its report comes on stdout."""
    return subprocess.Popen(
        [binary(), *arguments, "--json"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


def report(text: bytes) -> dict[str, Any]:
    """The report of a run. Raises RuntimeError where a reply was wrong or there is no report."""
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        raise RuntimeError("the load generator gave no report") from None
    if found["errors"]:
        raise RuntimeError(f"{found['errors']} wrong replies: {found.get('first_error')}")
    return found


class Floor:
    """The plain-Rust echo server as a child process."""

    def __init__(self, *arguments: str) -> None:
        self._child = subprocess.Popen(
            [binary(), "floor", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._child.stdout is not None
        self.where: dict[str, int | str] = json.loads(self._child.stdout.readline())
        self.pid = self._child.pid

    def close(self) -> None:
        """Ends it by closing its stdin."""
        self._child.communicate(timeout=10)

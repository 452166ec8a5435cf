#!/usr/bin/env python3
"""Installs the servers that tests/compat talks to, where they are missing: Debian's packages, by apt-get, as root.

`python3 scripts/servers.py`

A server that cannot be installed is only reported, with its package: its tests are then skipped, or
fail where the environment has CI set.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("tokioloop's set-up needs Python 3.11 or later to run")

from steps import CACHE, Failure, locked, note, run

SERVERS = {"redis-server": "redis-server", "postgres": "postgresql"}
"""Each server's program and the Debian package it comes in."""


def find(name: str) -> Path | None:
    """The path of a server's program. Debian keeps PostgreSQL's outside PATH, in a directory for each version."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=_version)
    if versions:
        return versions[-1]
    found = shutil.which(name)
    return Path(found) if found else None


def _version(path: Path) -> float:
    try:
        return float(path.parents[1].name)
    except ValueError:
        return 0.0


def install(packages: list[str]) -> None:
    """Install Debian packages without starting their services. Raises Failure."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Failure(
            "only root can install packages here" if shutil.which("apt-get") else "there is no apt-get here"
        )
    # Do not start the packages' services: the tests start their own.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    apt = ["apt-get", "-y", "-o", "DPkg::Lock::Timeout=120"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    what = f"Installing {' and '.join(packages)} (up to a minute)"
    command = [*apt, "install", "--no-install-recommends", *packages]
    try:
        try:
            run(what, command, env=environment, timeout=600)
        except Failure:
            run("Renewing apt's lists (some seconds)", [*apt, "update"], env=environment, timeout=300)
            run(what, command, env=environment, timeout=600)
    finally:
        if ours:
            policy.unlink()


def main() -> None:
    with locked(CACHE / "servers.lock"):
        wanted = [package for name, package in SERVERS.items() if find(name) is None]
        if not wanted:
            return
        try:
            install(wanted)
        except Failure as failure:
            note(
                f"not installed: {' and '.join(wanted)}: {failure.reason}; tests that need them are left out"
            )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

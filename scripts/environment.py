#!/usr/bin/env python3
"""Makes and updates the virtual environment: interpreter, requirements, extension. Skips what is up to date.

`python3 scripts/environment.py [--venv .venv] [--group NAME]... [--peers GROUP]... [--extension release|dev]`

A group is one of pyproject.toml's dependency groups and must install. Each requirement of a group given as `--peers`
is installed by itself; one that does not install is skipped with a message.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):
    sys.exit(
        "tokioloop's set-up needs Python 3.11 or later to run; install one, or name it: make BOOTSTRAP=python3.12"
    )

import tomllib

from interpreters import Interpreter, probe
from provision import named, provide
from steps import ROOT, Failure, locked, note, run, say

STATE = "tokioloop-setup.json"
EXTENSION_SOURCES = (
    "src",
    "crates",
    "Cargo.toml",
    "Cargo.lock",
    ".cargo/config.toml",
    "pyproject.toml",
    "build.rs",
)


class Environment:
    """One virtual environment and the record, kept inside it, of what was installed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.python = path / "bin" / "python"
        self.state: dict[str, Any] = self._load()

    def _load(self) -> dict[str, Any]:
        try:
            state = json.loads((self.path / STATE).read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _save(self) -> None:
        record = self.path / STATE
        fresh = record.with_suffix(".new")
        fresh.write_text(json.dumps(self.state, indent=2) + "\n")
        fresh.replace(record)

    def ensure_interpreter(self) -> Interpreter:
        """Make the environment unless it exists and its interpreter is still the wanted one."""
        wanted = named(os.environ["PYTHON"]) if os.environ.get("PYTHON") else None
        current = probe(self.python) if self.state.get("made") else None
        if current and not current.unfit() and self._keeps(current, wanted):
            return current
        if self.path.exists() and not self.state:
            raise Failure(
                f"{self.path} exists and was not made by this set-up. Move it away, or choose another: make VENV=..."
            )
        wanted = wanted or provide()
        note(f"{wanted.name}: {wanted.executable}")
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        # Recorded before it is made, so that the environment of an interrupted run is known as ours and is made again.
        self.state = {"made": False, "groups": {}, "left_out": {}}
        self._save()
        make = [str(wanted.executable), "-m", "venv", str(self.path)]
        run(f"Making the virtual environment {self.path.name} (10 s)", make)
        self.state |= {"made": True, "base": str(wanted.executable), "build": wanted.build}
        self._save()
        made = probe(self.python)
        if made is None:
            raise Failure(f"{self.python} was made and does not run.")
        return made

    def _keeps(self, current: Interpreter, wanted: Interpreter | None) -> bool:
        if wanted is None:
            return current.free_threaded
        return self.state.get("base") == str(wanted.executable) and self.state.get("build") == wanted.build

    def install_group(self, name: str, requirements: list[str]) -> None:
        """Install all of a group's requirements, at once. Raises Failure when one does not install."""
        mark = _digest(requirements)
        if self.state["groups"].get(name) == mark:
            return
        what = f"Installing {name}: {', '.join(requirements)} (under a minute where pip's index answers)"
        hint = "pip has to reach a package index, or a directory named by PIP_FIND_LINKS, to install these."
        run(what, [*self._pip(), *requirements], hint=hint)
        self.state["groups"][name] = mark
        self._save()

    def install_peers(self, requirements: list[str]) -> None:
        """Install each requirement by itself; one that cannot be installed is recorded and not tried again."""
        for requirement in requirements:
            mark = _digest([requirement])
            if self.state["groups"].get(requirement) == mark:
                continue
            if requirement in self.state["left_out"]:
                note(f"{requirement} is left out, as it did not install earlier; `make peers` tries again")
                continue
            what = f"Installing {requirement} (up to 3 minutes where it has to be compiled)"
            try:
                # Prefer a release with a wheel for this Python to a later one that may not build on it.
                run(what, [*self._pip(), "--prefer-binary", requirement], timeout=900)
                self.state["groups"][requirement] = mark
            except Failure as failure:
                note(f"{requirement} is left out, it does not install here: {failure.reason}")
                self.state["left_out"][requirement] = failure.reason
            self._save()

    def forget_left_out(self) -> None:
        self.state["left_out"] = {}
        self._save()

    def _pip(self) -> list[str]:
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        return [*pip, "--retries", "2"]

    def build_extension(self, interpreter: Interpreter, profile: str) -> None:
        """Build the extension into the package's folder unless it was built from the very same sources."""
        module = ROOT / "tokioloop" / f"_tokioloop{interpreter.suffix}"
        mark = f"{profile} {_fingerprint()}"
        if self.state.get("extension") == mark and module.exists():
            return
        environment = {**os.environ, "VIRTUAL_ENV": str(self.path)}
        # Either variable would lead maturin or pyo3 to another interpreter than the environment's.
        for name in ("CONDA_PREFIX", "PYO3_PYTHON"):
            environment.pop(name, None)
        command = [str(self.path / "bin" / "maturin"), "develop"]
        if profile == "release":
            command.append("--release")
        what = f"Building the extension, {profile} mode (1 to 3 minutes the first time)"
        run(
            what,
            command,
            env=environment,
            hint="It needs Rust 1.88 or later, a C compiler (Debian: gcc) and the crates of Cargo.lock.",
        )
        self.state["extension"] = mark
        self._save()


def check_toolchain() -> None:
    """Report missing tools before any long step. Raises Failure."""
    missing = []
    if not shutil.which("cargo"):
        missing.append("cargo (a Rust toolchain of 1.88 or later: rustup installs one)")
    if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
        missing.append("a C compiler, which also links Rust's output (Debian: gcc and libc6-dev)")
    if missing:
        raise Failure("Not on PATH: " + "; ".join(missing) + ".")


def _digest(words: list[str]) -> str:
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def _fingerprint() -> str:
    """A digest of all files that the extension is built from."""
    digest = hashlib.sha256()
    for name in EXTENSION_SOURCES:
        path = ROOT / name
        if path.is_dir():
            files = sorted([*path.rglob("*.rs"), *path.rglob("Cargo.toml")])
        else:
            files = [path] if path.exists() else []
        for file in files:
            digest.update(f"{file.relative_to(ROOT)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _groups() -> dict[str, list[str]]:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    return {name: [entry for entry in entries if isinstance(entry, str)] for name, entries in groups.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Makes tokioloop's virtual environment and keeps it up to date."
    )
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="its path (default: .venv)")
    parser.add_argument("--group", action="append", default=[], help="a dependency group that must install")
    parser.add_argument(
        "--peers", action="append", default=[], help="a group whose requirements may each fail"
    )
    parser.add_argument("--retry", action="store_true", help="try again what was left out")
    parser.add_argument("--extension", choices=("release", "dev"), help="build the extension in this mode")
    chosen = parser.parse_args()
    groups = _groups()
    if chosen.extension:
        check_toolchain()
    with locked(ROOT):
        environment = Environment((ROOT / chosen.venv).absolute())
        interpreter = environment.ensure_interpreter()
        if not interpreter.free_threaded:
            say(f"{interpreter.name}: loops work, threads share the GIL")
        for name in chosen.group:
            environment.install_group(name, groups[name])
        if chosen.retry:
            environment.forget_left_out()
        for name in chosen.peers:
            environment.install_peers(groups[name])
        if chosen.extension:
            environment.build_extension(interpreter, chosen.extension)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"\n{failure}")
    except KeyboardInterrupt:
        sys.exit(130)

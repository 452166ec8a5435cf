"""Finds and makes the builds: a revision, an extension, a wheel or a directory becomes a copy of the package."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokioloop" / "builds"
PACKAGE = "tokioloop"
EXTENSION = f"_tokioloop{sysconfig.get_config_var('EXT_SUFFIX')}"
#: The record of the set-up in a virtual environment, with the mode in which the tree's extension was built.
RECORD = "tokioloop-setup.json"


class BuildError(RuntimeError):
    """A build that does not exist, cannot be made, or must not be measured."""


@dataclass(frozen=True, slots=True)
class Build:
    """One side: `path` is a directory that holds the package alone, `title` names its source."""

    path: Path
    title: str


def prepare(what: str, side: str, directory: Path) -> Build:
    """Copies the build that `what` names to `directory/side` and checks that the copy is imported. Raises BuildError.

    `what` is a directory with the package in it, a wheel, an extension, `EXTENSION@REVISION` where its Python files are of
    another revision than the tree's, or a revision of git, which is built once and kept.
    """
    path = directory / side
    package = path / PACKAGE
    path.mkdir(parents=True)
    extension, at, revision = what.rpartition("@")
    if at and Path(extension).is_file():
        commit = _commit(revision)
        _copy(_package_of(commit, path), package, Path(extension))
        title = f"{Path(extension).name} with the Python files of {commit[:12]}"
    elif Path(what).is_dir():
        _fit(Path(what))
        _copy(Path(what) / PACKAGE, package)
        title = "the tree" if Path(what).resolve() == ROOT else str(what)
    elif what.endswith(".whl"):
        with zipfile.ZipFile(what) as wheel:
            wheel.extractall(path)
        title = Path(what).name
    elif Path(what).is_file():
        _copy(ROOT / PACKAGE, package, Path(what))
        title = f"{Path(what).name} with the tree's Python files"
    else:
        commit = _commit(what)
        _copy(_built(commit) / PACKAGE, package)
        title = f"{what} ({commit[:12]})" if what != commit else commit[:12]
    _check(path)
    return Build(path, title)


def python_path(build: Build) -> str:
    """The PYTHONPATH with which a worker finds this build before any other, and the benchmarks."""
    return os.pathsep.join((str(build.path), str(ROOT)))


def _copy(source: Path, package: Path, extension: Path | None = None) -> None:
    """The package's files and one extension: `extension`, else the source's own."""
    if not source.is_dir():
        raise BuildError(f"no package {PACKAGE} in {source.parent}")
    ignored = (
        shutil.ignore_patterns("__pycache__", "*.so") if extension else shutil.ignore_patterns("__pycache__")
    )
    if package.exists():
        if source != package:
            raise BuildError(f"{package} is in the way")
    else:
        shutil.copytree(source, package, ignore=ignored)
    if extension:
        shutil.copy2(extension, package / EXTENSION)


def _fit(directory: Path) -> None:
    """Refuses the tree's extension where the set-up built it in debug mode."""
    if directory.resolve() != ROOT:
        return
    try:
        mode = json.loads((Path(sys.prefix) / RECORD).read_text()).get("extension", "")
    except (OSError, ValueError):
        return
    if mode.startswith("dev"):
        raise BuildError("the tree's extension was built in debug mode; `make develop` builds it for release")


def _check(path: Path) -> None:
    """Imports the build as the workers do, to find a build of another interpreter, or a package elsewhere that hides it."""
    code = f"import {PACKAGE}._tokioloop as m, {PACKAGE} as p; print(p.__file__); print(m.__file__)"
    environment = {**os.environ, "PYTHONPATH": python_path(Build(path, ""))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"{path.name}: does not import: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    for found in done.stdout.split():
        if not Path(found).is_relative_to(path):
            raise BuildError(f"{path.name}: {found} is imported instead")


def _commit(revision: str) -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{revision!r} is neither a file nor a directory nor a revision of git")
    return done.stdout.strip()


def _package_of(commit: str, path: Path) -> Path:
    """Writes the Python files of `commit` into a directory."""
    _extract(commit, path, PACKAGE)
    return path / PACKAGE


def _extract(commit: str, path: Path, *names: str) -> None:
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, "--", *names], capture_output=True, check=True
    )
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(path, filter="data")


def key(commit: str) -> str:
    """Names the build of `commit`; the name includes all else that the machine code depends on."""
    compiler = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    profile = sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith("CARGO_PROFILE_") or name in ("RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS")
    )
    others = hashlib.sha256("\n".join([compiler, sys.version, *profile]).encode()).hexdigest()[:8]
    return f"{commit[:12]}-{sysconfig.get_config_var('SOABI')}-{others}"


def _built(commit: str) -> Path:
    """A directory with the package as of `commit`, built as `make develop` builds it."""
    kept = CACHE / key(commit)
    if (kept / PACKAGE / EXTENSION).exists():
        return kept
    print(f"Building {commit[:12]} (some minutes; kept in {CACHE})", file=sys.stderr, flush=True)
    source = CACHE / f"{key(commit)}.source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    _extract(commit, source)
    # One directory for all revisions, so that their dependencies are built once.
    target = CACHE / f"target-{sysconfig.get_config_var('SOABI')}"
    command = ["cargo", "rustc", "--release", "--locked", "--lib", "--crate-type", "cdylib"]
    command += ["--features", "extension-module", "--target-dir", str(target), "--message-format=json"]
    command += ["--", "-C", "strip=symbols"]
    environment = {**os.environ, "PYO3_PYTHON": sys.executable}
    done = subprocess.run(
        command, cwd=source, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"{commit[:12]} was not built: cargo ended with status {done.returncode}")
    library = _library(done.stdout)
    _copy(source / PACKAGE, kept / PACKAGE, library)
    shutil.rmtree(source)
    return kept


def _library(messages: str) -> Path:
    """The shared library among cargo's messages."""
    for line in messages.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("target", {}).get("name") == "_tokioloop":
            for name in message.get("filenames", []):
                if name.endswith(".so"):
                    return Path(name)
    raise BuildError("cargo named no library")

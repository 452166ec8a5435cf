"""Builds free-threaded CPython 3.13 from the Debian archive's source package, once, into tokioloop's cache.

The archive's address and key come from the machine's own apt sources; apt checks the signature and the checksums.
The build is installed beside its final place and moved there when complete, so an interrupted run leaves nothing
incomplete behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from apt_archives import Archive, archives
from interpreters import Interpreter, probe
from steps import CACHE, Failure, locked, note, run, say

PREFIX = CACHE / "python-3.13t"
PACKAGE = "python3.13"
SUITES = ("forky", "trixie")
FETCH_SECONDS = 600

TOOLS = {"make": "make", "tar": "tar", "xz": "xz-utils", "pkg-config": "pkg-config"}
REQUIRED_HEADERS = {"stdlib.h": "libc6-dev", "zlib.h": "zlib1g-dev", "openssl/ssl.h": "libssl-dev"}
WANTED_HEADERS = {
    "ffi.h": ("libffi-dev", "ctypes"),
    "bzlib.h": ("libbz2-dev", "bz2"),
    "lzma.h": ("liblzma-dev", "lzma"),
    "sqlite3.h": ("libsqlite3-dev", "sqlite3"),
    "readline/readline.h": ("libreadline-dev", "readline"),
    "uuid/uuid.h": ("uuid-dev", "uuid"),
}


def cached() -> Interpreter | None:
    """The interpreter built earlier, if it exists and works."""
    found = probe(PREFIX / "bin" / "python3.13t")
    return found if found and found.free_threaded and not found.unfit() else None


def build() -> Interpreter:
    """Build the interpreter unless another run just did. Raises Failure naming what is missing."""
    with locked(CACHE / "lock"):
        return cached() or _build()


def _build() -> Interpreter:
    say(f"Building free-threaded CPython 3.13 from Debian's source: 3 to 6 minutes, once; kept in {PREFIX}")
    compiler = _check_tools()
    CACHE.mkdir(parents=True, exist_ok=True)
    # Not in /tmp: it may be small or mounted noexec, and the finished tree is renamed within one file system.
    with tempfile.TemporaryDirectory(prefix="build-", dir=CACHE) as scratch:
        work = Path(scratch)
        tree = _unpack(_fetch(work), work)
        environment = {**os.environ, "CC": compiler, "PYTHONDONTWRITEBYTECODE": ""}
        for name in ("PYTHONHOME", "PYTHONPATH", "PYTHON_GIL", "DESTDIR", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
            environment.pop(name, None)
        configure = ["./configure", "--disable-gil", f"--prefix={PREFIX}"]
        run("Configuring CPython (half a minute)", configure, cwd=tree, env=environment)
        jobs = len(os.sched_getaffinity(0))
        run(
            f"Compiling CPython with {jobs} jobs (2 to 5 minutes)",
            ["make", f"-j{jobs}"],
            cwd=tree,
            env=environment,
        )
        stage = work / "stage"
        install = ["make", "install", f"DESTDIR={stage}"]
        run("Installing CPython (half a minute)", install, cwd=tree, env=environment)
        if PREFIX.exists():
            shutil.rmtree(PREFIX)
        (stage / PREFIX.relative_to("/")).rename(PREFIX)
    found = cached()
    if found is None:
        made = probe(PREFIX / "bin" / "python3.13t")
        reason = made.unfit() if made else "it does not run"
        raise Failure(f"CPython was built in {PREFIX}, but {reason}.")
    return found


def _check_tools() -> str:
    """The C compiler's name. Raises Failure where something that the build needs is missing."""
    compiler = os.environ.get("CC") or next(
        (name for name in ("cc", "gcc", "clang") if shutil.which(name)), ""
    )
    missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
    if not compiler:
        missing.append("gcc")
    else:
        missing += [
            package for header, package in REQUIRED_HEADERS.items() if not _has_header(compiler, header)
        ]
    if missing:
        raise Failure(
            "Cannot build CPython 3.13t here; missing Debian packages: "
            + " ".join(missing)
            + f"\nInstall them: apt-get install {' '.join(missing)}\n"
            "or install a free-threaded CPython 3.13 yourself and name it: make demo PYTHON=/path/to/python3.13t"
        )
    for header, (package, module) in WANTED_HEADERS.items():
        if not _has_header(compiler, header):
            note(f"{package} is not installed: this Python will lack the module {module}")
    return compiler


def _has_header(compiler: str, header: str) -> bool:
    answer = subprocess.run(
        [*compiler.split(), "-E", "-x", "c", "-"],
        input=f"#include <stdio.h>\n#include <{header}>\n".encode(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return answer.returncode == 0


def _fetch(work: Path) -> Path:
    """Download the source package; returns the path of the upstream archive in it."""
    known = archives()
    if not known:
        raise Failure(
            "There is no Debian archive in this machine's apt sources (/etc/apt/sources.list, /etc/apt/sources.list.d), so "
            "CPython's source cannot be fetched.\nInstall a free-threaded CPython 3.13 and name it: "
            "make demo PYTHON=/path/to/python3.13t"
        )
    problems = []
    for suite in SUITES:
        for archive in known:
            try:
                return _fetch_from(archive, suite, work)
            except Failure as failure:
                problems.append(str(failure))
                note(f"can't be fetched from {archive.uri} {suite}")
    raise Failure(
        f"No configured archive gave the source package {PACKAGE}:\n" + "\n".join(problems) + "\n"
        "Check the network and the apt sources, or install a free-threaded CPython 3.13 and name it: "
        "make demo PYTHON=/path/to/python3.13t"
    )


def _fetch_from(archive: Archive, suite: str, work: Path) -> Path:
    home = Path(tempfile.mkdtemp(prefix=f"apt-{suite}-", dir=work))
    for folder in ("lists/partial", "cache/archives/partial", "etc", "source"):
        (home / folder).mkdir(parents=True)
    entry = home / "etc" / "archive.sources"
    entry.write_text(archive.source_entry(suite))
    options = [
        f"Dir::Etc::sourcelist={entry}",
        "Dir::Etc::sourceparts=-",
        f"Dir::State::lists={home / 'lists'}",
        f"Dir::Cache={home / 'cache'}",
        "APT::Get::List-Cleanup=0",
        "APT::Update::Error-Mode=any",
        "APT::Sandbox::User=",
        # The machine's configuration may have hooks and file indexes that belong to its real lists.
        "APT::Update::Post-Invoke=",
        "APT::Update::Post-Invoke-Success=",
        "Acquire::Languages=none",
        "Acquire::Retries=2",
        "Acquire::http::Timeout=30",
    ]
    apt = ["apt-get", *(word for option in options for word in ("-o", option))]
    where = f"{archive.uri} {suite}"
    run(f"Reading the index of {where} (half a minute)", [*apt, "update"], cwd=home, timeout=FETCH_SECONDS)
    fetch = [*apt, "source", "--download-only", PACKAGE]
    run(
        f"Fetching the source package {PACKAGE}, about 23 MB",
        fetch,
        cwd=home / "source",
        timeout=FETCH_SECONDS,
    )
    upstream = sorted((home / "source").glob(f"{PACKAGE}_*.orig.tar.*"))
    upstream = [path for path in upstream if path.suffix != ".asc"]
    if not upstream:
        raise Failure(f"the source package {PACKAGE} of {where} holds no upstream archive")
    return upstream[0]


def _unpack(archive: Path, work: Path) -> Path:
    tree = work / "source"
    tree.mkdir()
    run("Unpacking it", ["tar", "-xf", archive, "-C", tree, "--strip-components=1"])
    return tree

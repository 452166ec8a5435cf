"""Steps of the set-up: each prints what it does, how long it takes, and what is missing when it fails.

Runs under any Python from 3.11 on, with the standard library alone. All messages go to stderr, so that a script's
stdout holds only its answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokioloop"
TAIL = 30
"""How many lines of a failed command's output are shown; all of it stays in a log."""


class Failure(Exception):
    """A step that cannot go on; its text tells the user what is missing and what to do.

    `reason` is one line, for callers that can continue without the step.
    """

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason or text.partition("\n")[0]


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    print(f"    {text}", file=sys.stderr, flush=True)


def run(
    what: str,
    command: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    hint: str = "",
) -> None:
    """Run `command` with its output kept in a log, and say how long it took.

    `timeout` is in seconds. Raises Failure with the end of the output, the log's path and `hint` when the
    command is missing, fails or takes too long.
    """
    say(what)
    began = time.monotonic()
    log = _new_log(Path(command[0]).name)
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                [os.fspath(part) for part in command],
                cwd=cwd or ROOT,
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            log.unlink()
            raise Failure(f"cannot run {command[0]}: {error.strerror}\n{hint}".rstrip()) from None
        problem = _wait(process, began, timeout)
    if problem:
        tail = log.read_text(errors="replace").splitlines()[-TAIL:]
        shown = "\n".join(f"    | {line}" for line in tail)
        last = tail[-1].strip() if tail else "no output"
        text = f"{what}: {problem}\n{shown}\nThe whole output is in {log}\n{hint}"
        raise Failure(text.rstrip(), reason=f"{problem}: {last} (whole output: {log})")
    log.unlink()
    note(f"done in {time.monotonic() - began:.0f} s")


def _new_log(name: str) -> Path:
    descriptor, path = tempfile.mkstemp(prefix=f"tokioloop-{name}-", suffix=".log")
    os.close(descriptor)
    return Path(path)


def _wait(process: subprocess.Popen[bytes], began: float, timeout: float | None) -> str:
    """Wait for `process`, counting seconds on a terminal; "" when it succeeded, otherwise the reason of its failure."""
    terminal = sys.stderr.isatty()
    try:
        while True:
            elapsed = time.monotonic() - began
            if timeout is not None and elapsed > timeout:
                _end(process)
                return f"gave up after {timeout:.0f} s"
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(timeout=1.0)
                return f"failed with status {status}" if status else ""
            if terminal:
                print(f"\r    {elapsed:.0f} s \r", end="", file=sys.stderr, flush=True)
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and its children: it leads a session of its own, so a compiler does not outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock `path` (a file or a directory) against other runs of the set-up; waits, with a message, for one under way."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another set-up that holds {path}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

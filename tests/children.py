"""Programs that tests run in a process of their own, so that a crash or a hang is a failure with its evidence."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Seconds. Less than pytest gives a test (`pyproject.toml`), or the whole run would end before the program's stacks are shown.
PATIENCE = 90


def finish(
    command: list[str],
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    patience: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end.

    One that does not end within ``patience`` seconds is aborted: Python with ``-X faulthandler`` then writes the stacks of all its
    threads, which the AssertionError shows.
    """
    pipe = subprocess.PIPE
    env = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
    with subprocess.Popen(command, env=env, cwd=cwd, stdout=pipe, stderr=pipe, text=True) as child:
        try:
            out, err = child.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)
            try:
                out, err = child.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                # A child of its own may hold the pipes.
                child.kill()
                raise
            raise AssertionError(f"no end after {patience} s\n{out}\n{err}") from None
        finally:
            child.kill()
    return subprocess.CompletedProcess(command, child.returncode, out, err)

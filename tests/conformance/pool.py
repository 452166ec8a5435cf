"""Drives the workers: each job takes tests off one queue and runs them on the baseline, then on the subject."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """How one test ended on one loop."""

    status: str
    """pass, fail, skip, timeout or crash."""
    reason: str = ""
    seconds: float = 0.0
    loops: dict[str, int] = field(default_factory=dict)
    """Loops the test made: `subject`, or the class name of another."""
    output: str = ""


class WorkerError(Exception):
    """A worker could not start; the message holds what it printed."""


class Worker:
    """A process that runs tests on one loop, one at a time. Restarts itself when it dies."""

    def __init__(self, loop: str, package: str, modules: list[str], directory: str, root: str) -> None:
        flags = ["-W", "default", "-X", "faulthandler"]
        code = f"import sys; sys.path.insert(0, {root!r}); from tests.conformance.worker import main; sys.exit(main())"
        self._command = [sys.executable, *flags, "-c", code, "--loop", loop, "--package", package, *modules]
        self._directory = directory
        self.tests: list[str] = []
        self.broken: dict[str, str] = {}
        self.gil = True
        self._closed = False
        self._start()

    def run(self, test: str, timeout: float) -> Outcome:
        """Runs one test; a worker that dies meanwhile costs that test only."""
        try:
            self._stdin.write(json.dumps({"test": test, "timeout": timeout}).encode() + b"\n")
            self._stdin.flush()
            line = self._stdout.readline()
        except BrokenPipeError:
            line = b""
        if line:
            return Outcome(**json.loads(line))
        code = self._process.wait()
        self._reap()
        if self._closed:
            raise WorkerError("closed while it ran a test")
        self._start()
        return Outcome("crash", f"the worker itself died with code {code}")

    def close(self) -> None:
        """Ends the process; the child it is waiting for, if any, goes with it. Another thread may be in `run`."""
        self._closed = True
        self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        self._process.terminate()
        self._process.wait()
        self._stdout.close()
        self._errors.close()

    def _start(self) -> None:
        self._errors = open(f"{self._directory}/worker-{id(self)}.log", "w+b")  # noqa: SIM115 - lives with the process
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self._directory,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        line = self._stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            printed = self._errors.read().decode(errors="replace")
            self._reap()
            raise WorkerError(printed[-4000:])
        hello: dict[str, Any] = json.loads(line)
        self.tests, self.broken, self.gil = hello["tests"], hello["broken"], hello["gil"]


Pair = tuple[Outcome | None, Outcome]
"""Baseline (None when there is none) and subject."""


def run_all(
    crews: list[tuple[Worker | None, Worker]],
    tests: list[str],
    timeout: Callable[[str, Outcome | None], float],
    done: Callable[[str, Pair], None],
) -> None:
    """Runs `tests` on as many threads as there are crews; `done` is called from those, one at a time.

    A test that the baseline does not pass is not run on the subject, for it is not counted. `timeout` gives the
    seconds allowed, from the test and the baseline's outcome. The first exception of a thread is raised here.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for test in tests:
        todo.put(test)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work(baseline: Worker | None, subject: Worker) -> None:
        try:
            while not errors:
                test = todo.get_nowait()
                before = None if baseline is None else baseline.run(test, timeout(test, None))
                if before is not None and before.status != "pass":
                    pair: Pair = (before, Outcome("skip", "not passing on the baseline"))
                else:
                    pair = (before, subject.run(test, timeout(test, before)))
                with lock:
                    done(test, pair)
        except queue.Empty:
            pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=crew, daemon=True) for crew in crews]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
